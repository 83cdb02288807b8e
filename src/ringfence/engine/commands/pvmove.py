"""pvmove: LVs leave a PV, or some of its extents.

What is to go where is committed first, for all LVs (some hundreds in one version of the metadata): from then
on any host goes on with it (`moving`), by itself in the background (`move_all`), or as its pvmove says.  An
LV that is open is moved by the host that has it open; whoever waits sees how far it is in the metadata.

After a crash at each step:

    set apart:       extents are kept for LVs that lie where they lay; the hosts go on, or pvmove --abort
    each LV:         see `moving`
    given up:        an LV stays where it is by then; the others' extents are still kept"""

import functools
from collections.abc import Generator
from typing import Any

import msgspec

from ringfence.core.errors import BadInput, LockHeld, LocksLost, NotFound, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.activation import GIVE_WAY_MS, find_open
from ringfence.engine.commands.beside import beside, holes
from ringfence.engine.commands.commit import begin, commit, prepare
from ringfence.engine.commands.disks import device_named, find_vg, read_disks
from ringfence.engine.commands.locking import LockedVg, fresh_uuids, lock_vg, space_of, undo
from ringfence.engine.commands.moving import TAKE_MS, Told, Use, is_settled, move_one, newest, settled
from ringfence.engine.orders import (
    Acquire,
    Command,
    FindLock,
    Held,
    Holder,
    Holders,
    Identity,
    NoteProgress,
    Order,
    Pause,
    Release,
    Whoami,
)
from ringfence.lvm2.names import with_dashes
from ringfence.volumes.access import is_ours
from ringfence.volumes.discovery import Disks
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.move_plan import Plan, Wanted, plan_moves, reserve
from ringfence.volumes.moves import given_up, keepers, kept, left_to_move
from ringfence.volumes.plan import Maker
from ringfence.volumes.policies import policy_named
from ringfence.volumes.pv_list import areas_within, runs_named
from ringfence.volumes.unclean import by_uuid
from ringfence.wire.client import PvMove

AT_ONCE = 200
"""Of so many LVs extents are set apart in one version: an event loop stands still for no longer."""
LOOK_MS = 1000
STALLED_LOOKS = 60
"""So often other hosts' work is looked at without any being done, before it is said to stand still."""


def pvmove(call: PvMove) -> Command:
    if not call.source:
        if call.pvs or call.lv or call.background:
            cure = "pvmove PV, or pvmove alone to go on with what was begun"
            raise BadInput("no source PV given", next=cure)
        return (yield from (_give_up(call) if call.abort else _go_on(call)))
    if call.abort:
        if call.pvs or call.lv:
            raise BadInput("--abort takes the source PV alone", next="pvmove --abort PV")
        return (yield from _give_up(call))
    policy_named(call.alloc)
    disks = yield from read_disks()
    vg = _vg_of(disks, call.source)
    stays = yield from _set_apart(call, vg)
    notes = [f"WARNING: left where it is: {error}" for error in stays]
    if call.background:
        return {"message": "", "vg": vg, "moved_bytes": 0, "notes": notes}
    chosen = yield from _chosen(call, vg)
    if not chosen:
        if stays:
            raise stays[0]
        return {"message": f"No data to move for {vg}.", "vg": vg, "moved_bytes": 0, "notes": notes}
    moved = yield from _moved(vg, chosen)
    return {**_answer(f"{call.source}: Moved: 100.00%", moved), "vg": vg, "notes": notes}


def _go_on(call: PvMove) -> Generator[Order, Any, dict[str, Any]]:
    """With all that was begun and not ended, in every VG."""
    moved, failed = 0, list[RingfenceError]()
    for vg in (yield from _vgs_with_moves()):
        try:
            moved += yield from _moved(vg, (yield from _chosen(call, vg)))
        except LocksLost:
            raise
        except RingfenceError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return _answer("Moved: 100.00%" if moved else "", moved)


def _answer(message: str, moved: int) -> dict[str, Any]:
    return {"message": message, "moved_bytes": moved}


