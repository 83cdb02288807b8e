"""Connections of stock LVM2's commands, as the rules see them."""

import msgspec

from ringfence.engine.uses import Owner
from ringfence.wire.lvmlockd import LvmAsked

Where = tuple[str, str]
"""A lockspace and a resource in it."""
PERSISTENT = "persistent"
"""The option of a request about an LV's activation."""


class Session(msgspec.Struct):
    """One connection: a command, with one request at a time."""

    client: int
    owner: Owner
    """For people: "lvchange (pid 7)"."""
    process: tuple[int, int]
    """Its pid and when it started."""
    cmd: str = ""
    """Which command it is; not every request says so."""
    asked: LvmAsked | None = None
    """The request that is not answered yet."""
    until_ns: int = 0
    """How long that is held back at most; 0: it is not."""
    why: str = ""
    """What it is held back for."""
    lock: int = 0
    """The lock whose operation that waits for; 0: none."""
    locks: dict[Where, int] = {}
    """Its transient locks, which end with it."""
    counts_on: dict[Where, None] = {}
    """LVs of which it was told that they are this host's, since it has the VG's lock."""
    released: dict[Where, None] = {}
    """Where it was told that activations are over, and the cluster may not know yet."""
    versions: dict[str, int] = {}
    """Lockspace -> the VG's seqno that it said it writes, under a lock that it has not let go since."""
    made: dict[str, int] = {}
    """The same of VGs that are not started here: it is about to start them."""
    renames: str = ""
    """The VG to which it is giving another name: it keeps that one's lock until it has."""
    lost: bool = False
    """The cluster has taken its locks away while it may have been changing a VG."""

    @property
    def who(self) -> str:
        return self.owner.who


def what(asked: LvmAsked) -> str:
    """For people, and for `why`."""
    if asked.op == "lock_gl":
        return "the global lock"
    if asked.op in ("lock_lv", "free_lv"):
        return f"LV {asked.vg_name}/{asked.lv_name or asked.lv_uuid}"
    return f"VG {asked.vg_name}"
