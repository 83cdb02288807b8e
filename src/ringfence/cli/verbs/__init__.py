"""LVM2's verbs from one table: what is typed, what is asked of the daemon, help, completion, documents.

A verb loads its own table and no other, and neither click nor the rest of the commands: what is typed all day
must start quickly."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence.cli.verbs.table import Verb

ROOMS = {
    "pvcreate": "pv", "pvs": "reports", "pvresize": "pv", "pvck": "pv", "pvremove": "pv", "pvmove": "pvmove",
    "vgcreate": "vg", "vgs": "reports", "vgchange": "vg", "vgextend": "groups", "vgreduce": "groups",
    "vgrename": "groups", "vgck": "groups", "vgcfgbackup": "backup", "vgcfgrestore": "backup",
    "vgremove": "vg",
    "lvcreate": "lv", "lvs": "reports", "lvchange": "lv", "lvextend": "resize", "lvreduce": "resize",
    "lvresize": "resize", "lvrename": "lv", "lvremove": "lv", "handover": "handover",
}  # fmt: skip
"""Which module has a verb's entry."""


def verb(name: str) -> Verb:
    room = __import__(f"{__name__}.{ROOMS[name]}", fromlist=["VERBS"])  # importlib loads more
    found: Verb = room.VERBS[name]
    return found