# -- which -------------------------------------------------------------------------------


def _vg_of(disks: Disks, source: str) -> str:
    """The VG of the PV that is named.  Raises NotFound, Refused."""
    names = [*disks.sizes, *disks.aliases]
    device = max((one for one in names if source == one or source.startswith(f"{one}:")), key=len, default="")
    path = device_named(disks, device or source)
    pv = disks.pv_at(path)
    found = disks.vg_of(pv) if pv is not None else None
    if found is None:
        raise NotFound(f'Failed to find physical volume "{path}" in a volume group', next="see: pvs")
    return found.vg.name


def _vgs_with_moves() -> Generator[Order, Any, list[str]]:
    me: Whoami = yield Identity()
    disks = yield from read_disks()
    return [one.vg.name for one in disks.vgs if is_ours(one.vg, me.cluster) and keepers(one.vg)]


def _devices(locked: LockedVg) -> dict[str, str]:
    """Each name of a device here -> the VG's PV that is on it."""
    at = {pv.path: name for name, pv in locked.found.pvs.items()}
    return at | {alias: at[path] for alias, path in locked.disks.aliases.items() if path in at}


def _wanted(call: PvMove, locked: LockedVg) -> Wanted:
    vg, at = locked.found.vg, _devices(locked)
    runs = runs_named(vg, call.source, at)
    areas = areas_within(vg, call.pvs, at) if call.pvs else None
    return Wanted(runs, call.lv, areas, policy_named(call.alloc))


def _set_apart(call: PvMove, name: str) -> Generator[Order, Any, tuple[Refused, ...]]:
    """Keep extents for all that is to go.  Returns why an LV stays, for each that does."""
    while True:
        locked = yield from lock_vg(name, Mode.EX, call.wait_ms)
        try:
            change = yield from begin(locked)
            pieces = holes(change.vg) + len(change.vg.lvs)
            work = functools.partial(plan_moves, change.vg, _wanted(call, locked), AT_ONCE)
            plan: Plan = yield from beside(pieces, work)
            if not plan.moves:
                yield Release(locked.held.lock)
                return plan.stays
            me, uuids = yield from fresh_uuids(len(plan.moves))
            maker = Maker(f"ringfence pvmove {call.source}", me.name, me.now_wall_s)
            fresh = [with_dashes(one) for one in uuids[: len(plan.moves)]]
            planned = yield from beside(pieces, functools.partial(reserve, change.vg, plan, fresh, maker))
            yield from commit(prepare(change, planned, f"pvmove {call.source}"))
        except RingfenceError as error:
            yield from undo(error, Release(locked.held.lock))
            raise


class _Chosen(msgspec.Struct, frozen=True):
    """An LV that is on its way."""

    uuid: str
    """Of NAME_moving."""
    lv: str
    """The uuid of the one that moves."""
    name: str
    """Its name; that of NAME_moving, where it was removed."""
    left_bytes: int


def _chosen(call: PvMove, name: str) -> Generator[Order, Any, list[_Chosen]]:
    locked = yield from lock_vg(name, Mode.PR, call.wait_ms)
    yield Release(locked.held.lock)
    vg = locked.found.vg
    pv = runs_named(vg, call.source, _devices(locked))[0].pv if call.source else ""
    return [
        one
        for one in (_on_its_way(vg, keeper) for keeper in keepers(vg) if _comes_from(vg, keeper, pv))
        if not call.lv or one.name == call.lv
    ]


def _on_its_way(vg: Vg, keeper: Lv) -> _Chosen:
    lv = by_uuid(vg, keeper.keeps_for)
    left = left_to_move(vg, keeper) * vg.extent_bytes
    return _Chosen(keeper.uuid, keeper.keeps_for, lv.name if lv is not None else keeper.name, left)


def _comes_from(vg: Vg, keeper: Lv, pv: str) -> bool:
    """Args: pv: any, if empty."""
    have = kept(vg, keeper)
    on = [*(move.source.pv for move in have.moves), *(stripe.pv for stripe in have.left)]
    return not pv or pv in on


