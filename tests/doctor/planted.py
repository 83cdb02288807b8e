"""A sound cluster of three hosts as doctor sees it, and ways to spoil it."""

from typing import Any

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig
from ringfence.core.evidence import Power
from ringfence.doctor.facts import ClusterFacts, DaemonFacts, DeviceFacts, SlotsFacts
from ringfence.wire.checkup import (
    Checkup,
    CorosyncFacts,
    DirectoryFacts,
    DiskFacts,
    FileFacts,
    HostAnswer,
    HostFacts,
    LockdFacts,
    LvmFacts,
    VgFacts,
    WatchdogFacts,
)

NAMES = ("n1", "n2", "n3")
MS = 1_000_000
BOOT_NS = 1_000_000 * MS
STRETCH_MS = 4000
WALL_AT_BOOT_MS = 1_700_000_000_000.0

CLUSTER = ClusterConfig(
    "ring",
    ring="corosync",
    nodes=tuple(
        NodeConfig(id, name, levels=(Level((f"bmc{id}",)), Level((f"a{id}", f"b{id}"))))
        for id, name in enumerate(NAMES, 1)
    ),
    devices=tuple(
        DeviceConfig(f"{kind}{id}", "fence_any", confirms, {"ip": f"10.0.0.{kind}"})
        for kind, confirms in (
            ("a", Confirms.OUTLET_OFF),
            ("b", Confirms.OUTLET_OFF),
            ("bmc", Confirms.HOST_OFF),
        )
        for id in (1, 2, 3)
    ),
)
VG = VgFacts("vg0", "dlm", "1.0.0:ring", uuid="vg" * 16)


def host(id: int) -> HostFacts:
    etc = FileFacts("/etc/ringfence/ringfence.toml", "file", 0o644)
    return HostFacts(
        version="1",
        machine=f"machine-{id}",
        boot=f"boot-{id}",
        running="config",
        file="config",
        secrets=(FileFacts("/etc/ringfence/secrets/bmc1", "file", 0o600),),
        places=(
            etc,
            FileFacts("/var/lib/ringfence", "directory", 0o700),
            FileFacts("/run/ringfence/socket", "socket", 0o660, 0, 77),
        ),
        socket_group=77,
        state=DirectoryFacts("/var/lib/ringfence", "ext4", 8 << 30, 100_000),
        disks=(DiskFacts("/dev/mapper/a", 1 << 40, True, "pv" * 16, "label", "text", "600a", vg=VG),),
        corosync=CorosyncFacts(
            "conf", "key", FileFacts("/etc/corosync/authkey", "file", 0o400), True, (), (1, 2, 3), True, 1000
        ),
        lvm=LvmFacts(
            "2.03.16(2) (2022-05-18)",
            {
                "devices/filter": "a|.*|",
                "global/use_lvmlockd": "1",
                "global/event_activation": "0",
                "devices/scan_lvs": "0",
                "global/lvmlockd_lock_retries": "3",
            },
        ),
        lockd=LockdFacts(ours=True, pid_file=True, stock_starts=False, lockstop=True),
        watchdog=WatchdogFacts("/dev/watchdog0", "iTCO_wdt", "", 10_000_000),
    )


def sound() -> ClusterFacts:
    """Each host's clock was read 5 ms after the question, and its answer was there after 10."""
    rounds = []
    for at_ns in (BOOT_NS, BOOT_NS + STRETCH_MS * MS):
        hosts = []
        for id, name in enumerate(NAMES, 1):
            read_ns = at_ns + 5 * MS
            facts = msgspec.structs.replace(
                host(id), boottime_ns=read_ns + id, wall_ms=round(WALL_AT_BOOT_MS + read_ns / MS)
            )
            hosts.append(HostAnswer(id, name, facts, at_ns + 10 * MS))
        rounds.append(Checkup(at_ns, tuple(hosts)))
    devices = [
        DeviceFacts(name, node.name, "", Power.ON, "Status: ON", 2300)
        for node in CLUSTER.nodes
        for level in node.levels
        for name in level.devices
    ]
    return ClusterFacts(
        "n1",
        rounds[-1].hosts[0].facts,
        CLUSTER,
        DaemonFacts(members=(1, 2, 3), shared_vgs=("vg0",), slots=(SlotsFacts("vg0"),), locked=()),
        rounds=tuple(rounds),
        wall_at_boot_ms=WALL_AT_BOOT_MS,
        devices=tuple(devices),
    )


def with_host(facts: ClusterFacts, name: str, rounds: tuple[int, ...] = (0, 1), **more: Any) -> ClusterFacts:
    """With one host changed, in these of the two rounds."""
    told = list(facts.rounds)
    for number in rounds:
        hosts = [
            msgspec.structs.replace(one, facts=msgspec.structs.replace(one.facts, **more))
            if one.name == name
            else one
            for one in told[number].hosts
        ]
        told[number] = msgspec.structs.replace(told[number], hosts=tuple(hosts))
    return msgspec.structs.replace(facts, rounds=tuple(told))


def with_part(facts: ClusterFacts, name: str, part: str, **more: Any) -> ClusterFacts:
    """With one host's corosync, lvm, state or watchdog changed."""
    for number in (0, 1):
        old = next(one.facts for one in facts.rounds[number].hosts if one.name == name)
        new = msgspec.structs.replace(getattr(old, part), **more)
        facts = with_host(facts, name, (number,), **{part: new})
    return facts


def with_all(facts: ClusterFacts, **more: Any) -> ClusterFacts:
    return msgspec.structs.replace(facts, **more)


def with_cluster(facts: ClusterFacts, **more: Any) -> ClusterFacts:
    return with_all(facts, cluster=msgspec.structs.replace(facts.cluster, **more))


def with_daemon(facts: ClusterFacts, **more: Any) -> ClusterFacts:
    return with_all(facts, daemon=msgspec.structs.replace(facts.daemon, **more))


def with_last(facts: ClusterFacts, **more: Any) -> ClusterFacts:
    last = msgspec.structs.replace(facts.rounds[-1], **more)
    return with_all(facts, rounds=(facts.rounds[0], last))


def slower(facts: ClusterFacts, name: str, rate: float) -> ClusterFacts:
    """In the second round the host's clock has counted `rate` of the time."""
    first = next(one.facts for one in facts.rounds[0].hosts if one.name == name)
    return with_host(facts, name, (1,), boottime_ns=first.boottime_ns + round(STRETCH_MS * MS * rate))
