"""What goes wrong, and when: faults of all kinds, each of which the design says it survives.

Each seed enables its own handful of kinds (swarm testing: Groce et al., ISSTA 2012), so that rare
combinations are not drowned by common ones.  With two nodes and no slots a lie of a fence device
during a partition is outside of what the design promises; there the two are never enabled
together."""

import enum
from collections.abc import Callable
from functools import partial

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
LIE_PACE_MS = 5000
LYING = (Manner.LIES, Manner.LATE, Manner.WRONG_HOST, Manner.HONEST)


class Faults(enum.Enum):
    """Which faults a world suffers."""

    SWARM = "swarm"
    """A handful of kinds, by chance."""
    LIAR = "liar"
    """The story of the lie, again and again: a host's devices claim that it is off, and it is only
    frozen, or cut off with its clients at work; it comes back at the worst moments."""


class Nemesis:
    """Args:
    faults: the plan.
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
        faults: Faults = Faults.SWARM,
    ) -> None:
        self._scheduler, self._ring, self._power, self._hosts = scheduler, ring, power, hosts
        self._confirm, self._leave = confirm, leave
        self.active = True
        self.counts: dict[str, int] = {}
        self.enabled: list[Fault] = []
        self._pace_ms = LIE_PACE_MS
        if faults is Faults.SWARM:
            self._choose_swarm()
        scheduler.note(
            f"nemesis: {' '.join(fault.value for fault in self.enabled) or faults.value}, "
            f"every {self._pace_ms} ms"
        )
        for host in hosts:
            host.fault = self._mid_step
        self._plan()

    def _choose_swarm(self) -> None:
        scheduler, hosts, rng = self._scheduler, self._hosts, self._scheduler.rng
        self.enabled = [fault for fault in Fault if scheduler.chance(0.5)] or [Fault.FREEZE_HOST]
        if len(hosts) == 2 and Fault.CUT in self.enabled and Fault.DEVICES_LIE in self.enabled:
            self.enabled.remove(rng.choice([Fault.CUT, Fault.DEVICES_LIE]))
        self._pace_ms = rng.choice([400, 1500, 4000])

    def _plan(self) -> None:
        self._scheduler.after(self._scheduler.between(0.1, 2) * self._pace_ms, self._strike)

    def _strike(self) -> None:
        if not self.active:
            return
        if not self.enabled:
            self._lie(self._scheduler.rng.choice(self._hosts))
            self._plan()
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

    def _lie(self, host: Host) -> None:
        """The others give this host up wrongly; it comes back before or after they acted on that."""
        if not self._ring.whole or any(one.frozen for one in self._hosts):
            return
        rng = self._scheduler.rng
        self.counts["lie"] = self.counts.get("lie", 0) + 1
        for device in self._power.devices.values():
            device.manner = Manner.LIES if device.node == host.node else Manner.HONEST
        away_ms = self._scheduler.between(700, rng.choice([2500, 4500, 7000]))
        others = [one for one in self._hosts if one is not host]
        # With two nodes the design promises nothing for a lie in a partition, or before a loss of both.
        story = rng.choice(["frozen", "cut off", "silent", "alone"] if len(others) > 1 else ["frozen"])
        self._scheduler.note(f"nemesis: {host.name} is {story}, its devices lie")
        if story == "cut off":
            self._ring.cut([[host.node], [one.node for one in others]])
            self._scheduler.after(away_ms, self._ring.heal)
        else:
            host.freeze(story == "silent")
            self._scheduler.after(away_ms, host.thaw)
        if story == "silent":  # its daemon alone; and the view changes for another reason
            self._scheduler.after(away_ms * self._scheduler.between(0.6, 1.1), rng.choice(others).kill_daemon)
        if story == "alone":  # those who gave it up are gone when it comes back
            for one in others:
                gone_ms = away_ms * self._scheduler.between(0.7, 1)
                self._scheduler.after(gone_ms, partial(self._power.cut, one.node))
        self._scheduler.after(away_ms + self._scheduler.between(0, 1500), self._power.calm)

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
