"""What older nodes and clients have said is still understood, and the other way round.

`samples.txt` has a frame for each item and entry, as it was written when its protocol came up.  A sample is
never recorded anew: what no longer reads as it did needs a new protocol (docs/formats/wire.md).  REWRITE=1
adds those that are missing."""

import os
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from ringfence.core.cluster import ClusterConfig, NodeConfig, Timing
from ringfence.core.digest import digest_of
from ringfence.core.errors import RingfenceError, from_dict
from ringfence.core.evidence import Evidence, EvidenceKind
from ringfence.core.ids import Epoch, Life, Token
from ringfence.core.modes import Mode
from ringfence.engine.digest import digest_of_state
from ringfence.engine.state import ClusterState
from ringfence.wire import (
    CHECKUPS,
    DEADLOCKS,
    FENCING,
    HANDOVERS,
    LEAVE_OUT,
    MANY_LOCKS,
    REFRESHES,
    SPEAKS,
    UNCLEAN,
    Speaks,
    checkup,
    entries,
    ring,
)
from ringfence.wire import client as calls
from ringfence.wire.client import Reply, Request
from ringfence.wire.proving import DrillKind, Outcome, UseTest

FILE = Path(__file__).parent / "samples.txt"
EPOCH, LIFE = Epoch(7, 2), Life(2, "machine", "boot", 3)
OTHER = Life(1, "m1", "b1", 1)
CONFIG = ClusterConfig("ring", nodes=(NodeConfig(1, "n1"), NodeConfig(2, "n2", votes=2)))
WHERE = ("games", "chess")
CLIENT_LOCK = entries.ClientLock(
    *WHERE, 5, 9, "job", True, "pid 7", Mode.PR, Mode.EX, 1_700, True, True, (4,), (1, 3)
)
LVB = bytes(range(32))
FILE_FACTS = checkup.FileFacts("/etc/x", "file", 0o600, 1, 2, "why")
HOST = checkup.HostFacts(
    "n2", "1.2", 3, "/", True, "machine", "boot", 5, 6, "running", "file", "trouble", (FILE_FACTS,),
    (FILE_FACTS,), 4, checkup.DirectoryFacts("/var", "ext4", 7, 8, True, "why"),
    (checkup.DiskFacts("/dev/a", 9, True, "pv", "label", "text", "wwid", "why"),),
    checkup.CorosyncFacts("conf", "key", FILE_FACTS, True, ("line",), (1, 2), True, 1000, "why"),
    checkup.LvmFacts("2.03", {"a/b": "1"}, ("pv",), "why"),
    checkup.WatchdogFacts("/dev/watchdog", "soft", "pid 1", 10), (checkup.Leftover("socket", "/run/x"),),
    ("line",),
)  # fmt: skip

