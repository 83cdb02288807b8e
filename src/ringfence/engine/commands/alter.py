"""lvrename, and lvchange's tags, access and policy: changes of an LV that may be in use.

All but one take nothing away, and need the VG's lock alone (`activation` has the rule).  After a crash or a
freeze at each step:

    before the commit:                   the old version
    commit:                              the new one; what is open here or elsewhere has the old name, or the
                                         old access, which is less, until its node has heard of it

To take the write access away (-p r), under the LV's lock EX:

    path here reloaded, read-only:       the old version, and less than it allows; the next look (`reloads`)
                                         gives it back
    commit:                              the new one"""

from collections.abc import Generator
from functools import partial
from typing import Any

from ringfence.core.errors import BadInput, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.beside import beside
from ringfence.engine.commands.commit import Change, begin, commit, prepare
from ringfence.engine.commands.locking import LockedVg, lock_vg, space_of
from ringfence.engine.commands.narrow import narrowed
from ringfence.engine.commands.refresh import refresh
from ringfence.engine.commands.reload import reload_changed
from ringfence.engine.orders import (
    AskReload,
    Command,
    FindLock,
    Held,
    Holder,
    Holders,
    Identity,
    Order,
    Whoami,
)
from ringfence.volumes.alter import (
    check_movable,
    check_own_tags,
    rename_lv,
    with_access,
    with_policy,
    with_tags,
)
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.plan import check_plain, find_lv
from ringfence.volumes.policies import INHERIT, policy_named
from ringfence.wire.client import LvChange, LvRename


def lvrename(call: LvRename) -> Command:
    locked = yield from lock_vg(call.vg, Mode.EX, call.wait_ms)
    change = yield from begin(locked)
    lv = find_lv(change.vg, call.lv)
    check_plain(change.vg, lv, f"lvrename {call.vg}/{call.lv} {call.new}")
    planned = yield from beside(len(lv.segments), partial(rename_lv, change.vg, call.lv, call.new))
    yield from commit(prepare(change, planned, f"lvrename {call.vg}/{call.lv} {call.new}"))
    result = {
        "message": f'Renamed "{call.lv}" to "{call.new}" in volume group "{call.vg}"',
        "vg": call.vg,
        "name": call.new,
        "uuid": lv.uuid,
    }
    return {**result, **(yield from follow(call.vg, call.new, lv.uuid))}


def follow(vg: str, name: str, uuid: str) -> Generator[Order, Any, dict[str, Any]]:
    """After the commit: what is active of the LV is reloaded, through a path of ours or through stock LVM2.

    Paths of ours on other hosts follow by themselves (`reloads`).  What cannot be reloaded is said."""
    notes = []
    mine: Held | None = yield FindLock(space_of(vg), uuid)
    try:
        if mine is not None and not mine.by_lvm2:
            failed: dict[str, str] = yield from reload_changed(vg, only=(uuid,))
            notes += [f"WARNING: it is not reloaded here yet: {why}" for why in failed.values()]
        elif mine is not None:
            failed = yield from refresh(vg, (name,), lambda: True)
            notes += [
                f"WARNING: stock LVM2 did not reload it: {why}; by hand: lvchange --refresh {vg}/{name}"
                for why in failed.values()
            ]
        me: Whoami = yield Identity()
        holders: tuple[Holder, ...] = yield Holders(space_of(vg), uuid)
        if any(one.node != me.node for one in holders):
            yield AskReload(vg, name, uuid)
    except RingfenceError as error:
        notes.append(f"WARNING: {error}")
    return {"notes": notes} if notes else {}


def alter(call: LvChange) -> Command:
    """lvchange without -a: of one LV, or each of the VG's in turn within one change."""
    add, drop = check_own_tags(call.add_tags), check_own_tags(call.drop_tags)
    if call.permission not in ("", "rw", "r"):
        raise BadInput(f"permission {call.permission!r} is not known", next="give rw or r")
    policy = policy_named(call.alloc) if call.alloc else ""
    if call.refresh:
        if add or drop or call.permission or policy:
            raise BadInput("--refresh changes nothing else", next="give it alone")
        return (yield from _refresh(call))
    if not (add or drop or call.permission or policy):
        raise BadInput("nothing to change", next="give -a, --addtag, --deltag, -p, --alloc or --refresh")
    locked = yield from lock_vg(call.vg, Mode.EX, call.wait_ms if call.wait_ms != 0 else None)
    change = yield from begin(locked)
    lvs = _named(change.vg, call.lv)
    idle = [why for lv in lvs for why in _without_effect(call, lv, policy)]
    pieces = sum(len(lv.segments) for lv in lvs)
    planned = yield from beside(pieces, partial(_altered, change.vg, lvs, add, drop, call.permission, policy))
    what = f"lvchange {call.vg}/{call.lv}" if call.lv else f"lvchange {call.vg}"
    if idle and planned.text == change.vg.text:
        raise Refused(idle[0])
    notes = yield from _carry_out(call, locked, change, planned, lvs, what)
    lines = [f"Logical volume {call.vg}/{lv.name} changed." for lv in lvs]
    return {"message": "\n".join(lines), "vg": call.vg, "name": call.lv, "notes": notes} | (
        {"problems": idle} if idle else {}
    )


def _altered(
    vg: Vg, lvs: list[Lv], add: tuple[str, ...], drop: tuple[str, ...], permission: str, policy: str
) -> Vg:
    for lv in lvs:
        if add or drop:
            vg = with_tags(vg, lv.name, add, drop)
        if permission:
            vg = with_access(vg, lv.name, writable=permission == "rw")
        if policy:
            vg = with_policy(vg, lv.name, policy)
    return vg


def _without_effect(call: LvChange, lv: Lv, policy: str) -> list[str]:
    """What is so already; to ask for that fails in LVM2, unlike a tag that is there."""
    name, why = f"{call.vg}/{lv.name}", []
    if call.permission == "r" and not lv.writable:
        why.append(f'Logical volume "{name}" is already read only.')
    if call.permission == "rw" and lv.writable:
        why.append(f"Logical volume {name} is already writable.")
    if policy and policy == (lv.policy or INHERIT):
        why.append(f"Allocation policy of logical volume {name} is already {policy}.")
    return why


def _carry_out(
    call: LvChange, locked: LockedVg, change: Change, planned: Vg, lvs: list[Lv], what: str
) -> Generator[Order, Any, list[str]]:
    if planned.text == change.vg.text:
        return ["nothing is changed: it is so already"]
    prepared = prepare(change, planned, what)
    loses = [lv for lv in lvs if call.permission == "r" and lv.writable]
    if loses:
        yield from narrowed(prepared, loses)
        return []
    yield from commit(prepared)
    notes: list[str] = []
    for lv in lvs if call.permission else ():
        notes += (yield from follow(call.vg, lv.name, lv.uuid)).get("notes", [])
    return notes


def _named(vg: Vg, name: str) -> list[Lv]:
    if name:
        check_movable(vg, name)
        check_plain(vg, find_lv(vg, name), f"lvchange … {vg.name}/{name}")
        return [find_lv(vg, name)]
    found = [lv for lv in vg.lvs if lv.visible and not lv.slots]
    for lv in found:
        check_plain(vg, lv)
    return found


def _refresh(call: LvChange) -> Generator[Order, Any, dict[str, Any]]:
    failed = yield from reload_changed(call.vg)
    if failed:
        name, why = next(iter(failed.items()))
        raise RingfenceError(f"LV {name} was not reloaded: {why}", retry=True)
    return {"message": "", "vg": call.vg, "name": call.lv}
