"""Shared disks: every host has every PV, and behind the same uuid stands the same disk."""

from collections.abc import Iterator, Sequence

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, error, warning
from ringfence.doctor.outvoted import outvoted
from ringfence.wire.checkup import DiskFacts, HostFacts

MISSING = error(
    "disk-missing",
    "a host does not see a PV that others see",
    "volumes with an extent on it cannot be opened there, so that they cannot move to that host",
)
DIFFERS = error(
    "disk-differs",
    "one PV uuid, and different disks behind it",
    "a copy (a snapshot, a replica) on one host means that hosts write to different disks under one lock",
)
TWICE = error(
    "disk-twice",
    "a host sees one PV on two disks",
    "one is a copy, or a path of a multipath device beside it: which one is written to is chance",
)
NAMESAKES = error(
    "vg-twice",
    "a host sees two VGs of one name",
    "no command changes either of them, and none of their LVs is opened: which one is meant cannot be told",
)
UNREADABLE = error(
    "disk-unreadable", "a disk of [devices] cannot be read", "volumes on it fail on that host, or hang"
)
SHRUNK = error(
    "disk-shrunk",
    "a disk is smaller than the PV on it",
    "what lies behind its end is gone: LVs there cannot be opened, or fail while a machine runs on them",
)
PARTIAL = error(
    "pv-missing",
    "a shared VG lacks a PV on this host",
    "LVs with an extent on it cannot be opened here, and the VG cannot be changed but by what mends it",
)
NONE = warning("disk-none", "[devices] paths allow no disk", "the host can serve no volume")
IS_FILE = warning(
    "disk-is-file",
    "a disk of [devices] is a file",
    "a file on a host's own disk is shared with nobody; on a network file system it may be cached",
    excused="a lab's hosts share one file",
)
KINDS = (MISSING, PARTIAL, DIFFERS, TWICE, NAMESAKES, UNREADABLE, SHRUNK, NONE, IS_FILE)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    hosts = [host for host in facts.hosts if host.file and not _blind(host)]
    for host in hosts:
        yield from _host(host)
    if len(hosts) > 1:
        yield from _missing(hosts)
    yield from _same(facts)
    for one in facts.daemon.partial_vgs if facts.daemon is not None else ():
        what = f"VG {one.vg} on {facts.me} lacks {one.missing} of its {one.pvs} PVs, or did when last changed"
        mend = "see: ringfence pvs; make the device visible: [devices] paths; if it is here again: "
        mend += f"ringfence vgextend --restoremissing {one.vg} DEVICE; if it is gone for good: "
        yield PARTIAL.at(facts.me, what, f"{mend}ringfence vgreduce --removemissing {one.vg}")


def _blind(host: HostFacts) -> bool:
    return any(line.startswith("disks:") for line in host.unseen)


def _host(host: HostFacts) -> Iterator[Finding]:
    name = host.node
    if not host.disks:
        mend = "add them to [devices] paths in ringfence.toml; then restart the daemon"
        yield NONE.at(name, f"{name}: [devices] paths match no disk", mend)
    seen: dict[str, DiskFacts] = {}
    for disk in host.disks:
        if disk.trouble:
            mend = f"dd if={disk.path} of=/dev/null bs=4k count=1 iflag=direct; see dmesg and multipath -ll"
            yield UNREADABLE.at(name, f"{name}: {disk.path}: {disk.trouble}", mend)
        elif not disk.block:
            what = f"{name}: {disk.path} is a file"
            yield IS_FILE.at(name, what, "name block devices in [devices] paths")
        if disk.size_bytes < disk.pv_bytes:
            what = f"{name}: {disk.path} has {disk.size_bytes} bytes, and the PV on it {disk.pv_bytes}"
            mend = f"give it its size back; if nothing lies behind its end: ringfence pvresize {disk.path}"
            yield SHRUNK.at(name, what, mend)
        other = seen.setdefault(disk.pv, disk) if disk.pv else disk
        if other is not disk:
            what = f"{name}: PV {disk.pv} is on {other.path} and on {disk.path}"
            mend = "name the multipath device only in [devices] paths; a copy: vgimportclone, or unmap it"
            yield TWICE.at(name, what, mend)
    yield from _namesakes(host)


def _namesakes(host: HostFacts) -> Iterator[Finding]:
    where: dict[str, dict[str, str]] = {}
    for disk in host.disks:
        if disk.vg is not None and disk.vg.uuid:
            where.setdefault(disk.vg.name, {}).setdefault(disk.vg.uuid, disk.path)
    for vg, paths in where.items():
        if len(paths) > 1:
            what = f"{host.node}: VG {vg} is there {len(paths)} times, on {' and on '.join(paths.values())}"
            mend = f"rename all but one: ringfence vgs -o +vg_uuid; ringfence vgrename UUID {vg}_other"
            yield NAMESAKES.at(host.node, what, mend)


def _missing(hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    """PVs that another host sees.  What cannot be read is a finding by itself already."""
    known: dict[str, tuple[str, str]] = {}
    for host in hosts:
        for disk in host.disks:
            if disk.pv:
                known.setdefault(disk.pv, (host.node, disk.path))
    for host in hosts:
        own = [disk.pv for disk in host.disks]
        broken = [disk.path for disk in host.disks if disk.trouble]
        for pv, (other, path) in known.items():
            if pv not in own and path not in broken:
                what = f"{host.node} does not see PV {pv}, which {other} has as {path}"
                mend = "log in to the target and rescan (iscsiadm -m session -R; rescan-scsi-bus.sh); "
                yield MISSING.at(host.node, what, f"{mend}look at [devices] paths")


def _same(facts: ClusterFacts) -> Iterator[Finding]:
    """What never changes must be equal; what changes with a VG must be, where both looks found it at rest."""
    last = {host.node: _by_pv(host) for host in facts.hosts}
    first = {}
    if len(facts.rounds) > 1:
        first = {one.name: _by_pv(one.facts) for one in facts.rounds[0].hosts}
    for pv in dict.fromkeys(pv for disks in last.values() for pv in disks):
        there = {name: disks[pv] for name, disks in last.items() if pv in disks}
        told: set[str] = set()
        for how, said in _aspects(pv, there, first):
            for name, like in outvoted(said):
                if name not in told:
                    told.add(name)
                    here, other = there[name].path, there[like].path
                    what = f"{name}'s {here} is not the disk that {like} has as {other}"
                    mend = f"compare {how} on both hosts; map the same LUN to both"
                    yield DIFFERS.at(name, f"{what}, though both are PV {pv}: another {how}", mend)


def _aspects(
    pv: str, there: dict[str, DiskFacts], first: dict[str, dict[str, DiskFacts]]
) -> Iterator[tuple[str, dict[str, object]]]:
    yield "size", {name: disk.size_bytes for name, disk in there.items()}
    yield "label", {name: disk.label for name, disk in there.items()}
    yield "WWID", {name: disk.wwid for name, disk in there.items() if disk.wwid}
    before = {name: disks[pv].text for name, disks in first.items() if pv in disks}
    if all(before.get(name) == disk.text for name, disk in there.items()):
        yield "metadata", {name: disk.text for name, disk in there.items()}


def _by_pv(host: HostFacts) -> dict[str, DiskFacts]:
    return {disk.pv: disk for disk in host.disks if disk.pv and not disk.trouble}
