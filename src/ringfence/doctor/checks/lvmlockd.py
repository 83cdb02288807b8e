"""Stock LVM2 on ringfence's locks: is ringfence the host's lvmlockd, are the shared VGs this cluster's."""

import re
from collections.abc import Iterator, Sequence

from ringfence.core.cluster import ClusterConfig
from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, error, note, warning
from ringfence.wire.checkup import HostFacts, LockdFacts, LvmFacts, VgFacts

STOCK = error(
    "lockd-stock",
    "LVM2's own lvmlockd runs on a host",
    "the locks that it gives are not ringfence's: two hosts may activate one LV, or write one VG's metadata",
)
STARTS = warning(
    "lockd-stock-starts",
    "LVM2's own lvmlockd would be started at boot",
    "it takes lvmlockd's socket before ringfence does, or is refused it and fails",
)
TAKEN = error(
    "lockd-taken",
    "another program serves lvmlockd's socket",
    "stock commands take their locks from it, and not from ringfence",
)
UNSERVED = error(
    "lockd-unserved",
    "use_lvmlockd is on, and nobody serves lvmlockd's socket",
    "stock commands read shared VGs without a lock, and can neither change nor activate anything in them",
)
PID_FILE = error(
    "lockd-pid-file",
    "/run/lvmlockd.pid is missing",
    'stock commands look for that file first, and without it say "lvmlockd process is not running"',
)
OFF = warning(
    "lockd-off",
    "use_lvmlockd is on, and ringfence is told not to serve it",
    "stock commands read shared VGs without a lock, and can neither change nor activate anything in them",
)
LOCKSTOP = note(
    "lvmlocks-off",
    "lvmlocks.service is not active",
    "at shutdown nobody deactivates what stock LVM2 activated before the daemon stops: its tables are cut",
)
OLD = warning(
    "lvm-old",
    "LVM2 is older than 2.03.11",
    "its commands ask lvmlockd in ways that ringfence was not tried with",
)
RETRIES = note(
    "lvm-retries",
    "lvmlockd_lock_retries is raised",
    "each try already waits in ringfence's queue for [lvmlockd] vg_wait_ms: a command waits for very long",
)
SANLOCK = warning(
    "vg-other-locks",
    "a VG on the shared disks is locked by another lock manager",
    "ringfence gives no locks in it; what writes to it is not fenced by this cluster",
)
ELSEWHERE = warning(
    "vg-other-cluster",
    "a VG on the shared disks belongs to another cluster",
    "two clusters cannot lock against each other: this one leaves the VG alone",
)
AUTO = warning(
    "vg-autoactivated",
    "LVM2 activates a shared VG by itself",
    "where its disks come back (a path, a login) that host takes EX locks of all LVs that no other holds",
)
KINDS = (
    STOCK, STARTS, TAKEN, UNSERVED, PID_FILE, OFF, LOCKSTOP, OLD, RETRIES, SANLOCK, ELSEWHERE, AUTO,
)  # fmt: skip
LEAST = (2, 3, 11)
USUAL_RETRIES = 3
"""LVM2's default."""


def check(facts: ClusterFacts) -> Iterator[Finding]:
    cluster = facts.cluster
    if cluster is None:
        return
    for host in facts.hosts:
        if host.lockd is not None:
            yield from _served(host, host.lockd, cluster)
        if host.lvm is not None and not host.lvm.trouble:
            yield from _set_up(host, host.lvm, cluster)
    yield from _vgs(facts.hosts, cluster)


