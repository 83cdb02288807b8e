"""Plays a plan of faults in a world, one after the other, and remembers what it has played."""

from collections.abc import Iterable

from ringfence.sim.faults import Arena, Fault
from ringfence.sim.scheduler import MS


class Nemesis:
    """Args:
    plan: in the order of time; may have no end."""

    def __init__(self, arena: Arena, plan: Iterable[Fault]) -> None:
        self._arena = arena
        self._plan = iter(plan)
        self._active = True
        self.struck: list[Fault] = []
        self.struck_ns = 0
        """When the last fault struck."""
        self._await_next()

    @property
    def counts(self) -> dict[str, int]:
        """How often each kind has struck."""
        kinds = sorted(fault.kind for fault in self.struck)
        return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}

    def _await_next(self) -> None:
        fault = next(self._plan, None)
        if fault is not None:
            self._arena.scheduler.at(fault.at_ms * MS, lambda: self._strike(fault))

    def _strike(self, fault: Fault) -> None:
        if not self._active:
            return
        self.struck.append(fault)
        self.struck_ns = self._arena.scheduler.now_ns
        self._arena.scheduler.note(f"nemesis: {fault}")
        fault.strike(self._arena)
        self._await_next()

    def stop(self) -> None:
        self._active = False
        for host in self._arena.hosts.values():
            host.fault = lambda: ""
            host.storage.fault = lambda: None
            host.block.ordered = lambda order, when: None
            host.sent = lambda payload: None
            host.renewed = lambda deadline_ns: None
