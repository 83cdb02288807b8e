"""Every finding, planted in a sound cluster: it is found, on the right host, and nothing else is."""

from collections.abc import Callable

import msgspec
import pytest
from planted import (
    CLUSTER,
    NAMES,
    VG,
    host,
    slower,
    sound,
    with_all,
    with_cluster,
    with_daemon,
    with_host,
    with_last,
    with_part,
)

from ringfence.config.agents.check import Trouble
from ringfence.core.cluster import Lvmlockd, Timing
from ringfence.core.evidence import Power
from ringfence.doctor.checks import KINDS, judge
from ringfence.doctor.facts import ClusterFacts, MappedVolume, PartialVg, SlotsFacts
from ringfence.doctor.filters import accepts
from ringfence.doctor.findings import Finding
from ringfence.doctor.outvoted import outvoted
from ringfence.wire.checkup import DiskFacts, FileFacts, Leftover

Spoil = Callable[[ClusterFacts], ClusterFacts]
SECRET = "/etc/ringfence/secrets/bmc1"
DISK = host(1).disks[0]
OTHER = DiskFacts("/dev/mapper/b", 1 << 30, True, "PV" * 16, "label2", "text2")
KEY = "/etc/corosync/authkey"


assert DISK.vg is not None
NAMESAKE = msgspec.structs.replace(
    DISK, path="/dev/mapper/c", pv="pw" * 16, vg=msgspec.structs.replace(DISK.vg, uuid="vh" * 16)
)


def place(path: str, kind: str, mode: int, group: int = 77) -> Spoil:
    return lambda facts: with_host(facts, "n2", places=(FileFacts(path, kind, mode, 0, group),))


def secret(name: str = "bmc1", **more: int) -> Spoil:
    found = FileFacts(f"/etc/ringfence/secrets/{name}", "file", more.get("mode", 0o600), more.get("user", 0))
    return lambda facts: with_host(facts, "n2", secrets=(found,))


def disk(**more: object) -> Spoil:
    return lambda facts: with_host(facts, "n2", disks=(msgspec.structs.replace(DISK, **more),))


def part(name: str, **more: object) -> Spoil:
    return lambda facts: with_part(facts, "n2", name, **more)


def left(kind: str, what: str) -> Spoil:
    return lambda facts: with_host(facts, "n2", leftovers=(Leftover(kind, what),))


def device(**more: object) -> Spoil:
    def spoil(facts: ClusterFacts) -> ClusterFacts:
        broken = msgspec.structs.replace(facts.devices[3], **more)
        return with_all(facts, devices=(broken, *facts.devices[:3], *facts.devices[4:]))

    return spoil


def lvm(**settings: str) -> Spoil:
    def spoil(facts: ClusterFacts) -> ClusterFacts:
        old = host(2).lvm
        assert old is not None
        given = {key.replace("__", "/"): value for key, value in settings.items()}
        return with_part(facts, "n2", "lvm", settings={**old.settings, **given})

    return spoil


def served(serve: bool) -> Spoil:
    return lambda facts: with_cluster(facts, lvmlockd=Lvmlockd(serve=serve))


def unused(facts: ClusterFacts) -> ClusterFacts:
    """Nobody serves lvmlockd's socket, and only n2's LVM2 would have it served."""
    for name in ("n1", "n3"):
        facts = with_part(facts, name, "lockd", ours=False)
        settings = {**host(1).lvm.settings, "global/use_lvmlockd": "0"}  # type: ignore[union-attr]
        facts = with_part(facts, name, "lvm", settings=settings)
    return facts


def nodes(count: int, two_node: bool, times: Timing | None = None) -> Spoil:
    times = times or Timing(priority_delay_ms=5000)
    return lambda facts: with_cluster(facts, nodes=CLUSTER.nodes[:count], two_node=two_node, timing=times)


def timing(**more: int) -> Spoil:
    return lambda facts: with_cluster(facts, timing=Timing(**more))