def _served(host: HostFacts, lockd: LockdFacts, cluster: ClusterConfig) -> Iterator[Finding]:
    name, serve, used = host.node, cluster.lvmlockd.serve, _used(host)
    away = "vgchange -an; systemctl stop lvmlocks lvmlockd; systemctl restart ringfence"
    if lockd.stock and (serve or any(_ours(vg, cluster) for vg in _known(host))):
        yield STOCK.at(name, f"{name}: {lockd.stock} is LVM2's own", away)
    elif serve and lockd.holder:
        yield TAKEN.at(name, f"{name}: {lockd.holder} serves /run/lvm/lvmlockd.socket", away)
    elif serve and used and not lockd.ours:
        mend = "systemctl restart ringfence; journalctl -u ringfence says why it does not serve"
        yield UNSERVED.at(name, f"{name}: nobody listens on /run/lvm/lvmlockd.socket", mend)
    elif not serve and used and not lockd.holder:
        mend = "[lvmlockd] serve = true, ringfence config apply, restart; or global/use_lvmlockd = 0"
        yield OFF.at(name, f"{name}: global/use_lvmlockd = 1, and [lvmlockd] serve = false", mend)
    if lockd.ours and not lockd.pid_file:
        yield PID_FILE.at(name, f"{name}: there is no /run/lvmlockd.pid", "touch /run/lvmlockd.pid")
    if serve and lockd.stock_starts:
        mend = "make install-files (it brings lvmlockd.service.d/ringfence.conf); or systemctl mask lvmlockd"
        yield STARTS.at(name, f"{name}: lvmlockd.service is enabled as LVM2 has it", mend)
    if lockd.ours and used and lockd.lockstop is False:
        mend = "systemctl enable --now lvmlocks"
        yield LOCKSTOP.at(name, f"{name}: lvmlocks.service is not active", mend)


def _set_up(host: HostFacts, lvm: LvmFacts, cluster: ClusterConfig) -> Iterator[Finding]:
    name = host.node
    if not cluster.lvmlockd.serve or not _used(host):
        return
    if version(lvm.version) < LEAST:
        yield OLD.at(name, f"{name} has LVM2 {lvm.version}", "install a newer lvm2")
    retries = lvm.settings.get("global/lvmlockd_lock_retries", "")
    if retries.isdecimal() and int(retries) > USUAL_RETRIES and cluster.lvmlockd.vg_wait_ms:
        longest_s = (int(retries) + 1) * cluster.lvmlockd.vg_wait_ms // 1000
        what = f"{name}: global/lvmlockd_lock_retries = {retries}: a command may wait for {longest_s} s"
        yield RETRIES.at(name, what, f"set it back to {USUAL_RETRIES} in /etc/lvm/lvm.conf")


def _vgs(hosts: Sequence[HostFacts], cluster: ClusterConfig) -> Iterator[Finding]:
    """Each VG once, whoever sees it."""
    for vg in dict.fromkeys(vg for host in hosts for vg in _known(host)):
        if vg.lock_type not in ("", "dlm"):
            what = f"VG {vg.name} has lock type {vg.lock_type}"
            mend = "docs/lvm2.md, From sanlock; or take its disks out of [devices] paths"
            yield SANLOCK.at("", what, mend)
        elif vg.lock_type and not _ours(vg, cluster):
            what = f'VG {vg.name} belongs to cluster "{_cluster(vg)}", this one is "{cluster.name}"'
            mend = "docs/lvm2.md, From another cluster; or take its disks out of [devices] paths"
            yield ELSEWHERE.at("", what, mend)
        elif vg.lock_type and vg.autoactivated:
            for host in [one for one in hosts if vg in _known(one) and _activates(one)][:1]:
                what = f"{host.node}: VG {vg.name} is activated when its disks appear"
                yield AUTO.at(host.node, what, f"vgchange --setautoactivation n {vg.name}")


def _known(host: HostFacts) -> Sequence[VgFacts]:
    return tuple(dict.fromkeys(disk.vg for disk in host.disks if disk.vg is not None))


def _ours(vg: VgFacts, cluster: ClusterConfig) -> bool:
    return vg.lock_type == "dlm" and _cluster(vg) == cluster.name


def _cluster(vg: VgFacts) -> str:
    """As lvmlockd writes lock_args: "1.0.0:NAME"."""
    return vg.lock_args.partition(":")[2]


def _used(host: HostFacts) -> bool:
    return host.lvm is not None and host.lvm.settings.get("global/use_lvmlockd") == "1"


def _activates(host: HostFacts) -> bool:
    """Stock LVM2 there takes what it finds, and would get the locks."""
    settings = host.lvm.settings if host.lvm is not None and _used(host) else {}
    listed = "activation/auto_activation_volume_list" in settings
    return settings.get("global/event_activation") == "1" and not listed


def version(text: str) -> tuple[int, ...]:
    """2.03.16(2) (2022-05-18) -> (2, 3, 16)."""
    return tuple(map(int, re.findall(r"\d+", text.partition("(")[0])))
