"""Faults as data: what goes wrong in a world, when, and with which parameters.

A plan is a list of these, one a line in a scenario file:

    12.345 freeze-host node=2 for_ms=3000

Whatever is left to chance is a parameter, drawn with the plan: so a plan can lose a fault without
changing what the others do.  A new kind is a class beside this module, in the one about what it
strikes, and a draw in `plans`.

A fault that finds nothing to do (its host is off already) does nothing: which of them come at a good
moment is the business of chance, or of whoever writes the plan."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, get_origin, get_type_hints

import msgspec

from ringfence.sim.host import Host
from ringfence.sim.power import PowerRoom
from ringfence.sim.ring import SimRing
from ringfence.sim.scheduler import MS, Scheduler
from ringfence.sim.storage import Trouble


@dataclass(frozen=True)
class Arena:
    """What faults can get at.

    Attributes:
        sign: an operator signs, at the daemon of the second host, that the first host is off; the word
            gets there so many ms later.
        order: an operator orders, at the daemon of the second host, that the first is fenced.
        disarm: an operator disarms fencing, at a host's daemon, for so many ms.
        leave: ask a host's daemon for a clean leave.
        stop: ask a host's daemon to leave the lockspace of the volume group.
        hand_over: have who has an LV hand it over to a host, or prepare that.
        hand_back: drop a hand-over that is prepared.
        type_there: an operator types a command about an LV at a host.
        replace: another machine takes a host's place, under its node id, for so many ms.
        tend: boot a host, or start its daemon, if that is what it lacks.
        rot: damage what stands in the mark of a host.
        await_writer: call once, with the node where a client is next told a lock under which it may write a
            value."""

    scheduler: Scheduler
    ring: SimRing
    power: PowerRoom
    hosts: dict[int, Host]
    sign: Callable[[Host, Host, int], None]
    order: Callable[[Host, Host], None]
    disarm: Callable[[Host, int], None]
    leave: Callable[[Host], None]
    stop: Callable[[Host], None]
    hand_over: Callable[[Host, bool], None]
    hand_back: Callable[[], None]
    type_there: Callable[[Host, str, str], None]
    replace: Callable[[Host, int], None]
    tend: Callable[[Host], None]
    rot: Callable[[int], None]
    await_writer: Callable[[Callable[[int], None]], None]

    def part(self, parts: list[list[int]], for_ms: int, ragged_ms: int = 0) -> None:
        """Cut the ring; it heals in the end, if it is not cut otherwise meanwhile."""
        self.ring.cut(parts, ragged_ms)
        self.scheduler.after(for_ms, lambda: self.ring.heal() if self.ring.parts is parts else None)

    def sicken(self, host: Host, how: Trouble, disk: str, for_ms: int) -> None:
        """A host's way to a shared disk has trouble for so long."""
        host.storage.suffer(how, (disk,))
        self.scheduler.after(for_ms, lambda: host.storage.suffer(Trouble.NONE, ()))

    def neglect(self, host: Host, for_ms: int) -> None:
        """Nobody switches the host on, or starts its daemon, for so long; then somebody does at once.
        0: sooner or later."""
        if for_ms:
            host.neglected_until_ns = self.scheduler.now_ns + for_ms * MS
            self.scheduler.after(for_ms, lambda: self.tend(host))


HOSTS = ("node", "desk")
"""Fields that name a host."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of fault, its tag being its word in scenario files; an instance is one of a plan."""

    at_ms: int = 0
    """Since the world began (in a draw: since its story began)."""

    def strike(self, arena: Arena) -> None:
        raise NotImplementedError

    @property
    def kind(self) -> str:
        return str(self.__struct_config__.tag)

    def later(self, by_ms: int) -> Self:
        return msgspec.structs.replace(self, at_ms=self.at_ms + by_ms)

    def without(self, node: int) -> Self | None:
        """The same in a world in which that host does not exist and later ones have moved up; None: it
        was about that host, or would be about nobody."""
        changes: dict[str, Any] = {}
        for field, value in _values(self).items():
            if field in HOSTS:
                if value == node:
                    return None
                changes[field] = value - (value > node)
            elif field == "nodes":
                changes[field] = tuple(one - (one > node) for one in value if one != node)
                if not changes[field]:
                    return None
        return msgspec.structs.replace(self, **changes)

    def __str__(self) -> str:
        words = [f"{self.at_ms / 1000:.3f} {self.kind}"]
        defaults = {field.name: field.default for field in msgspec.structs.fields(self)}
        for field, value in _values(self).items():
            if value == defaults[field]:
                continue
            if isinstance(value, tuple):
                value = ",".join(str(one) for one in value)
            words.append(f"{field}={value.value if isinstance(value, enum.Enum) else value}")
        return " ".join(words)


def parse_fault(line: str) -> Fault:
    """Read one line.  Raises ValueError with what is wrong with it."""
    at_s, _, rest = line.strip().partition(" ")
    kind, *words = rest.split()
    kinds = {str(one.__struct_config__.tag): one for one in Fault.__subclasses__()}
    cls = kinds.get(kind)
    if cls is None:
        raise ValueError(f"no fault is called {kind!r}; there are: {', '.join(sorted(kinds))}")
    hints = get_type_hints(cls)
    values: dict[str, Any] = {"type": kind, "at_ms": round(float(at_s) * 1000)}
    for word in words:
        field, equals, text = word.partition("=")
        if not equals or field not in cls.__struct_fields__:
            raise ValueError(f"{kind} has no parameter {word!r}")
        values[field] = text.split(",") if get_origin(hints[field]) is tuple else text
    try:
        return msgspec.convert(values, cls, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"{line.strip()!r}: {error}") from error


def _values(fault: Fault) -> dict[str, Any]:
    return {field: getattr(fault, field) for field in fault.__struct_fields__ if field != "at_ms"}