PLANTED: dict[str, tuple[str, Spoil]] = {
    "daemon-down": ("n1", lambda facts: with_all(facts, daemon=None, daemon_trouble="nobody listens")),
    "not-ready": ("n1", lambda facts: with_daemon(facts, ready=False, why="no majority")),
    "blocked": ("n1", lambda facts: with_daemon(facts, blocked_by=("n3 must be fenced",))),
    "host-absent": ("n3", lambda facts: with_last(facts, absent=("n3",), hosts=facts.rounds[1].hosts[:2])),
    "host-silent": ("n3", lambda facts: with_last(facts, silent=("n3",), hosts=facts.rounds[1].hosts[:2])),
    "naive": ("", lambda facts: with_cluster(facts, naive=True)),
    "versions-differ": ("", lambda facts: with_host(facts, "n2", version="2")),
    "corosync-down": ("n2", part("corosync", trouble="no answer", members=None, quorate=None, token_ms=None)),
    "corosync-members": ("n2", part("corosync", members=(1, 2))),
    "corosync-not-quorate": ("n2", part("corosync", quorate=False)),
    "corosync-conf-disagrees": ("n2", part("corosync", differences=("node 3 is missing",))),
    "corosync-token": ("n2", part("corosync", token_ms=1650)),
    "corosync-conf-differs": ("n2", part("corosync", conf="other")),
    "corosync-key-differs": ("n2", part("corosync", key="other")),
    "corosync-key-missing": ("n2", part("corosync", key="", key_file=FileFacts(KEY))),
    "corosync-key-open": ("n2", part("corosync", key_file=FileFacts(KEY, "file", 0o644))),
    "config-unusable": ("n2", lambda facts: with_host(facts, "n2", file="", file_trouble="line 3: no")),
    "config-differs": ("n2", lambda facts: with_host(facts, "n2", running="", file="other")),
    "config-runs-other": ("n2", lambda facts: with_host(facts, "n2", running="other", file="")),
    "config-not-applied": ("n1", lambda facts: _everywhere(facts, file="edited")),
    "machine-cloned": ("n2", lambda facts: with_host(facts, "n2", machine="machine-1")),
    "boot-cloned": ("n2", lambda facts: with_host(facts, "n2", boot="boot-1")),
    "machine-unknown": ("n2", lambda facts: with_host(facts, "n2", machine="")),
    "clock-rate": ("n2", lambda facts: slower(facts, "n2", 0.93)),
    "clock-drift": ("n2", lambda facts: slower(facts, "n2", 1.03)),
    "clock-offset": ("n2", lambda facts: with_host(facts, "n2", wall_ms=1_600_000_000_000)),
    "secret-open": ("n2", secret(mode=0o640)),
    "secret-owner": ("n2", secret(user=1000)),
    "secret-unused": ("n2", secret("old")),
    "file-writable": ("n2", place("/etc/ringfence", "directory", 0o775)),
    "state-open": ("n2", place("/var/lib/ringfence", "directory", 0o755)),
    "socket-open": ("n2", place("/run/ringfence/block", "socket", 0o666)),
    "socket-group": ("n2", place("/run/ringfence/socket", "socket", 0o660, 0)),
    "state-missing": ("n2", part("state", kind="")),
    "state-volatile": ("n2", part("state", kind="tmpfs")),
    "state-remote": ("n2", part("state", kind="nfs4")),
    "state-read-only": ("n2", part("state", read_only=True)),
    "state-full": ("n2", part("state", free_files=3)),
    "state-scarce": ("n2", part("state", free_bytes=100 << 20)),
    "history-unwritable": (
        "n2",
        lambda facts: with_host(facts, "n2", history="the file system of /var is full"),
    ),
    "disk-missing": ("n2", lambda facts: with_host(facts, "n2", disks=(OTHER,))),
    "pv-missing": ("n1", lambda facts: with_daemon(facts, partial_vgs=(PartialVg("vg0", missing=1, pvs=3),))),
    "disk-differs": ("n2", disk(wwid="600b")),
    "disk-twice": (
        "n2",
        lambda facts: with_host(facts, "n2", disks=(DISK, msgspec.structs.replace(DISK, path="/dev/sdx"))),
    ),
    "vg-twice": ("n2", lambda facts: _everywhere(facts, disks=(DISK, NAMESAKE))),
    "disk-unreadable": ("n2", disk(pv="", label="", text="", trouble="input/output error")),
    "disk-shrunk": ("n2", disk(pv_bytes=(1 << 40) + 1)),
    "disk-none": ("n2", lambda facts: _everywhere(facts, disks=())),
    "disk-is-file": ("n2", disk(block=False)),
    "agent-missing": ("n1", device(agent_missing="it is not installed", power=Power.UNKNOWN)),
    "device-told-wrong": (
        "",
        lambda facts: with_all(facts, troubles=(Trouble("bmc2", "bmc2", "no parameter iq", "say ip"),)),
    ),
    "device-fails": ("n1", device(power=Power.UNKNOWN, words="Failed: Unable to obtain correct plug status")),
    "device-says-off": ("n1", device(power=Power.OFF)),
    "fencing-disarmed": ("", lambda facts: with_daemon(facts, disarmed="ann disarmed fencing: new PDU")),
    "host-virtual": ("n2", lambda facts: with_host(facts, "n2", hypervisor="kvm")),
    "device-quarantined": ("", lambda facts: with_daemon(facts, quarantined=("bmc2",))),
    "fenced-by-hand": ("", lambda facts: _node(facts, manual=True, levels=())),
    "device-unused": ("", lambda facts: _node(facts, levels=CLUSTER.nodes[0].levels[:1])),
    "level-one-supply": ("", lambda facts: _one_pdu(facts)),
    "timing-rules": ("", timing(grant_ms=2300)),
    "timing-hold": ("", timing(hold_ms=5000)),
    "timing-bound": ("", timing(write_ms=20_000)),
    "two-node-alone": ("", nodes(2, True)),
    "two-nodes-at-once": ("", nodes(2, True, Timing())),
    "nbd-slow": ("n2", lambda facts: with_host(facts, "n2", slow_nbd="libfastpath.so was not built")),
    "slots-missing": ("", lambda facts: with_daemon(facts, slots=())),
    "slots-missing-two-node": ("", lambda facts: with_daemon(nodes(2, True)(facts), slots=())),
    "slots-fail": ("n1", lambda facts: with_daemon(facts, slots=(SlotsFacts("vg0", trouble="no answer"),))),
    "two-nodes-no-majority": ("", nodes(2, False)),
    "watchdog-none": ("n2", part("watchdog", device="")),
    "watchdog-soft": ("n2", part("watchdog", identity="Software Watchdog")),
    "watchdog-held": ("n2", part("watchdog", holder="watchdog (pid 7)")),
    "watchdog-unused": (
        "n2",
        part("watchdog", configured="/dev/watchdog9", unused="there is no /dev/watchdog9"),
    ),
    "service-unwatched": ("n2", part("watchdog", service_us=0)),
    "lvm-hides": ("n2", lvm(devices__global_filter="a|/dev/sda|\nr|.*|")),
    "lvm-lockd-off": ("n2", lvm(global__use_lvmlockd="0")),
    "lvm-scans-lvs": ("n2", lvm(devices__scan_lvs="1")),
    "lvm-autoactivation": ("n2", lvm(global__event_activation="1")),
    "guest-vg": (
        "n1",
        lambda facts: with_all(facts, mapped=(MappedVolume("guest-root", "guest", "root", "u", ("vg0",)),)),
    ),
    "guest-vg-seen": ("n2", part("lvm", pvs=(("guest", "/dev/mapper/vg0-vm1"), ("own", "/dev/mapper/a")))),
    "lvm-versions": ("n2", part("lvm", version="2.03.17(2)")),
    "lockd-stock": ("n2", part("lockd", ours=False, holder="lvmlockd (pid 7)", stock="lvmlockd (pid 7)")),
    "lockd-stock-starts": ("n2", part("lockd", stock_starts=True)),
    "lockd-taken": ("n2", part("lockd", ours=False, holder="socat (pid 7)")),
    "lockd-unserved": ("n2", part("lockd", ours=False)),
    "lockd-pid-file": ("n2", part("lockd", pid_file=False)),
    "lockd-off": ("n2", lambda facts: served(False)(part("lockd", ours=False)(unused(facts)))),
    "lvmlocks-off": ("n2", part("lockd", lockstop=False)),
    "lvm-old": ("n2", lambda facts: _everywhere_part(facts, "lvm", version="2.03.9(2) (2020-03-26)")),
    "lvm-retries": ("n2", lvm(global__lvmlockd_lock_retries="30")),
    "vg-other-locks": ("", disk(vg=msgspec.structs.replace(VG, lock_type="sanlock"))),
    "vg-other-cluster": ("", disk(vg=msgspec.structs.replace(VG, lock_args="1.0.0:old"))),
    "vg-autoactivated": ("n2", lvm(global__event_activation="1")),
    "stale-socket": ("n2", left("socket", "/run/ringfence/socket")),
    "lonely-worker": ("n2", left("worker", "4711")),
    "dead-memory": ("n2", left("shm", "/dev/shm/qb-1-2")),
    "unit-failed": ("n2", left("unit", "ringfence-block.service")),
    "active-without-lock": (
        "n1",
        lambda facts: with_all(facts, mapped=(MappedVolume("vg0-vm1", "vg0", "vm1", "u"),)),
    ),
}
BESIDE = {
    "fenced-by-hand": {"device-unused"},
    "two-node-alone": {"device-unused"},
    "two-nodes-at-once": {"device-unused", "two-node-alone"},
    "slots-missing-two-node": {"device-unused", "two-node-alone"},
    "two-nodes-no-majority": {"device-unused"},
    "lockd-off": {"lvm-lockd-off"},
    "lvm-autoactivation": {"vg-autoactivated"},
    "vg-autoactivated": {"lvm-autoactivation"},
}
"""What the trouble cannot but bring with it."""


