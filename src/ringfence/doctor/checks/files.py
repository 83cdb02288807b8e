"""Files of the daemon: who may use them, and whether what must survive a reboot does."""

from collections.abc import Iterator

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, error, note, warning
from ringfence.wire.checkup import FileFacts, HostFacts

MEMORY = ("tmpfs", "ramfs", "rootfs")
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "ceph", "fuse.glusterfs", "fuse.sshfs", "gfs2", "ocfs2", "9p")
FULL_BYTES, SCARCE_BYTES = 16 << 20, 256 << 20
FULL_FILES = 100
ROOT = 0

SECRET_OPEN = error(
    "secret-open",
    "others may read or change the secrets of a fence device",
    "who has them can switch hosts off; the daemon refuses such a file, and so cannot fence by that device",
)
SECRET_OWNER = error(
    "secret-owner",
    "a device's secrets belong to somebody else than root",
    "that user can read and change them",
    excused="its daemons may run as any user",
)
SECRET_UNUSED = note(
    "secret-unused", "secrets of a device that is not configured", "a forgotten secret is one to lose"
)
OPEN = error(
    "file-writable",
    "others may change ringfence's files or directories",
    "who can put another ringfence.toml, state file or socket there can make hosts write without a lock",
)
STATE_OPEN = warning(
    "state-open",
    "others may read the state directory",
    "it holds the history, with users' names and agents' words",
    excused="a lab keeps no secret there",
)
SOCKET_OPEN = error(
    "socket-open",
    "everybody may use a control socket",
    "who may talk to the daemon may confirm fences and remove volumes",
)
SOCKET_GROUP = warning(
    "socket-group",
    "the daemon's socket belongs to another group than [socket] group",
    "its members cannot use the commands, or others can",
)
MISSING = error("state-missing", "there is no state directory", "the daemon cannot start without one")
VOLATILE = error(
    "state-volatile",
    "the state directory is lost with a reboot",
    "epochs and victims are remembered there: a cluster that forgets them may grant a lock of a host that "
    "was never fenced",
    excused="a lab's hosts keep everything in one directory, which may be anywhere",
)
REMOTE = error(
    "state-remote",
    "the state directory is on a network or cluster file system",
    "it hangs when the network does, and the daemon, which waits for it, loses its authority",
    excused="a lab's hosts keep everything in one directory, which may be anywhere",
)
READ_ONLY = error(
    "state-read-only", "the state directory cannot be written", "the daemon ends as soon as it must"
)
FULL = error(
    "state-full",
    "the state directory's file system is full",
    "a daemon that cannot keep its state ends at once, and the host is fenced",
)
SCARCE = warning(
    "state-scarce",
    "the state directory's file system is almost full",
    "a daemon that cannot keep its state ends at once, and the host is fenced",
)
HISTORY = warning(
    "history-unwritable",
    "the history of VGs' metadata cannot be written",
    "changes of VGs go on, and what they were before cannot be had again on this host: vgcfgrestore",
)
KINDS = (
    SECRET_OPEN, SECRET_OWNER, SECRET_UNUSED, OPEN, STATE_OPEN, SOCKET_OPEN, SOCKET_GROUP, MISSING, VOLATILE,
    REMOTE, READ_ONLY, FULL, SCARCE, HISTORY,
)  # fmt: skip


def check(facts: ClusterFacts) -> Iterator[Finding]:
    devices = [one.name for one in facts.cluster.devices] if facts.cluster is not None else None
    for host in facts.hosts:
        for secret in host.secrets:
            yield from _secret(host.node, secret, devices)
        for place in host.places:
            yield from _place(host, place)
        yield from _state(host)
        if host.history:
            what = f"{host.node}: {host.history}"
            yield HISTORY.at(host.node, what, "make room there, or mend it; then vgcfgbackup")


def _secret(name: str, secret: FileFacts, devices: list[str] | None) -> Iterator[Finding]:
    if secret.mode & 0o077:
        what = f"{name}: {secret.path} holds secrets and others may use it (mode {secret.mode:04o})"
        yield SECRET_OPEN.at(name, what, f"chmod 600 {secret.path}")
    if secret.user != ROOT:
        what = f"{name}: {secret.path} belongs to user {secret.user}"
        yield SECRET_OWNER.at(name, what, f"chown root: {secret.path}")
    if devices is not None and secret.path.rpartition("/")[2] not in devices:
        what = f"{name}: {secret.path} is of no configured device"
        yield SECRET_UNUSED.at(name, what, f"rm {secret.path}")


def _place(host: HostFacts, place: FileFacts) -> Iterator[Finding]:
    name, path = host.node, place.path
    if place.kind == "socket":
        if place.mode & 0o002:
            yield SOCKET_OPEN.at(name, f"{name}: {path} has mode {place.mode:04o}", f"chmod 660 {path}")
        wrong = host.socket_group is not None and place.group != host.socket_group
        if wrong and path.endswith("/socket"):
            what = f"{name}: {path} belongs to group {place.group}, not to {host.socket_group}"
            yield SOCKET_GROUP.at(
                name, what, "systemctl kill --signal=KILL ringfence: it comes back, volumes stay"
            )
    elif place.mode & 0o022:
        yield OPEN.at(name, f"{name}: {path} has mode {place.mode:04o}", f"chmod go-w {path}")
    elif place.kind == "directory" and path.endswith("/var/lib/ringfence") and place.mode & 0o044:
        yield STATE_OPEN.at(name, f"{name}: {path} has mode {place.mode:04o}", f"chmod 700 {path}")


def _state(host: HostFacts) -> Iterator[Finding]:
    name, state = host.node, host.state
    if state is None or state.trouble:
        return
    if not state.kind:
        yield MISSING.at(name, f"{name}: there is no {state.path}", f"install -d -m 700 {state.path}")
        return
    if state.kind in MEMORY:
        what = f"{name}: {state.path} is on {state.kind}, in memory"
        yield VOLATILE.at(name, what, f"mount a disk of this host at {state.path}")
    if state.kind in NETWORK:
        what = f"{name}: {state.path} is on {state.kind}"
        yield REMOTE.at(name, what, f"mount a disk of this host at {state.path}")
    if state.read_only:
        what = f"{name}: {state.path} is mounted read-only"
        yield READ_ONLY.at(name, what, f"mount -o remount,rw the file system of {state.path}; see dmesg")
        return
    no_files = state.free_files is not None and state.free_files < FULL_FILES
    if state.free_bytes < SCARCE_BYTES or no_files:
        full = state.free_bytes < FULL_BYTES or no_files
        left = "no file can be made" if no_files else f"{state.free_bytes >> 20} MiB are left"
        yield (FULL if full else SCARCE).at(
            name, f"{name}: {state.path}: {left}", f"df -h -i {state.path}; make room"
        )