SAMPLES: dict[str, Any] = {
    "Heartbeat": ring.Heartbeat(5, {1: 4, 3: 9}),
    "Ready": ring.Ready(
        True, EPOCH, 12, "digest", EPOCH, (OTHER,), (LIFE,), False, (3,), 4, "config", 1_700, (OTHER,),
        (("bmc", "lied"),), Speaks(1, 2), 2,
    ),
    "LeaveOut": ring.LeaveOut((1, 3)),
    "Snapshot": ring.Snapshot((1, 3), b"state"),
    "JoinLockspace": entries.JoinLockspace("games"),
    "AckJoin": entries.AckJoin("games", OTHER),
    "LeaveLockspace": entries.LeaveLockspace("games"),
    "LockRequest": entries.LockRequest(*WHERE, Mode.EX, 9, LVB),
    "LockConvert": entries.LockConvert(*WHERE, Mode.PR, 8, LVB),
    "LockUnlock": entries.LockUnlock(*WHERE, 8, LVB),
    "LockCancel": entries.LockCancel(*WHERE),
    "LockBusy": entries.LockBusy(*WHERE),
    "LockRequests": entries.LockRequests("games", ("chess", "go"), Mode.EX, 9),
    "LockUnlocks": entries.LockUnlocks("games", ("chess", "go")),
    "LocksBusy": entries.LocksBusy("games", ("chess", "go")),
    "Retoken": entries.Retoken(*WHERE),
    "EvidenceSeen": entries.EvidenceSeen(
        Evidence(OTHER, EvidenceKind.HOST_OFF, 2, "seen off", ("bmc1",), 1_700)
    ),
    "AttemptBegan": entries.AttemptBegan(OTHER, 1, 3),
    "AttemptEnded": entries.AttemptEnded(
        OTHER, 3, True, "passed", (entries.DeviceWord("bmc1", "off", "off", "done", 4),), 100, ("pdu1",)
    ),
    "VictimDue": entries.VictimDue(OTHER),
    "BoundPassed": entries.BoundPassed(OTHER),
    "Suspect": entries.Suspect(OTHER),
    "OperatorConfirms": entries.OperatorConfirms(1, "ann", "cable", ((OTHER, EPOCH),)),
    "QuarantineLifted": entries.QuarantineLifted("bmc1", "ann"),
    "ConfigProposed": entries.ConfigProposed(CONFIG),
    "Goodbye": entries.Goodbye(LIFE),
    "VolumeNotice": entries.VolumeNotice("vg0", 4, 77, "lvcreate"),
    "UncleanNoted": entries.UncleanNoted("vg0", ("9z1Z4j-mscs-CJqb-HI0h-cZcV-VvhS-m1T7ZC",)),
    "IncidentSeen": entries.IncidentSeen(
        entries.Incident("write-late", 1, "late", OTHER, "bmc1", "vg0/vm1", 512, 4096, 1_700)
    ),
    "SearchDeadlock": entries.SearchDeadlock(4),
    "Waits": entries.Waits(LIFE, 4, (CLIENT_LOCK,)),
    "AskHosts": entries.AskHosts(4),
    "HostSays": entries.HostSays(LIFE, 4, HOST),
    "DrillBegan": entries.DrillBegan(DrillKind.CABLING, 1, 1, "ann"),
    "DrillAttempted": entries.DrillAttempted(
        OTHER, Evidence(OTHER, EvidenceKind.HOST_OFF, 2, "seen off", ("bmc1",), 1_700)
    ),
    "DrillEnded": entries.DrillEnded(OTHER, False, "lied", ("line",), ("bmc1",)),
    "FenceOrdered": entries.FenceOrdered("an-id", 1, OTHER, "reboot", "ann", "it smokes"),
    "Disarmed": entries.Disarmed(7_200_000, "ann", "new PDU"),
    "Armed": entries.Armed("ann"),
    "DisarmExpired": entries.DisarmExpired(12),
    "MachineForgotten": entries.MachineForgotten(1, "m1", "ann", "new blade"),
    "AgentSaid": entries.AgentSaid(OTHER, 3, entries.DeviceWord("apc[5]", "off", "off", "done", 4)),
    "PowerOnBegan": entries.PowerOnBegan(OTHER, 2),
    "PowerOnEnded": entries.PowerOnEnded(
        OTHER, 2, False, "no answer", (entries.DeviceWord("bmc1", "on", "unknown", "no", 4),), 1000
    ),
    "AskTests": entries.AskTests(4, "bmc1"),
    "TestsTold": entries.TestsTold(LIFE, 4, (UseTest(1, "apc-a[5]", Outcome.FAILED, "no answer", 5, 1_700),)),
    "SlotsKept": entries.SlotsKept("vg0"),
    "SlotsLeft": entries.SlotsLeft("vg0"),
    "SlotsEnd": entries.SlotsEnd("vg0"),
    "Marked": entries.Marked(OTHER, "vg0"),
    "LifeSeen": entries.LifeSeen(OTHER, "its slot on VG vg0 is written on and on"),
    "AskRefresh": entries.AskRefresh(4, "vg0", "vm1", "9z1Z4j-mscs-CJqb-HI0h-cZcV-VvhS-m1T7ZC"),
    "RefreshTold": entries.RefreshTold(LIFE, 4, False, "it is suspended"),
    "AskHandover": entries.AskHandover(
        4, "vg0", "vm1", "9z1Z4j-mscs-CJqb-HI0h-cZcV-VvhS-m1T7ZC", 1, entries.HandoverStep.OPEN, 12, 77, 78
    ),
    "HandoverTold": entries.HandoverTold(LIFE, 4, "9z1Z4j-mscs-CJqb-HI0h-cZcV-VvhS-m1T7ZC", "no PV"),
}  # fmt: skip
NEW = {
    "SearchDeadlock": DEADLOCKS, "Waits": DEADLOCKS, "AskHosts": CHECKUPS, "HostSays": CHECKUPS,
    "FenceOrdered": FENCING, "Disarmed": FENCING, "Armed": FENCING, "DisarmExpired": FENCING,
    "MachineForgotten": FENCING,
    "DrillBegan": FENCING, "DrillAttempted": FENCING, "DrillEnded": FENCING,
    "AgentSaid": FENCING, "PowerOnBegan": FENCING, "PowerOnEnded": FENCING,
    "AskTests": FENCING, "TestsTold": FENCING,
    "SlotsKept": FENCING, "SlotsLeft": FENCING, "SlotsEnd": FENCING, "Marked": FENCING, "LifeSeen": FENCING,
    "AskRefresh": REFRESHES, "RefreshTold": REFRESHES, "UncleanNoted": UNCLEAN,
    "AskHandover": HANDOVERS, "HandoverTold": HANDOVERS,
    "LockRequests": MANY_LOCKS, "LockUnlocks": MANY_LOCKS, "LocksBusy": MANY_LOCKS,
    "LeaveOut": LEAVE_OUT,
}  # fmt: skip
"""Entries that came with a later protocol than the first."""


def recorded() -> dict[str, bytes]:
    lines = FILE.read_text().splitlines() if FILE.exists() else []
    return {name: bytes.fromhex(data) for name, data in (line.split() for line in lines)}