def _everywhere(facts: ClusterFacts, **more: object) -> ClusterFacts:
    for name in NAMES:
        facts = with_host(facts, name, **more)
    return facts


def _everywhere_part(facts: ClusterFacts, part: str, **more: object) -> ClusterFacts:
    for name in NAMES:
        facts = with_part(facts, name, part, **more)
    return facts


def _node(facts: ClusterFacts, **more: object) -> ClusterFacts:
    first = msgspec.structs.replace(CLUSTER.nodes[0], **more)
    return with_cluster(facts, nodes=(first, *CLUSTER.nodes[1:]))


def _one_pdu(facts: ClusterFacts) -> ClusterFacts:
    devices = [
        msgspec.structs.replace(one, parameters={"ip": "10.0.0.9"}) if one.name in ("a1", "b1") else one
        for one in CLUSTER.devices
    ]
    return with_cluster(facts, devices=tuple(devices))


def ids(found: list[Finding]) -> set[str]:
    return {one.id for one in found}


def test_a_sound_cluster_has_no_finding() -> None:
    assert judge(sound()) == []


def test_every_finding_is_planted_here() -> None:
    assert PLANTED.keys() == KINDS.keys()


@pytest.mark.parametrize("id", PLANTED)
def test_planted_trouble_is_found_where_it_is(id: str) -> None:
    where, spoil = PLANTED[id]
    found = judge(spoil(sound()))
    mine = [one for one in found if one.id == id]
    assert mine, found
    assert where in {one.host for one in mine}
    for one in mine:
        assert one.severity is KINDS[id].severity
        assert one.why
        assert one.mend
        assert "\n" not in one.what + one.why + one.mend
    assert ids(found) - {id} <= BESIDE.get(id, set()), found


