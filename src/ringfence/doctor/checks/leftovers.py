"""What a crash left behind."""

from collections.abc import Iterator

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, Kind, error, note, warning

SOCKET = warning(
    "stale-socket",
    "a socket on which nobody listens",
    "its program ended badly; clients are refused until it is started again, which also removes the socket",
)
WORKER = error(
    "lonely-worker",
    "a volume's worker outlived its block service",
    "it still holds the volume and the service's lock: no block service, and so no daemon, can start here",
)
MEMORY = note(
    "dead-memory", "shared memory of a corosync that is gone", "it takes up /dev/shm until it is removed"
)
UNIT = warning("unit-failed", "a unit of systemd's has failed", "it is not started again by itself")
UNLOCKED = error(
    "active-without-lock",
    "an LV of a shared VG is active in device-mapper without a lock of this host",
    "nothing keeps this host from writing to it while another host holds the lock",
)
KINDS = (SOCKET, WORKER, MEMORY, UNIT, UNLOCKED)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    for host in facts.hosts:
        for one in host.leftovers:
            kind, what, mend = _told(one.kind, one.what)
            yield kind.at(host.node, f"{host.node}: {what}", mend)
    daemon = facts.daemon
    if daemon is None or daemon.locked is None:
        return
    for volume in facts.mapped:
        if volume.vg in daemon.shared_vgs and volume.uuid not in daemon.locked:
            where = f"/dev/mapper/{volume.mapper}"
            what = f"{facts.me}: {volume.vg}/{volume.lv} is active as {where}, without a lock"
            yield UNLOCKED.at(facts.me, what, f"stop what uses it; dmsetup remove {volume.mapper}")


def _told(kind: str, what: str) -> tuple[Kind, str, str]:
    match kind:
        case "socket":
            mend = f"start what listens there (systemctl start ringfence-block ringfence); or rm {what}"
            return SOCKET, f"nobody listens on {what}", mend
        case "worker":
            return WORKER, f"process {what} serves a volume for a block service that is gone", f"kill {what}"
        case "shm":
            return MEMORY, f"{what} belongs to no process", f"rm -r {what}"
        case _:
            return UNIT, f"{what} has failed", f"systemctl status {what}; systemctl restart {what}"