# -- moving them -------------------------------------------------------------------------


class _Tally:
    """How far all of them are, for people."""

    def __init__(self, vg: str, chosen: list[_Chosen]) -> None:
        self._vg = vg
        self.total = sum(one.left_bytes for one in chosen)
        self.done = 0

    def of(self, one: _Chosen) -> Told:
        return functools.partial(self.told, one)

    def told(self, one: _Chosen, done_bytes: int) -> NoteProgress:
        return NoteProgress(self._vg, one.name, "moved", self.done + done_bytes, self.total)


def _moved(vg: str, chosen: list[_Chosen]) -> Generator[Order, Any, int]:
    """Move them, or wait until other hosts have.  Returns how many bytes there were to move.

    Raises what became of the first that could not be moved."""
    tally = _Tally(vg, chosen)
    failed: list[RingfenceError] = []
    theirs: list[_Chosen] = []
    for one in chosen:
        if (yield from _is_anothers(vg, one)):
            theirs.append(one)
            continue
        try:
            finished = yield from move_one(vg, one.uuid, one.name, TAKE_MS, tally.of(one))
        except LocksLost:
            raise
        except LockHeld:  # it was taken just now
            theirs.append(one)
            continue
        except RingfenceError as error:
            failed.append(error)
            continue
        if finished:
            tally.done += one.left_bytes
        else:  # somebody else wants it, and goes on
            theirs.append(one)
    failed += yield from _awaited(vg, theirs, tally)
    if failed:
        first = failed[0]
        message = first.message
        if len(chosen) > 1:
            message = f"{len(failed)} of {len(chosen)} LVs are not moved: {message}"
        raise type(first)(message, node=first.node, next=first.next or "pvmove", retry=True) from first
    return tally.total


def move_all(vg: str, uuids: tuple[str, ...]) -> Command:
    """In the background: what can be moved by this host, and is not by another.

    Args: uuids: of NAME_movings, and of what else is unclean.

    Answer: {"done": [LV's name], "gone": [uuid], "kept": [uuid: no NAME_moving], "left": how many are not
    through, "trouble": a line, "waits": {uuid: a line}}."""
    _, found = yield from find_vg(vg)
    done, left, trouble, waits = list[str](), 0, "", dict[str, str]()
    there = {uuid: lv for uuid in uuids if (lv := by_uuid(found.vg, uuid)) is not None}
    gone = [uuid for uuid in uuids if uuid not in there]
    kept = [uuid for uuid, lv in there.items() if not lv.keeps_for]
    for keeper in keepers(found.vg):
        one = _on_its_way(found.vg, keeper)
        if one.uuid not in uuids:
            continue
        left += 1
        if who := (yield from _is_anothers(vg, one)):
            waits[one.uuid] = f"{who} has it, and so moves it"
            continue
        try:
            finished = yield from move_one(vg, one.uuid, one.name, 0, _Tally(vg, [one]).of(one))
        except LocksLost:
            raise
        except RingfenceError as error:
            waits[one.uuid] = str(error)
            if not isinstance(error, LockHeld) and not error.retry:
                trouble = trouble or str(error)
            continue
        if finished:
            left -= 1
            done.append(one.name)
        else:
            waits[one.uuid] = "somebody else wanted its lock, or this host was about to leave its VG"
    return {"done": done, "gone": gone, "kept": kept, "left": left, "trouble": trouble, "waits": waits}


def _is_anothers(vg: str, one: _Chosen) -> Generator[Order, Any, str]:
    """The name of another host that has the LV, or works on it; empty: none does."""
    me: Whoami = yield Identity()
    for resource in (one.uuid, one.lv):
        holders: tuple[Holder, ...] = yield Holders(space_of(vg), resource)
        for holder in holders:
            if holder.node != me.node:
                return holder.name
    return ""


