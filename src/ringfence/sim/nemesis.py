"""What goes wrong, and when: faults of all kinds, each of which the design says it survives.

Each seed enables its own handful of kinds (swarm testing: Groce et al., ISSTA 2012), so that rare
combinations are not drowned by common ones.  With two nodes and no slots a lie of a fence device
during a partition is outside of what the design promises; there the two are never enabled
together."""

import enum
from collections.abc import Callable

from ringfence.sim.host import Host
from ringfence.sim.power import Manner, PowerRoom
from ringfence.sim.ring import SimRing
from ringfence.sim.scheduler import Scheduler


class Fault(enum.Enum):
    FREEZE_HOST = "freeze-host"
    FREEZE_DAEMON = "freeze-daemon"
    KILL_DAEMON = "kill-daemon"
    POWER_OFF = "power-off"
    POWER_OFF_ALL = "power-off-all"
    CUT = "cut"
    RING_LOST = "ring-lost"
    DEVICES_FAIL = "devices-fail"
    DEVICES_LIE = "devices-lie"
    MID_STEP = "mid-step"
    OPERATOR = "operator"
    LEAVE = "leave"


WEIGHTS = {
    Fault.FREEZE_HOST: 8,
    Fault.FREEZE_DAEMON: 3,
    Fault.KILL_DAEMON: 4,
    Fault.POWER_OFF: 3,
    Fault.POWER_OFF_ALL: 1,
    Fault.CUT: 6,
    Fault.RING_LOST: 1,
    Fault.DEVICES_FAIL: 4,
    Fault.DEVICES_LIE: 4,
    Fault.MID_STEP: 3,
    Fault.OPERATOR: 1,
    Fault.LEAVE: 1,
}
FAILING = (Manner.UNREACHABLE, Manner.HANGS, Manner.CONTRADICTED, Manner.HONEST)
LYING = (Manner.LIES, Manner.LATE, Manner.WRONG_HOST, Manner.HONEST)


class Nemesis:
    """Args:
    confirm: an operator signs that a node is off (through any daemon that runs).
    leave: ask a host's daemon for a clean leave."""

    def __init__(
        self,
        scheduler: Scheduler,
        ring: SimRing,
        power: PowerRoom,
        hosts: list[Host],
        confirm: Callable[[Host], None],
        leave: Callable[[Host], None],
    ) -> None:
        self._scheduler, self._ring, self._power, self._hosts = scheduler, ring, power, hosts
        self._confirm, self._leave = confirm, leave
        self.active = True
        self.counts: dict[str, int] = {}
        rng = scheduler.rng
        self.enabled = [fault for fault in Fault if scheduler.chance(0.5)] or [Fault.FREEZE_HOST]
        if len(hosts) == 2 and Fault.CUT in self.enabled and Fault.DEVICES_LIE in self.enabled:
            self.enabled.remove(rng.choice([Fault.CUT, Fault.DEVICES_LIE]))
        self._pace_ms = rng.choice([400, 1500, 4000])
        scheduler.note(
            f"nemesis: {' '.join(fault.value for fault in self.enabled)}, every {self._pace_ms} ms"
        )
        for host in hosts:
            host.fault = self._mid_step
        self._plan()

    def _plan(self) -> None:
        self._scheduler.after(self._scheduler.between(0.1, 2) * self._pace_ms, self._strike)

    def _strike(self) -> None:
        if not self.active:
            return
        weights = [WEIGHTS[fault] for fault in self.enabled]
        fault = self._scheduler.rng.choices(self.enabled, weights)[0]
        self.counts[fault.value] = self.counts.get(fault.value, 0) + 1
        host = self._scheduler.rng.choice(self._hosts)
        self._scheduler.note(f"nemesis: {fault.value} ({host.name})")
        self._do(fault, host)
        self._plan()

    def _do(self, fault: Fault, host: Host) -> None:
        match fault:
            case Fault.FREEZE_HOST:
                self._freeze(host, daemon_only=False)
            case Fault.FREEZE_DAEMON:
                self._freeze(host, daemon_only=True)
            case Fault.KILL_DAEMON:
                self._kill(host)
            case Fault.POWER_OFF:
                self._power.cut(host.node)
            case Fault.POWER_OFF_ALL:
                self._all_off()
            case Fault.CUT:
                self._cut()
            case Fault.RING_LOST:
                self._ring_lost()
            case Fault.DEVICES_FAIL:
                self._spoil(host, FAILING)
            case Fault.DEVICES_LIE:
                self._spoil(host, LYING)
            case Fault.OPERATOR:
                self._operator(host)
            case Fault.LEAVE:
                self._leave(host)
            case Fault.MID_STEP:
                pass  # strikes by itself, between two effects

    def _mid_step(self) -> str:
        if not self.active or Fault.MID_STEP not in self.enabled or not self._scheduler.chance(0.0007):
            return ""
        fault = self._scheduler.rng.choice(["freeze", "kill", "power"])
        self._scheduler.note(f"nemesis: {fault} in the middle of a step")
        if fault == "freeze":
            duration_ms = self._scheduler.between(10, 8000)
            for host in self._hosts:
                self._scheduler.after(duration_ms, host.thaw)
        return fault

    def _freeze(self, host: Host, daemon_only: bool) -> None:
        host.freeze(daemon_only)
        longest_ms = self._scheduler.rng.choice([300, 3000, 12000])
        self._scheduler.after(self._scheduler.between(10, longest_ms), host.thaw)

    def _kill(self, host: Host) -> None:
        """A killed daemon is started again by its host's init, sooner or later."""
        if not host.frozen:
            host.kill_daemon()

    def _all_off(self) -> None:
        for host in self._hosts:
            self._power.cut(host.node)

    def _cut(self) -> None:
        rng = self._scheduler.rng
        if not self._ring.whole:
            self._ring.heal()
            return
        nodes = [host.node for host in self._hosts]
        rng.shuffle(nodes)
        at = rng.randrange(1, len(nodes))
        self._scheduler.note(f"nemesis: {sorted(nodes[:at])} | {sorted(nodes[at:])}")
        self._ring.cut([sorted(nodes[:at]), sorted(nodes[at:])])
        self._scheduler.after(self._scheduler.between(100, 10000), self._ring.heal)

    def _ring_lost(self) -> None:
        self._ring.lose()
        self._scheduler.after(self._scheduler.between(100, 8000), self._ring.restore)

    def _spoil(self, host: Host, manners: tuple[Manner, ...]) -> None:
        rng = self._scheduler.rng
        for device in self._power.devices.values():
            if device.node == host.node and rng.random() < 0.6:
                device.manner = rng.choice(manners)

    def _operator(self, host: Host) -> None:
        """An honest operator: pulls both plugs, then signs."""
        self._power.cut(host.node)
        self._scheduler.after(self._scheduler.between(500, 2000), lambda: self._signs(host))

    def _signs(self, host: Host) -> None:
        if not host.up:
            self._confirm(host)

    def stop(self) -> None:
        self.active = False
        for host in self._hosts:
            host.fault = lambda: ""
