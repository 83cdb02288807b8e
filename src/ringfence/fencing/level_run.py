"""One attempt: one level of a victim's devices, run by one member.

Local to the acting member, not replicated.  Pure: it says which agents to run next, is told how each
run went and what time it is.  Every use of the level (a device, with a plug of this node's own) must
pass, in three steps that none of them may run ahead of:

1. *off*: each is told an explicit "off", one plug a call;
2. *look*: only when all have been told: a second, fresh "status" of each says off.  A device may need to
   settle first, and its status may lag: it is looked at `looks` times, `look_every_ms` apart, before its
   answer stands;
3. *cross-check*: nothing may contradict them: another device that sees the host itself and says "on";
   a controller that lives from the host's own outlets and still answers, though they are "off"; a
   frame of the victim since the last claim, for which a victim that was alive is listened for
   `listen_ms` from that claim on.  (An outlet that is on does not contradict a host that is off.)

In a `parallel` level the calls of one step run side by side, else one after the other, in order.

An agent that finds a plug off by its own first look sends nothing, and says "already off".  That is no
explicit off.  It counts only if this plug has been switched off in an earlier attempt on the same victim,
or another device that sees the host says "off", too; the storage's own word of a cut is the cut itself.

What it promises: `finished.evidence` is there only if all of this held.  UNKNOWN never reads as off.

Source: FenceAgentAPI for what agents say; lib/fencing.py, fence_action, for "Already OFF"; 3 answers the
lies of real devices (an outlet list of which only the first is switched, an acknowledged and ignored
command, the wrong host's plug)."""

import enum
import re
from collections.abc import Collection, Mapping

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Use
from ringfence.core.evidence import Evidence, EvidenceKind, Power
from ringfence.core.ids import Life
from ringfence.fencing.policy import kind_of
from ringfence.wire.entries import DeviceWord

_ALREADY = re.compile(r"already off", re.IGNORECASE)
_SENT = re.compile(r"\btimed out waiting to power off\b", re.IGNORECASE)
"""The agent has sent "off", and its device still said "on" when it gave up: it may lag."""
_REMEMBERED = re.compile(r"switched off in attempt (\d+)")
_REFUTED = re.compile(r'said "off".*, but .*: claim refused$')
"""Not: by the device itself, whose second look says "on"."""
_SILENT_KINDS = (EvidenceKind.HOST_OFF, EvidenceKind.OUTLETS_OFF, EvidenceKind.SELF_FENCED)
"""Whom this was done to does not speak.  (After a storage cut a host does; a naive lab does not listen.)"""


class Run(msgspec.Struct, frozen=True):
    """Order: run this device's agent once, for one plug."""

    run: int
    use: Use
    action: str
    timeout_ms: int

    @property
    def device(self) -> str:
        return self.use.device


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
    DONE = "done"


class _Plug(msgspec.Struct):
    """A use, and how far it has come in the present step."""

    use: Use
    device: DeviceConfig
    run: int = 0
    """The run that has not exited; 0 = none."""
    looks: int = 0
    not_before_ms: int = 0
    """It settles, or is left alone between two looks."""
    done: bool = False
    unsent: bool = False
    """It was "already off": its agent has sent nothing."""

    @property
    def label(self) -> str:
        return self.use.label


