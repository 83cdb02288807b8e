"""One attempt: one level of a victim's devices, run by one member.

Local to the acting member, not replicated.  Pure: it says which agent to run next and is told how
each run went.  Every device of the level must pass, in the order configured:

1. an explicit "off" ("already off" from an earlier look is never enough);
2. a second, fresh "status" that says off.  A device may lag, so it is looked at twice;
3. after all devices passed, nothing may contradict them: another device that sees the host itself
   and says "on"; a controller that lives from the host's own outlets and still answers, though
   they are "off"; a heartbeat of the victim since the first claim.  (An outlet that is on does
   not contradict a host that is off.)

What it promises: `finished.evidence` is there only if all three held.  UNKNOWN never reads as off.

Source: FenceAgentAPI for what agents say; 3 answers the lies of real devices (an outlet list of
which only the first is switched, an acknowledged and ignored command, the wrong host's plug)."""

import enum
from collections.abc import Collection

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig
from ringfence.core.evidence import Evidence, EvidenceKind, Power
from ringfence.core.ids import Life
from ringfence.wire.entries import DeviceWord

LOOKS = 2
"""How often a device is looked at before its answer stands (switched outlets lag)."""


class Run(msgspec.Struct, frozen=True):
    """Order: run this device's agent once."""

    run: int
    device: str
    action: str
    timeout_ms: int


class Outcome(msgspec.Struct, frozen=True):
    passed: bool
    verdict: str
    """One line for people."""
    words: tuple[DeviceWord, ...] = ()
    evidence: Evidence | None = None
    """To be multicast; there exactly if `passed`."""
    contradicted: tuple[str, ...] = ()
    """Devices whose claim of "off" was refuted."""


class _Step(enum.Enum):
    OFF = "off"
    LOOK = "look"
    CROSS = "cross"
    """Looks at devices that may contradict."""
    DONE = "done"


