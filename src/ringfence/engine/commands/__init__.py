"""The volume commands, as pure generators over `engine.orders`: LVM2's verbs on shared VGs.

A change goes: lock (lvm_global for what adds or removes PVs and VGs; the VG; the LV), read the
headers again, check, plan, check again, write text, pre-commit, commit, publish, unlock.  What a
command holds when it fails it takes back in reverse; transient locks end with the command anyway."""

from collections.abc import Callable
from typing import Any

from ringfence.engine.commands.alter import lvrename
from ringfence.engine.commands.backup import vgcfgbackup, vgcfgrestore
from ringfence.engine.commands.lv import lvchange, lvcreate, lvremove
from ringfence.engine.commands.members import vgextend, vgreduce
from ringfence.engine.commands.pv import pvremove, pvresize
from ringfence.engine.commands.pvck import pvck
from ringfence.engine.commands.pvcreate import pvcreate
from ringfence.engine.commands.pvmove import pvmove
from ringfence.engine.commands.report import lvs, pvs, vgs
from ringfence.engine.commands.resize import lvresize
from ringfence.engine.commands.slots import look_for_slots, slots_add, slots_forget, slots_show
from ringfence.engine.commands.vg import autostart, vgchange, vgcreate, vgremove
from ringfence.engine.commands.vgrename import vgrename
from ringfence.engine.commands.vgset import vgck, vgset
from ringfence.engine.orders import Command
from ringfence.wire.client import (
    VOLUME_CALLS,
    LvChange,
    LvCreate,
    LvRemove,
    LvRename,
    LvResize,
    Lvs,
    PvCk,
    PvCreate,
    PvMove,
    PvRemove,
    PvResize,
    Pvs,
    SlotsAdd,
    SlotsForget,
    SlotsShow,
    VgCfgBackup,
    VgCfgRestore,
    VgChange,
    VgCk,
    VgCreate,
    VgExtend,
    VgReduce,
    VgRemove,
    VgRename,
    Vgs,
    VgSet,
)

__all__ = [
    "autostart", "command_for", "look_for_slots", "lvchange", "lvcreate", "lvremove", "lvrename", "lvresize",
    "lvs", "pvcreate", "pvs", "slots_add", "slots_forget", "slots_show", "vgchange", "vgcreate", "vgremove",
    "vgs",
]  # fmt: skip

_COMMANDS: dict[type, Callable[[Any], Command]] = {
    PvCreate: pvcreate,
    PvRemove: pvremove,
    PvResize: pvresize,
    PvMove: pvmove,
    PvCk: pvck,
    Pvs: pvs,
    VgCreate: vgcreate,
    VgRemove: vgremove,
    VgExtend: vgextend,
    VgReduce: vgreduce,
    VgRename: vgrename,
    VgSet: vgset,
    VgCk: vgck,
    VgCfgBackup: vgcfgbackup,
    VgCfgRestore: vgcfgrestore,
    VgChange: vgchange,
    Vgs: vgs,
    LvCreate: lvcreate,
    Lvs: lvs,
    LvChange: lvchange,
    LvRemove: lvremove,
    LvResize: lvresize,
    LvRename: lvrename,
    SlotsAdd: slots_add,
    SlotsForget: slots_forget,
    SlotsShow: slots_show,
}
assert set(_COMMANDS) == set(VOLUME_CALLS)


def command_for(call: Any) -> Command:
    """The command that carries out one of `wire.client.VOLUME_CALLS`.  Raises KeyError for others."""
    return _COMMANDS[type(call)](call)