class LevelRun:
    """Runs one level.  Call `start`, then `exited` for each run and `time_passes` from `until_ms` on, until
    `finished` is set; then cancel what still runs.

    Args:
        victim_life: whose end is to be brought about and shown.
        level_index: from 0, into the victim node's levels.
        first_run_id: run ids count up from here.
        seen_by: the acting node, for the evidence.
        wall_ms: the date, for the evidence.
        quarantined: devices that are fired but not believed.
        switched: uses that were explicitly switched off for this victim before, with the attempt's number
            (`switched_off`).
        listen_ms: how long after the last claim of "off" the victim's own voice is listened for before the
            level passes; 0: it was silent already.
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
        switched: Mapping[str, int] | None = None,
        listen_ms: int = 0,
    ) -> None:
        self._config = config
        self._life = victim_life
        self._name = config.name_of(victim_life.node)
        level = config.levels_of(victim_life.node)[level_index]
        self._parallel = level.parallel
        self._uses = [_Plug(use, config.device(use.device)) for use in level.uses]
        assert self._uses, f"level {level_index + 1} of {self._name} has no devices"
        devices = [plug.device for plug in self._uses]
        self._kind = EvidenceKind.CLAIM if config.naive else kind_of([device.confirms for device in devices])
        self._others = _crosses(config, victim_life.node, level.names, self._kind)
        self._liars = quarantined
        self._switched = switched or {}
        self._listen_ms = listen_ms if self._kind in _SILENT_KINDS else 0
        self._heard_out_ms = 0
        """Until when the victim is listened for."""
        self._next_run = first_run_id
        self._seen_by = seen_by
        self._wall_ms = wall_ms
        self._words: list[DeviceWord] = []
        self._claims: list[_Plug] = []
        self._silent: list[str] = []
        """Devices that were asked whether they contradict, and gave no answer."""
        self._agree: list[str] = []
        """Devices that were asked whether they contradict, and say "off", too."""
        self._step = _Step.OFF
        self._plugs = self._uses
        """Those of the present step, in order."""
        self.live: list[Run] = []
        """Runs that have not exited; cancel them when `finished` is set before they do."""
        self.finished: Outcome | None = None

    # -- facts -----------------------------------------------------------------------

    def start(self, now_ms: int = 0) -> list[Run]:
        """The first runs."""
        assert not self.live, "started already"
        assert self.finished is None, "over already"
        return self._go_on(now_ms)

    def exited(
        self, run: int, power: Power, words: str, took_ms: int, answered: bool, now_ms: int = 0
    ) -> list[Run]:
        """A run ended.  Returns what to run next; nothing if something is waited for, or `finished` is set.

        Args:
            power: for "off": OFF means that the agent says it is done.  For "status": what it says.
            answered: False if the device was not reached at all.
        """
        ended = next((one for one in self.live if one.run == run), None)
        if ended is None:
            return []  # not ours
        self.live.remove(ended)
        plug = next((one for one in self._plugs if one.run == run), None)
        if self.finished is not None or plug is None:
            self._said(ended, power, words, took_ms)
            return []
        plug.run = 0
        if self._step is _Step.OFF:
            words = self._off_ended(plug, power, words, answered, now_ms)
        elif self._step is _Step.LOOK:
            self._look_ended(plug, power, now_ms)
        else:
            self._cross_ended(plug, power, now_ms)
        self._said(ended, power, words, took_ms)
        return self._go_on(now_ms)

    def time_passes(self, now_ms: int) -> list[Run]:
        """What was waited for may be over.  Returns what to run now."""
        return self._go_on(now_ms)

    def heard_victim(self) -> None:
        """A frame of the victim was delivered.  After the last claim of "off" it refutes the claims.

        Not before: a host with two supplies runs on until both are off."""
        if self._step is not _Step.OFF and self._kind in _SILENT_KINDS and self.finished is None:
            said = self._said_off()
            self._fail(f'{said} said "off", but {self._name} still speaks: claim refused', self._claims)

    def cancel(self) -> None:
        """Evidence came from elsewhere, or this node may not act any more."""
        if self.finished is None:
            self._fail("cancelled", [])

    # -- what is waited for ------------------------------------------------------------

    @property
    def words(self) -> tuple[DeviceWord, ...]:
        """What was said so far."""
        return tuple(self._words)

    @property
    def until_ms(self) -> int:
        """When `time_passes` has something to do; 0 = only an exit brings it on."""
        if self._listens:
            return self._heard_out_ms
        return min((plug.not_before_ms for plug in self._waiting()), default=0)

    def waits(self, now_ms: int) -> list[str]:
        """What is waited for, other than agents, a line each."""
        lines = []
        if self._listens:
            left = f"{max(0, self._heard_out_ms - now_ms) / 1000:.1f} s"
            lines.append(f"listens {left} more whether {self._name} still speaks, though it is called off")
        for plug in self._waiting():
            left = f"{max(0, plug.not_before_ms - now_ms) / 1000:.1f} s"
            if plug.looks:
                at = f"look {plug.looks + 1} of {plug.device.looks} at {plug.label}"
                lines.append(f"waits {left} for {at}: its status may lag")
            else:
                lines.append(f"waits {left} for {plug.label} to settle")
        return lines

    @property
    def _listens(self) -> bool:
        """Every device has had its say, and the victim may yet have its own."""
        asked = self._step is _Step.CROSS and all(plug.done for plug in self._plugs)
        return asked and self._heard_out_ms > 0 and self.finished is None

    def _waiting(self) -> list[_Plug]:
        if self.finished is not None:
            return []
        return [plug for plug in self._turns() if not plug.run and plug.not_before_ms]

    # -- the three steps -----------------------------------------------------------------

    def _go_on(self, now_ms: int) -> list[Run]:
        """Begin what may begin now; where a step is done, the next one."""
        while self.finished is None and all(plug.done for plug in self._plugs):
            if self._listens and now_ms < self._heard_out_ms:
                return []
            self._next_step()
        if self.finished is not None:
            return []
        due = [plug for plug in self._turns() if not plug.run and plug.not_before_ms <= now_ms]
        return [self._begin(plug) for plug in due]

    def _turns(self) -> list[_Plug]:
        """Whose turn it is in this step."""
        waiting = [plug for plug in self._plugs if not plug.done]
        return waiting if self._parallel else waiting[:1]

    def _next_step(self) -> None:
        if self._step is _Step.OFF and not self._config.naive:
            self._step = _Step.LOOK
            for plug in self._plugs:
                plug.done = False
        elif self._step is _Step.LOOK:
            self._step = _Step.CROSS
            self._plugs = self._others
        else:
            self._pass()

    def _begin(self, plug: _Plug) -> Run:
        action = "off" if self._step is _Step.OFF else "status"
        plug.looks += action == "status"
        plug.not_before_ms = 0
        timeout_ms = plug.device.timeout_ms or self._config.timing.agent_timeout_ms
        run = Run(self._next_run, plug.use, action, timeout_ms)
        plug.run = run.run
        self._next_run += 1
        self.live.append(run)
        return run

    def _off_ended(self, plug: _Plug, power: Power, words: str, answered: bool, now_ms: int) -> str:
        """Returns the words to be kept."""
        if power is not Power.OFF:
            self._fail(f"{plug.label}: {_why_not(power, words, answered)}", [])
            return words
        self._claims.append(plug)
        plug.done = True
        if self._listen_ms:
            self._heard_out_ms = now_ms + self._listen_ms
        if plug.device.settle_ms:
            plug.not_before_ms = now_ms + plug.device.settle_ms
        if not already_off(words):
            return words
        before = self._switched.get(plug.label)
        plug.unsent = before is None and plug.device.confirms is not Confirms.STORAGE_CUT
        return words if before is None else f"switched off in attempt {before} (now: {words})"

    def _look_ended(self, plug: _Plug, power: Power, now_ms: int) -> None:
        if power is Power.OFF:
            plug.done = True
        elif self._looks_again(plug, now_ms):
            return
        elif power is Power.ON:
            self._fail(f'{plug.label} said "off", a second look says "on": claim refused', [plug])
        else:
            what = f'{plug.label} said "off", a second look got no answer: claim not believed'
            self._fail(what, [])

    def _cross_ended(self, plug: _Plug, power: Power, now_ms: int) -> None:
        """Only a clear word contradicts: no answer is what a device without power gives."""
        why = ""
        if power is Power.ON:
            why = f'{plug.label} says "on"'
        elif power is Power.OFF and self._kind is EvidenceKind.OUTLETS_OFF and not plug.device.own_supply:
            why = f"{plug.label} still answers from behind outlets that are off"
        if why and self._looks_again(plug, now_ms):
            return
        if why:
            self._fail(f'{self._said_off()} said "off", but {why}: claim refused', self._claims)
        elif power is Power.UNKNOWN:
            self._silent.append(plug.label)
        elif plug.use.device not in self._liars:
            self._agree.append(plug.label)
        plug.done = True

    def _looks_again(self, plug: _Plug, now_ms: int) -> bool:
        if plug.looks >= plug.device.looks:
            return False
        if plug.device.look_every_ms:
            plug.not_before_ms = now_ms + plug.device.look_every_ms
        return True

    # -- the end ---------------------------------------------------------------------------

    def _fail(self, verdict: str, contradicted: list[_Plug]) -> None:
        self._step = _Step.DONE
        self.finished = Outcome(False, verdict, self.words, contradicted=tuple(_names(contradicted)))

    def _pass(self) -> None:
        self._step = _Step.DONE
        labels = ", ".join(plug.label for plug in self._uses)
        quarantined = _names([plug for plug in self._uses if plug.use.device in self._liars])
        if quarantined:
            liars = ", ".join(quarantined)
            self._fail(f'{liars} said "off" and looks off, but is quarantined: not believed', [])
            return
        unsent = self._unsent()
        if unsent:
            what = f"{unsent} was already off, so no off was sent, and no other device sees the host off"
            self._fail(f"{what}: not believed", [])
            return
        if self._config.naive:
            how = f'{labels} said "off"; nobody looked again'
        else:
            how = f'{labels} said "off", and a second look agrees'
        if self._agree:
            how += f'; {", ".join(self._agree)} says "off", too'
        if self._silent and self._kind is EvidenceKind.OUTLETS_OFF:
            how += f"; {', '.join(self._silent)} does not answer"
        if self._kind is EvidenceKind.SELF_FENCED:
            how += f"; it rests on the watchdog of {self._name}"
        devices = tuple(_names(self._uses))
        evidence = Evidence(self._life, self._kind, self._seen_by, how, devices, self._wall_ms)
        self.finished = Outcome(True, how, self.words, evidence)

    def _unsent(self) -> str:
        """Plugs that were already off, where nothing but their own word says so; empty = none."""
        if self._config.naive or self._agree:
            return ""
        seeing = [plug for plug in self._uses if plug.device.confirms is Confirms.HOST_OFF]
        if any(not plug.unsent for plug in seeing):
            return ""  # the host itself was switched off, and is seen so
        needed = seeing if self._kind is EvidenceKind.HOST_OFF else self._uses
        if self._kind is EvidenceKind.STORAGE_CUT:
            needed = [plug for plug in self._uses if plug.device.confirms is Confirms.STORAGE_CUT]
        return ", ".join(plug.label for plug in needed if plug.unsent)

    # -- helpers -----------------------------------------------------------------------------

    def _said(self, run: Run, power: Power, words: str, took_ms: int) -> None:
        self._words.append(DeviceWord(run.use.label, run.action, power.value, words, took_ms))
        if self.finished is not None:
            self.finished = msgspec.structs.replace(self.finished, words=self.words)

    def _said_off(self) -> str:
        return " and ".join(plug.label for plug in self._claims)


def already_off(words: str) -> bool:
    """Whether an agent that was told "off" says that it has sent nothing, for the plug was off.

    Source: lib/fencing.py, fence_action()."""
    return _ALREADY.search(words) is not None


def switched_off(words: Collection[DeviceWord], number: int) -> dict[str, int]:
    """Which uses attempt `number` has explicitly told "off", by what was said in it: label -> the attempt
    in which that was.  Also where its agent did not see it done in time; a later look must."""
    found = {}
    for word in words:
        before = _REMEMBERED.match(word.words)
        told = word.power == Power.OFF.value and (before or not already_off(word.words))
        if word.action == "off" and (told or _SENT.search(word.words)):
            found[word.device] = int(before[1]) if before else number
    return found


def refuted(verdict: str, words: Collection[DeviceWord]) -> list[str]:
    """Devices whose claim of "off" in an attempt was refuted by somebody else: the victim's voice or disk
    slot, another device.  Each once."""
    if not _REFUTED.search(verdict):
        return []
    claims = [word.device for word in words if (word.action, word.power) == ("off", Power.OFF.value)]
    return list(dict.fromkeys(device_of(label) for label in claims))


def device_of(label: str) -> str:
    """The device of `Use.label`."""
    return label.partition("[")[0]


def _crosses(config: ClusterConfig, node: int, own: Collection[str], kind: EvidenceKind) -> list[_Plug]:
    """The node's other devices that see the host itself: they may contradict a cut of power.

    (Not that a host has ended itself: its watchdog starts it again.)"""
    if kind not in (EvidenceKind.HOST_OFF, EvidenceKind.OUTLETS_OFF):
        return []
    uses = {use.label: use for level in config.levels_of(node) for use in level.uses}
    others = [_Plug(use, config.device(use.device)) for use in uses.values() if use.device not in own]
    return [plug for plug in others if plug.device.confirms is Confirms.HOST_OFF]


def _names(plugs: list[_Plug]) -> list[str]:
    """Their devices, each once, in order."""
    return list(dict.fromkeys(plug.use.device for plug in plugs))


def _why_not(power: Power, words: str, answered: bool) -> str:
    if power is Power.ON:
        return 'said "on" when told to switch off'
    what = "failed" if answered else "unreachable"
    return f"{what} ({words})" if words else what