def frame(name: str) -> bytes:
    item = SAMPLES[name]
    if not isinstance(item, ring.Heartbeat | ring.LeaveOut | ring.Ready | ring.Snapshot):
        item = ring.Submitted(6, item, 1_700, 5)
    return ring.encode(EPOCH, LIFE, (item,), NEW.get(name, 1))


def test_each_item_and_entry_has_a_sample() -> None:
    kinds = {kind.__name__ for kind in (*get_args(ring.Item), *get_args(entries.Entry))}
    assert kinds - {"Submitted"} - SAMPLES.keys() == set(), "give the new entry a sample, and its protocol"
    missing = [name for name in SAMPLES if name not in recorded()]
    if os.environ.get("REWRITE") and missing:
        with FILE.open("a") as file:
            file.writelines(f"{name} {frame(name).hex()}\n" for name in missing)
    assert [name for name in SAMPLES if name not in recorded()] == []


@pytest.mark.parametrize("name", SAMPLES)
def test_what_was_said_is_still_understood(name: str) -> None:
    old = ring.decode(recorded()[name], SPEAKS)
    assert old == ring.decode(frame(name), SPEAKS)


@pytest.mark.parametrize("name", NEW)
def test_an_older_node_is_not_told_what_it_cannot_know(name: str) -> None:
    assert ring.decode(frame(name), Speaks(1, NEW[name] - 1)).items == ()


def test_a_state_that_does_not_use_what_is_new_has_the_old_digest() -> None:
    """A field with its default is not there at all: one more does not divide a cluster."""

    class Newer(ClusterState, omit_defaults=True):
        news: str = ""

    state = {"config": CONFIG, "epoch": EPOCH, "position": 4, "lives": {2: LIFE}}
    assert digest_of_state(Newer(**state)) == digest_of_state(ClusterState(**state))  # type: ignore[arg-type]
    assert digest_of_state(Newer(**state, news="some")) != digest_of_state(ClusterState(**state))  # type: ignore[arg-type]


def test_one_more_key_at_its_default_is_the_same_configuration() -> None:
    class NewerTiming(Timing, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
        patience_ms: int = 5

    newer = msgspec.structs.replace(CONFIG, timing=NewerTiming(token_ms=900))
    older = msgspec.structs.replace(CONFIG, timing=Timing(token_ms=900))
    assert digest_of(newer) == digest_of(older)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(newer), type=ClusterConfig) == older


# -- clients -----------------------------------------------------------------------------


def test_a_newer_client_that_asks_for_nothing_new_is_understood() -> None:
    """Options that it does not use are not on the line."""
    line = calls.encode(Request("i", calls.Lock("games", "chess", wait_ms=5)))
    words = msgspec.json.decode(line)["call"]
    assert words == {"type": "Lock", "lockspace": "games", "resource": "chess", "wait_ms": 5}


def test_an_older_client_that_says_everything_is_understood() -> None:
    """Before defaults were left out, all of them were on the line."""
    call = {"type": "Lock", "lockspace": "games", "resource": "chess", "mode": "PR", "wait_ms": None,
            "flags": 0, "lvb": None, "notices": True}  # fmt: skip
    request = calls.decode_request(msgspec.json.encode({"id": "i", "call": call}))
    assert request.call == calls.Lock("games", "chess", "PR", notices=True)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"type": "Levitate"}, "Invalid value 'Levitate'"),
        ({"type": "Lock", "lockspace": "g", "resource": "r", "mood": "soft"}, "unknown field `mood`"),
        ({"type": "Lock", "lockspace": "g"}, "missing required field `resource`"),
    ],
)
def test_what_a_newer_client_asks_for_and_we_do_not_have_is_an_error(call: Any, said: str) -> None:
    with pytest.raises(msgspec.MsgspecError, match=said):
        calls.decode_request(msgspec.json.encode({"id": "i", "call": call}))


@pytest.mark.parametrize(
    "call",
    [
        {"type": "Events", "since": 2**63},
        {"type": "Lock", "lockspace": "g", "resource": "r", "wait_ms": 2**70},
        {"type": "LvCreate", "vg": "vg0", "lv": "vm1", "size_bytes": -(2**63) - 1},
    ],
)
def test_a_number_that_no_frame_can_carry_is_refused_where_it_comes_in(call: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        calls.decode_request(msgspec.json.encode({"id": "i", "call": call}))


def test_every_number_of_a_call_has_bounds() -> None:
    bare = [
        f"{call.__name__}.{field.name}"
        for call in get_args(calls.Call)
        for field in msgspec.structs.fields(call)
        if field.type in (int, int | None)
    ]
    assert not bare, "give it the type Int"


def test_a_newer_daemon_may_say_more() -> None:
    line = b'{"id": "i", "result": {"lock": 1, "mood": "fine"}, "final": true, "cost_us": 4}'
    assert calls.decode_reply(line) == Reply("i", result={"lock": 1, "mood": "fine"})
    error = from_dict({"code": "out-of-cheese", "message": "no", "redo": "from start"})
    assert (type(error), error.code) == (RingfenceError, "out-of-cheese")
    assert Token.parse("3.1.9") == Token(3, 1, 9)