def test_a_reload_does_not_change_a_links_address() -> None:
    line = "node 2 has addresses 10.0.0.2 in corosync.conf and 10.0.0.9 in ringfence.toml"
    (found,) = judge(part("corosync", differences=(line,))(sound()))
    assert "take the link out, -R, and in again" in found.mend


# -- where a check must not speak -----------------------------------------------------


def test_a_lab_is_excused_from_what_it_cannot_help() -> None:
    facts = with_host(sound(), "n1", lab=True)
    facts = with_all(facts, own=msgspec.structs.replace(facts.own, lab=True))
    excused = [id for id, kind in KINDS.items() if kind.excused]
    assert len(excused) > 4
    for id in excused:
        assert id not in ids(judge(PLANTED[id][1](facts)))
    assert "secret-open" in ids(judge(PLANTED["secret-open"][1](facts)))


def test_a_vg_that_was_removed_needs_no_slots() -> None:
    """Other hosts stay in its lockspace."""
    facts = with_daemon(sound(), shared_vgs=("vg0", "old"))
    assert "slots-missing" in ids(judge(facts))
    assert judge(with_daemon(facts, gone_vgs=("old",))) == []


def test_metadata_that_changes_meanwhile_is_no_other_disk() -> None:
    changed = (msgspec.structs.replace(DISK, text="newer"),)
    assert judge(with_host(sound(), "n2", (1,), disks=changed)) == []
    other = judge(with_host(sound(), "n2", disks=changed))
    assert [(one.id, one.host) for one in other] == [("disk-differs", "n2")]


