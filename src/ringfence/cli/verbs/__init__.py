"""LVM2's verbs from one table: what is typed, what is asked of the daemon, help, completion, documents.

A verb loads its own table and no other, and neither click nor the rest of the commands: what is typed all day
must start quickly."""

import importlib

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
    room = importlib.import_module(f"{__name__}.{ROOMS[name]}")
    found: Verb = room.VERBS[name]
    return found
