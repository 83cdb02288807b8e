"""What stock LVM2's commands ask of lvmlockd, and what they are told: plain values.

How they look on the socket (`name="value"` lines, `##`) is `lvm2.lockd_text`'s to know; what they mean,
`engine.lvmlockd`'s.  Numbers of errors are negative, as LVM2 has them.

Source: LVM2 lib/locking/lvmlockd.c (the asking side), daemons/lvmlockd/lvmlockd-core.c (the answering
one), lvmlockd-client.h (numbers), 2.03.11 to 2.03.40."""

import msgspec

from ringfence.core.modes import Mode

ENOLS = 210
"""There is no such lockspace: the VG is not started here."""
ESTARTING = 211
EARGS = 212
EVGKILLED = 217
ELMERR = 221
EADOPT_NONE = 223
"""There is no orphan to adopt (2.03.25 and later)."""

MODES = {"sh": Mode.PR, "ex": Mode.EX}
"""Its words for them, but for "un"."""

LM_DLM = 2
"""`running_lm`'s answer, as LVM2 numbers the lock managers."""


class LvmAsked(msgspec.Struct, frozen=True, gc=False):
    """One request.  What it does not say is empty; "none" is read as empty."""

    op: str
    """As on the socket: "lock_vg"."""
    pid: int = 0
    """The peer's, by the kernel's word."""
    started: int = 0
    """When that process started, in clock ticks since boot (/proc/PID/stat, field 22); 0: not known.  With
    the pid it names the process for good."""
    cmd: str = ""
    """The command that asks: "lvcreate"."""
    mode: str = ""
    """un | sh | ex."""
    opts: tuple[str, ...] = ()
    vg_name: str = ""
    vg_uuid: str = ""
    vg_lock_type: str = ""
    vg_lock_args: str = ""
    lv_name: str = ""
    lv_uuid: str = ""
    path: str = ""
    version: int = 0
    old_info: bool = False
    """Of info: the peer is of LVM2 before 2.03.28, by what its program reads of a lockspace's line."""


class LvmAnswered(msgspec.Struct, frozen=True, gc=False):
    """The reply to one request."""

    op: str
    result: int = 0
    """0, or an error's number, negative."""
    flags: tuple[str, ...] = ()
    """NO_LOCKSPACES, NO_GL_LS, NO_LM, SH_EXISTS, ..."""
    vg_lock_args: str = ""
    mode: str = ""
    """Of query_lock_*."""
    holder: int = 0
    """Of a lock that is refused: the id of the node that is in the way; 0: not known.  Newer commands print
    it ("LV locked by other host: vg0/vm1 (host_id 2)")."""
    holder_name: str = ""
    dump: bytes | None = None
    """Of info and dump: what goes to lvmlockctl beside the reply."""


class LvmLock(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A lock that stock LVM2 has through this node, as the node keeps it in case its daemon is killed.

    What it must not outlive: the boot, and where it is not persistent, its process."""

    lockspace: str
    resource: str
    mode: str
    """sh | ex."""
    token: str
    what: str
    """For people: "LV vg0/vm1", "VG vg0"."""
    pid: int = 0
    """0: persistent, an activation; else it ends with this process."""
    started: int = 0
    """As in `LvmAsked`."""
    vg_uuid: str = ""
    """With dashes, as in the metadata; empty: not known here."""

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What makes it this lock: of two with one key the later word counts."""
        return self.lockspace, self.resource, self.pid, self.started

    @property
    def persistent(self) -> bool:
        """An activation."""
        return not self.pid
