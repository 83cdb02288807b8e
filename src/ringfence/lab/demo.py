"""The story in three acts, on labs of real processes: an honest fence, fences that lie, no protection.

The third act is the control of the experiment: the same lie as in the second, with authority
unchecked and the fence agent's word believed.  If it did not corrupt the volume, the first two would
prove nothing."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from ringfence.core.errors import RingfenceError
from ringfence.lab.cluster import Lab
from ringfence.lab.demo_report import ActReport, DemoReport, EventsMissing
from ringfence.lab.devices.kinds import KINDS
from ringfence.lab.judge import Verdict
from ringfence.lab.layout import HUB, Ring
from ringfence.lab.stage import VOLUME, Stage, Vm, newer, reported
from ringfence.lab.teller import Teller
from ringfence.wire import client as calls

DISK_BYTES = 256 << 20
LV_SIZE = "64M"
WRITES_BEFORE = 300
WRITES_AFTER = 200
NAIVE_WRITES = 800


class Setting(msgspec.Struct, frozen=True):
    """Of what the acts' labs are made."""

    ring: Ring = HUB
    devices: tuple[str, ...] = ()
    """Kinds of simulated fence devices; none: the lab's own."""


PLAIN = Setting()


def play(
    acts: Sequence[str],
    teller: Teller,
    parent: Path | None = None,
    keep: bool = False,
    setting: Setting = PLAIN,
) -> DemoReport:
    """Play acts by name ("honest", "lying", "naive"), each on a lab of its own.

    Args:
        setting: of the labs; the naive act's ring is the hub in any case.
        parent: where the labs' directory is made; None = the system's place for such.
        keep: leave the directory (hosts' logs, histories, the disk) behind.  After an error it stays.

    Raises RingfenceError: the story did not go on; it names where the logs are."""
    directory = Path(tempfile.mkdtemp(prefix="rfdemo", dir=parent))
    try:
        report = DemoReport([_ACTS[name](directory / name, teller, setting) for name in acts])
    except EventsMissing as error:
        raise RingfenceError(str(error), next=f"the hosts' logs are in {directory}") from None
    except RingfenceError as error:
        raise RingfenceError(error.message, next=f"the hosts' logs are in {directory}") from error
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    if keep:
        teller.say(f"all of it is left in {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return report


@contextlib.contextmanager
def _stage(directory: Path, teller: Teller, setting: Setting, naive: bool = False) -> Iterator[Stage]:
    directory.mkdir(parents=True)
    ring, devices = setting.ring, setting.devices
    carrier = "a network, a corosync a host" if ring.is_corosync else "hub"
    teller.say(f"a lab of two hosts starts: {carrier}, power switches, two hosts, one shared disk image")
    if devices:
        agents = ", ".join(KINDS[name].agent for name in devices)
        teller.say(f"its fence devices are simulated ({', '.join(devices)}), the agents are stock: {agents}")
    lab = Lab.up(directory / "lab", 2, DISK_BYTES, naive=naive, ring=ring, devices=devices)
    try:
        stage = Stage(lab, teller, directory / "vms")
        try:
            timing = stage.daemon(lab.nodes[0]).call(calls.ConfigShow())["config"]["timing"]
            told = ", ".join(f"{name.removesuffix('_ms')} {value}" for name, value in timing.items())
            teller.say(f"both are ready; times in ms: {told}")
            yield stage
        finally:
            stage.close()
    finally:
        lab.down()


def _honest(directory: Path, teller: Teller, setting: Setting) -> ActReport:
    teller.act("Act 1: an honest fence")
    act = ActReport("honest")
    with _stage(directory, teller, setting) as stage:
        one, two = stage.lab.nodes
        stage.make_volume(one, LV_SIZE)
        stage.type(two, "lvs", "-o", "+lv_holder")
        first = _writing(stage, one, "vm-a1", WRITES_BEFORE)
        teller.say(f"the VM on {one} has written {first.acknowledged} blocks, each acknowledged")
        stage.type(two, "lvchange", "-aey", VOLUME, may_fail=True)
        before = stage.token(one)
        stage.lab.lie(one, "bmc", "unreachable")
        teller.say(f"the BMC of {one} loses power")
        act.add_times(stage.take_over(two, one))
        second = _writing(stage, two, "vm-b1", WRITES_AFTER)
        stage.stop_vm(second)
        verdict = stage.judge(two)
        act.tokens = [before, stage.token(two)]
        _fill(act, verdict, stage, two)
        act.ok = _harmless(act, verdict) and act.foreign_blocks == 0
        teller.say(
            f"token {act.tokens[0]} -> {act.tokens[1]}; {two} found every acknowledged write of {one}: "
            f"{act.acknowledged_writes} acknowledged, {act.lost_writes} lost"
        )
    teller.verdict(act.ok, "the lock moved after proof, and nothing was lost")
    return act


def _lying(directory: Path, teller: Teller, setting: Setting) -> ActReport:
    teller.act("Act 2: a fence that lies")
    act = ActReport("lying")
    with _stage(directory, teller, setting) as stage:
        one, two = stage.lab.nodes
        stage.make_volume(one, LV_SIZE)
        _writing(stage, one, "vm-a1", WRITES_BEFORE)
        teller.say(f'scene 1, a lie that is contradicted: the BMC of {one} will say "done" and do nothing')
        # Stock agents look themselves, and see through a device that merely does nothing.
        stage.lab.lie(one, "bmc", "echo" if setting.devices else "ack-ignore")
        act.add_times(stage.take_over(two, one))
        second = _writing(stage, two, "vm-b1", WRITES_AFTER)
        contradicted = [one for one in stage.incidents(two) if one["kind"] == "fence-contradicted"]

        stage.lab.lie(one, "bmc", "none")
        _return(stage, one, two)
        teller.say(f"scene 2, a perfect lie: the BMC of {two} says off, and looks off, and is not")
        stage.lab.lie(two, "bmc", "perfect")
        before = stage.token(two)
        act.add_times(stage.take_over(one, two))
        act.tokens = [before, stage.token(one)]
        third = _writing(stage, one, "vm-a2", WRITES_AFTER)
        events = stage.watch(one)
        stage.lab.thaw(two)
        teller.say(f"{two} thaws: it believes that it still holds {VOLUME}, and its VM writes on")
        stage.until("the lie is found out", lambda: events.look() or "fence-lied" in events.kinds(), 60)
        held = stage.look(third).acknowledged
        teller.say(f"{one} must not write either, for now: its VM stands at {held} acknowledged writes")
        stage.type(one, "why", VOLUME)
        stage.until(f"{two} is fenced", lambda: events.look() or "purged" in events.kinds(), 60)
        stage.let_write(third, WRITES_AFTER)
        refused = stage.look(second).refused
        teller.say(
            f"{one} goes on: {third.acknowledged} writes acknowledged; "
            f"{refused} writes of {two} were refused before it lost power"
        )
        quarantined = stage.daemon(one).status()["quarantined"]
        stage.lab.lie(two, "bmc", "none")
        _return(stage, two, one)
        stage.until(f"{two} reports its refused writes", lambda: not refused or _refusals(stage, one), 60)
        stage.stop_vm(third)
        verdict = stage.judge(one)
        _fill(act, verdict, stage, one)
        lied = [one for one in act.incidents if one["kind"] == "fence-lied"]
        act.ok = _harmless(act, verdict) and bool(contradicted and lied and quarantined and refused)
        teller.say(
            f"{len(act.incidents)} incidents on record; quarantined: {', '.join(quarantined) or 'nothing'}; "
            f"{act.foreign_blocks} foreign blocks"
        )
    teller.verdict(act.ok, "both lies were found out, and nobody wrote without authority")
    return act


def _naive(directory: Path, teller: Teller, setting: Setting) -> ActReport:
    teller.act("Act 3: the same lie with protections off (--naive)")
    act = ActReport("naive")
    if setting.ring != HUB:
        teller.say("this act runs on the hub: nobody gets protections off on a ring of many hosts")
    with _stage(directory, teller, msgspec.structs.replace(setting, ring=HUB), naive=True) as stage:
        one, two = stage.lab.nodes
        stage.make_volume(one, LV_SIZE)
        first = _writing(stage, one, "vm-a1", WRITES_BEFORE)
        before = stage.token(one)
        stage.lab.lie(one, "bmc", "perfect")
        act.add_times(stage.take_over(two, one))
        act.tokens = [before, stage.token(two)]
        second = _writing(stage, two, "vm-b1", WRITES_AFTER)
        stage.lab.thaw(one)
        teller.say(f"{one} thaws, and nothing stops its VM: two hosts write to {VOLUME}")
        stage.let_write(second, NAIVE_WRITES)
        stage.stop_vm(first)
        stage.stop_vm(second)
        verdict = stage.judge(two)
        _fill(act, verdict, stage, two)
        act.ok = act.foreign_blocks > 0
        teller.say(
            f"{act.foreign_blocks} blocks of {one} lie where {two} had written; "
            f"{act.lost_writes} acknowledged writes are lost"
        )
    teller.verdict(act.ok, "without the protections this volume is corrupted")
    return act


Act = Callable[[Path, Teller, Setting], ActReport]
_ACTS: dict[str, Act] = {"honest": _honest, "lying": _lying, "naive": _naive}
ACTS = tuple(_ACTS)


def _writing(stage: Stage, node: str, tag: str, count: int) -> Vm:
    """A new VM on the host, once so many of its writes are acknowledged."""
    vm = stage.start_vm(node, tag)
    stage.let_write(vm, count)
    return vm


def _return(stage: Stage, node: str, other: str) -> None:
    """Switch a fenced host on again and wait until it takes part."""
    stage.lab.power(node, "on")
    stage.teller.say(f"{node} is switched on again")
    stage.until(f"{node} is ready again", lambda: _ready(stage, node) and _ready(stage, other), 60)


def _refusals(stage: Stage, node: str) -> bool:
    return any(one["kind"] == "write-refused" for one in stage.incidents(node))


def _ready(stage: Stage, node: str) -> bool:
    try:
        status = stage.daemon(node).status()
    except RingfenceError:
        return False
    return bool(status["ready"]) and [one["state"] for one in status["members"]] == ["ready", "ready"]


def _fill(act: ActReport, verdict: Verdict, stage: Stage, reader: str) -> None:
    act.acknowledged_writes = verdict.acknowledged_writes
    act.lost_writes = verdict.lost_writes
    act.incidents = stage.incidents(reader)
    act.foreign_blocks = len(verdict.foreign_blocks)
    act.unreported_foreign_blocks = sum(
        1 for block in verdict.foreign_blocks if not reported(block, act.incidents)
    )


def _harmless(act: ActReport, verdict: Verdict) -> bool:
    return (
        act.acknowledged_writes > 0
        and act.lost_writes == 0
        and act.unreported_foreign_blocks == 0
        and not verdict.damaged_slots
        and newer(*act.tokens)
    )
