"""What a host says of itself when somebody looks for what is wrong: small, and free of secrets.

`daemon.checkup` gathers it, the ring carries it, `doctor` judges it.  A field is only added, with a
default that means "not said"; None means "could not be told", which is never "no".  Files that must be
equal on all hosts are told by a short digest, a key by a fingerprint from which nobody can find it."""

import msgspec


class _Part(msgspec.Struct, frozen=True, omit_defaults=True):
    pass


class FileFacts(_Part, frozen=True):
    """A file or directory, as lstat(2) shows it."""

    path: str
    kind: str = ""
    """file | directory | socket | other; empty: there is none."""
    mode: int = 0
    user: int = 0
    group: int = 0
    trouble: str = ""
    """Why it could not be looked at."""


class VgFacts(_Part, frozen=True):
    """What the head of a VG's committed text says."""

    name: str
    lock_type: str = ""
    """Empty: none, a VG of one host."""
    lock_args: str = ""
    autoactivated: bool = True
    """By stock LVM2, wherever its PVs appear."""
    uuid: str = ""
    """Empty: a host that does not tell it."""


class DiskFacts(_Part, frozen=True):
    """A device or file that [devices] paths allow."""

    path: str
    size_bytes: int = 0
    block: bool = False
    """A block device; else a file."""
    pv: str = ""
    """The PV's uuid; empty: no PV."""
    label: str = ""
    """Digest of the sectors that hold the label: it changes only with pvcreate."""
    text: str = ""
    """Digest of the metadata areas' headers: it changes with every change of the VG."""
    wwid: str = ""
    """The disk's own name for itself, as the kernel tells it; empty: it tells none."""
    trouble: str = ""
    vg: VgFacts | None = None
    """None: it is in no VG, or keeps no metadata that can be read."""
    pv_bytes: int = 0
    """How large the disk was when the PV was made, or resized; 0: the label does not tell."""


class DirectoryFacts(_Part, frozen=True):
    """Where the daemon keeps what must survive."""

    path: str
    kind: str = ""
    """The file system's type; empty: there is no such directory."""
    free_bytes: int = 0
    free_files: int | None = None
    """None: its file system does not count them."""
    read_only: bool = False
    trouble: str = ""


class CorosyncFacts(_Part, frozen=True):
    conf: str = ""
    """Digest of what matters in corosync.conf; empty: there is none that can be read."""
    key: str = ""
    """Fingerprint of the authkey; empty: there is none, or it could not be read."""
    key_file: FileFacts | None = None
    encrypted: bool = False
    """corosync.conf asks for encryption, so that there must be a key."""
    differences: tuple[str, ...] = ()
    """Where corosync.conf and ringfence.toml disagree, a line each."""
    members: tuple[int, ...] | None = None
    """Node ids that corosync has in its membership; None: it did not answer."""
    quorate: bool | None = None
    token_ms: int | None = None
    """As corosync runs with it."""
    trouble: str = ""
    """Why corosync could not be asked."""


class LvmFacts(_Part, frozen=True):
    """How stock LVM2 is set up on the host."""

    version: str = ""
    settings: dict[str, str] = {}
    """As lvmconfig prints them, by their full names."""
    devices: tuple[str, ...] | None = None
    """PV uuids in its devices file; None: there is none, and so every device counts."""
    trouble: str = ""
    pvs: tuple[tuple[str, str], ...] = ()
    """(VG, device) of PVs that it finds on what is no plain disk: device-mapper's, nbd's."""


class LockdFacts(_Part, frozen=True):
    """Who is lvmlockd on the host, for stock LVM2's commands."""

    ours: bool = False
    """This host's daemon serves the socket."""
    holder: str = ""
    """Who else does: "lvmlockd (pid 7)"; empty: nobody."""
    pid_file: bool = False
    """Without it stock commands do not even ask."""
    stock: str = ""
    """A running lvmlockd of LVM2's own: "lvmlockd (pid 7)"."""
    stock_starts: bool | None = None
    """systemd would start that at boot; None: it could not be asked, or there is no such unit."""
    lockstop: bool | None = None
    """lvmlocks.service is active, and so deactivates LVs before the daemon stops; None: likewise."""


class WatchdogFacts(_Part, frozen=True):
    device: str = ""
    """Empty: there is none."""
    identity: str = ""
    """As its driver calls itself."""
    holder: str = ""
    """The process that has it open, if that could be seen."""
    service_us: int | None = None
    """WatchdogSec of ringfence.service, in microseconds; None: systemd could not be asked."""
    configured: str = ""
    """The one that [watchdog] of ringfence.toml names; empty: none."""
    unused: str = ""
    """Why that one is not fed, where it is not."""


class Leftover(_Part, frozen=True):
    """What a crash may have left behind."""

    kind: str
    """socket | worker | shm | unit."""
    what: str
    """Its path, name or pid."""


class HostFacts(_Part, frozen=True):
    node: str = ""
    version: str = ""
    """Of ringfence."""
    user: int = 0
    """Who looked: what only root may see is else not seen."""
    root: str = "/"
    lab: bool = False
    machine: str = ""
    boot: str = ""
    boottime_ns: int = 0
    wall_ms: int = 0
    """Read at one moment, as near as two clocks allow."""
    running: str = ""
    """Digest of the configuration that the daemon runs with; empty: no daemon has told it."""
    file: str = ""
    """Digest of the cluster's part of ringfence.toml; empty: it cannot be used."""
    file_trouble: str = ""
    secrets: tuple[FileFacts, ...] = ()
    places: tuple[FileFacts, ...] = ()
    """Directories and sockets of the daemon."""
    socket_group: int | None = None
    """The group that may talk to the daemon; None: no group is configured, or there is no such group."""
    state: DirectoryFacts | None = None
    disks: tuple[DiskFacts, ...] = ()
    corosync: CorosyncFacts | None = None
    lvm: LvmFacts | None = None
    watchdog: WatchdogFacts | None = None
    leftovers: tuple[Leftover, ...] = ()
    unseen: tuple[str, ...] = ()
    """What could not be looked at, and why; a line each."""
    board: str = ""
    """Digest of the board's own UUID; empty: it could not be read."""
    hypervisor: str = ""
    """The host is itself a virtual machine; of which kind."""
    lockd: LockdFacts | None = None
    slow_nbd: str = ""
    """Why NBD requests are served by the interpreter alone; empty: they are not, or it is not said."""
    history: str = ""
    """Why the history of VGs' metadata cannot be kept; empty: it can be, or it is not said."""


class HostAnswer(msgspec.Struct, frozen=True):
    node: int
    name: str
    facts: HostFacts
    told_ns: int
    """CLOCK_BOOTTIME of the asking host when the answer had come back through the ring."""


class Checkup(msgspec.Struct, frozen=True):
    """What all hosts said: the reply to `client.Checkup`."""

    asked_ns: int
    """CLOCK_BOOTTIME of the asking host before anybody was asked."""
    hosts: tuple[HostAnswer, ...]
    silent: tuple[str, ...] = ()
    """Ready nodes that did not answer in time."""
    absent: tuple[str, ...] = ()
    """Configured nodes that are not ready."""
    alone: bool = False
    """Nobody else was asked: this node is no ready member itself."""