def test_a_clock_is_not_accused_by_a_slow_answer() -> None:
    """The answer was 400 ms on its way: the rate may be anything within that."""
    facts = slower(sound(), "n2", 0.93)
    last = facts.rounds[1]
    late = [
        msgspec.structs.replace(one, told_ns=one.told_ns + 400_000_000) if one.name == "n2" else one
        for one in last.hosts
    ]
    assert "clock-rate" in ids(judge(with_last(facts, hosts=tuple(late)))), "it can only have read later"
    first = facts.rounds[0]
    early = tuple(msgspec.structs.replace(one, told_ns=one.told_ns + 400_000_000) for one in first.hosts)
    slow = with_all(facts, rounds=(msgspec.structs.replace(first, hosts=early), last))
    assert ids(judge(slow)) == set()


def test_a_host_that_was_rebooted_between_looks_has_no_rate() -> None:
    assert judge(with_host(sound(), "n2", (1,), boot="new", boottime_ns=5)) == []


def test_a_device_that_says_off_of_a_host_that_is_off_is_right() -> None:
    facts = with_daemon(device(power=Power.OFF)(sound()), members=(1, 3))
    assert "device-says-off" not in ids(judge(facts))


def test_a_host_without_a_daemon_is_told_once() -> None:
    """corosync has it, the daemons' view does not: that it is absent says it all."""
    facts = with_last(sound(), absent=("n3",), hosts=sound().rounds[1].hosts[:2])
    assert ids(judge(with_daemon(facts, members=(1, 2)))) == {"host-absent"}


def test_without_a_daemon_this_host_is_judged_alone() -> None:
    secrets = (FileFacts(SECRET, "file", 0o644),)
    own = msgspec.structs.replace(host(1), node="n1", boottime_ns=7, secrets=secrets)
    facts = ClusterFacts("n1", own, CLUSTER, None, "nobody listens")
    assert ids(judge(facts)) == {"daemon-down", "secret-open"}


def test_errors_come_first() -> None:
    facts = PLANTED["secret-open"][1](PLANTED["watchdog-none"][1](PLANTED["blocked"][1](sound())))
    assert [one.severity.value for one in judge(facts)] == ["error", "warning", "note"]


def test_who_differs_from_the_rest() -> None:
    assert list(outvoted({"a": 1, "b": 2, "c": 2})) == [("a", "b")]
    assert list(outvoted({"a": 1, "b": 2})) == [("b", "a")]
    assert list(outvoted({"a": 1})) == []
    assert list(outvoted({})) == []


@pytest.mark.parametrize(
    ("rules", "accepted"),
    [
        ([], True),
        (["a|.*|"], True),
        (["r|/dev/mapper|"], False),
        (["a|/dev/mapper/a|", "r|.*|"], True),
        (["a|/dev/sd|", "r|.*|"], False),
        (["r/^.dev.sd/"], True),
        (["nonsense", "r{.*}"], False),
    ],
)
def test_a_filter_decides_by_its_first_rule_that_matches(rules: list[str], accepted: bool) -> None:
    assert accepts(rules, ("/dev/mapper/a",)) is accepted


def test_device_facts_tell_the_agents_own_words() -> None:
    (found,) = [one for one in judge(PLANTED["device-fails"][1](sound())) if one.id == "device-fails"]
    assert found.what == ("bmc2 (fences n2), asked from n1: Failed: Unable to obtain correct plug status")