def _awaited(vg: str, theirs: list[_Chosen], tally: _Tally) -> Generator[Order, Any, list[RingfenceError]]:
    """Wait for what other hosts move.  Returns an error for each LV that they do not."""
    last, looks = -1, 0
    while theirs and looks < STALLED_LOOKS:
        found = yield from newest(vg)
        there = {keeper.uuid: _on_its_way(found.vg, keeper) for keeper in keepers(found.vg)}
        tally.done += sum(one.left_bytes for one in theirs if one.uuid not in there)
        theirs = [one for one in theirs if one.uuid in there]
        left = sum(there[one.uuid].left_bytes for one in theirs)
        looks = looks + 1 if left == last else 0
        last = left
        if theirs:
            had = sum(one.left_bytes for one in theirs)
            yield tally.told(theirs[0], had - left)
            yield Pause(LOOK_MS)
    errors: list[RingfenceError] = []
    for one in theirs:
        who = yield from _is_anothers(vg, one)
        words = f"LV {vg}/{one.name} is not moved yet" + (f" by {who}, which has it" if who else "")
        cure = f"look {'there' if who else 'for a while'}: ringfence why {vg}/{one.name}; then pvmove"
        errors.append(Refused(words, node=who, next=cure, retry=True))
    return errors


# -- giving up ---------------------------------------------------------------------------


def _give_up(call: PvMove) -> Generator[Order, Any, dict[str, Any]]:
    """What is on its way stays where it is by now."""
    if call.source:
        disks = yield from read_disks()
        vgs = [_vg_of(disks, call.source)]
    else:
        vgs = yield from _vgs_with_moves()
    names, failed = list[str](), list[RingfenceError]()
    for vg in vgs:
        for one in (yield from _chosen(call, vg)):
            try:
                yield from _given_up(vg, one)
            except LocksLost:
                raise
            except RingfenceError as error:
                failed.append(error)
            else:
                names.append(f"{vg}/{one.name}")
    if failed:
        raise failed[0]
    message = f"Given up: {', '.join(names)}" if names else "Nothing is on its way."
    return {"message": message, "lvs": names}


def _refuse_writer(vg: str, one: _Chosen) -> Generator[Order, Any, None]:
    """Raises LockHeld if another host may write the LV, and to both places."""
    me: Whoami = yield Identity()
    holders: tuple[Holder, ...] = yield Holders(space_of(vg), one.lv)
    for holder in holders:
        if holder.node != me.node and holder.mode >= Mode.PW:
            words = f"LV {vg}/{one.name} is held {holder.mode.name} by {holder.name}"
            raise LockHeld(words, node=holder.name, next="pvmove --abort there", retry=True)


def _given_up(vg: str, one: _Chosen) -> Generator[Order, Any, None]:
    """Whoever works on it gives way.  Under the LV's lock: no path of another host has both places then."""
    space = space_of(vg)
    held: Held = yield Acquire(space, one.uuid, Mode.EX, GIVE_WAY_MS, what=f"LV {vg}/{one.name} (pvmove)")
    locks = [held]
    try:
        mine: Held | None = yield FindLock(space, one.lv)
        if mine is None:
            locks.append((yield Acquire(space, one.lv, Mode.PR, 0, what=f"LV {vg}/{one.name}")))
        elif mine.mode is not Mode.EX:
            yield from _refuse_writer(vg, one)
        while True:
            locked = yield from lock_vg(vg, Mode.EX)
            change = yield from begin(locked, partial=True)
            keeper = by_uuid(change.vg, one.uuid)
            if keeper is None:
                yield Release(locked.held.lock)
                break
            volume = (yield from find_open(vg, one.lv)) if mine is not None else None
            if volume is None or is_settled(locked.found, keeper, volume):
                planned = given_up(change.vg, keeper)
                yield from commit(prepare(change, planned, f"pvmove --abort {one.name}"))
                break
            yield Release(locked.held.lock)
            yield from settled(locked.found, keeper, Use(mine, volume))
    except RingfenceError as error:
        yield from undo(error, *(Release(lock.lock) for lock in locks))
        raise
    for lock in locks:
        yield Release(lock.lock)