class LevelRun:
    """Runs one level.  Call `start`, then `exited` for each run, until `finished` is set.

    Args:
        victim_life: whose end is to be brought about and shown.
        level_index: from 0, into the victim node's levels.
        first_run_id: run ids count up from here.
        seen_by: the acting node, for the evidence.
        wall_ms: the date, for the evidence.
        quarantined: devices that are fired but not believed.
    """

    def __init__(
        self,
        config: ClusterConfig,
        victim_life: Life,
        level_index: int,
        first_run_id: int,
        *,
        seen_by: int = 0,
        wall_ms: int = 0,
        quarantined: Collection[str] = (),
    ) -> None:
        self._config = config
        self._life = victim_life
        self._name = config.name_of(victim_life.node)
        level = config.levels_of(victim_life.node)[level_index]
        self._devices = [config.device(name) for name in level.names]
        assert self._devices, f"level {level_index + 1} of {self._name} has no devices"
        self._kind = EvidenceKind.CLAIM if config.naive else _kind(self._devices)
        self._crosses = _crosses(config, victim_life.node, self._devices, self._kind)
        self._quarantined = [device.name for device in self._devices if device.name in quarantined]
        self._next_run = first_run_id
        self._seen_by = seen_by
        self._wall_ms = wall_ms
        self._words: list[DeviceWord] = []
        self._claims: list[str] = []
        self._silent: list[str] = []
        """Devices that were asked whether they contradict, and gave no answer."""
        self._step = _Step.OFF
        self._index = 0
        self._looks = 0
        self.running: Run | None = None
        """The run that has not exited; cancel it when `finished` is set before it does."""
        self.finished: Outcome | None = None

    def start(self) -> list[Run]:
        """The first run."""
        assert self.running is None, "started already"
        assert self.finished is None, "over already"
        return self._run(self._devices[0], "off")

    def exited(self, run: int, power: Power, words: str, took_ms: int, answered: bool) -> list[Run]:
        """A run ended.  Returns what to run next; nothing once `finished` is set.

        Args:
            power: for "off": OFF means that the agent says it is done.  For "status": what it says.
            answered: False if the device was not reached at all.
        """
        if self.running is None or self.running.run != run:
            return []  # cancelled, or not ours
        ended, self.running = self.running, None
        self._words.append(DeviceWord(ended.device, ended.action, power.value, words, took_ms))
        if self.finished is not None:
            return []
        if self._step is _Step.OFF:
            return self._off_ended(power, words, answered)
        if self._step is _Step.LOOK:
            return self._look_ended(power)
        return self._cross_ended(power)

    def heard_victim(self) -> None:
        """A frame of the victim was delivered.  After a claim of "off" it refutes the claim.

        (A storage cut leaves the host alive; a naive lab does not listen.)"""
        silent_kinds = (EvidenceKind.HOST_OFF, EvidenceKind.OUTLETS_OFF)
        if self._claims and self._kind in silent_kinds and self.finished is None:
            said = " and ".join(self._claims)
            self._fail(f'{said} said "off", but {self._name} still speaks: claim refused', self._claims)

    def cancel(self) -> None:
        """Evidence came from elsewhere, or this node may not act any more."""
        if self.finished is None:
            self._fail("cancelled", [])

    # -- the three steps -----------------------------------------------------------

    def _off_ended(self, power: Power, words: str, answered: bool) -> list[Run]:
        device = self._devices[self._index]
        if power is not Power.OFF:
            return self._fail(f"{device.name}: {_why_not(power, words, answered)}", [])
        self._claims.append(device.name)
        if self._config.naive:
            return self._next_device()
        self._step, self._looks = _Step.LOOK, 0
        return self._look(device)

    def _look_ended(self, power: Power) -> list[Run]:
        device = self._devices[self._index]
        if power is Power.OFF:
            return self._next_device()
        if self._looks < LOOKS:
            return self._look(device)
        if power is Power.ON:
            verdict = f'{device.name} said "off", a second look says "on": claim refused'
            return self._fail(verdict, [device.name])
        return self._fail(f'{device.name} said "off", a second look got no answer: claim not believed', [])

    def _next_device(self) -> list[Run]:
        self._index += 1
        if self._index < len(self._devices):
            self._step = _Step.OFF
            return self._run(self._devices[self._index], "off")
        self._step, self._index = _Step.CROSS, 0
        return self._next_cross()

    def _next_cross(self) -> list[Run]:
        self._looks = 0
        if self._index < len(self._crosses):
            return self._look(self._crosses[self._index])
        self._pass()
        return []

    def _cross_ended(self, power: Power) -> list[Run]:
        """Only a clear word contradicts: no answer is what a device without power gives."""
        other = self._crosses[self._index]
        why = ""
        if power is Power.ON:
            why = f'{other.name} says "on"'
        elif power is Power.OFF and self._kind is EvidenceKind.OUTLETS_OFF and not other.own_supply:
            why = f"{other.name} still answers from behind outlets that are off"
        if why and self._looks < LOOKS:
            return self._look(other)
        if why:
            said = " and ".join(self._claims)
            return self._fail(f'{said} said "off", but {why}: claim refused', self._claims)
        if power is Power.UNKNOWN:
            self._silent.append(other.name)
        self._index += 1
        return self._next_cross()

    # -- helpers ---------------------------------------------------------------------

    def _look(self, device: DeviceConfig) -> list[Run]:
        self._looks += 1
        return self._run(device, "status")

    def _run(self, device: DeviceConfig, action: str) -> list[Run]:
        assert self.running is None, "one agent at a time"
        timeout_ms = device.timeout_ms or self._config.timing.agent_timeout_ms
        self.running = Run(self._next_run, device.name, action, timeout_ms)
        self._next_run += 1
        return [self.running]

    def _fail(self, verdict: str, contradicted: Collection[str]) -> list[Run]:
        self._step = _Step.DONE
        self.finished = Outcome(False, verdict, tuple(self._words), contradicted=tuple(contradicted))
        return []

    def _pass(self) -> None:
        self._step = _Step.DONE
        if self._quarantined:
            liars = ", ".join(self._quarantined)
            self._fail(f'{liars} said "off" and looks off, but is quarantined: not believed', [])
            return
        names = tuple(device.name for device in self._devices)
        if self._config.naive:
            how = f'{", ".join(names)} said "off"; nobody looked again'
        else:
            how = f'{", ".join(names)} said "off", and a second look agrees'
        if self._silent and self._kind is EvidenceKind.OUTLETS_OFF:
            how += f"; {', '.join(self._silent)} does not answer"
        evidence = Evidence(self._life, self._kind, self._seen_by, how, names, self._wall_ms)
        self.finished = Outcome(True, how, tuple(self._words), evidence)


def _kind(devices: list[DeviceConfig]) -> EvidenceKind:
    """What the level proves when all its devices passed: the strongest that one of them shows, but
    outlets only if there is nothing else in the level (all outlets that feed the host)."""
    confirms = [device.confirms for device in devices]
    if Confirms.HOST_OFF in confirms:
        return EvidenceKind.HOST_OFF
    if Confirms.STORAGE_CUT in confirms:
        return EvidenceKind.STORAGE_CUT
    return EvidenceKind.OUTLETS_OFF


def _crosses(
    config: ClusterConfig, node: int, devices: list[DeviceConfig], kind: EvidenceKind
) -> list[DeviceConfig]:
    """The node's other devices that see the host itself: they may contradict a cut of power."""
    if kind not in (EvidenceKind.HOST_OFF, EvidenceKind.OUTLETS_OFF):
        return []
    own = [device.name for device in devices]
    names = dict.fromkeys(name for level in config.levels_of(node) for name in level.names)
    others = [config.device(name) for name in names if name not in own]
    return [device for device in others if device.confirms is Confirms.HOST_OFF]


def _why_not(power: Power, words: str, answered: bool) -> str:
    if power is Power.ON:
        return 'said "on" when told to switch off'
    what = "failed" if answered else "unreachable"
    return f"{what} ({words})" if words else what
