"""lvextend, lvreduce, lvresize.

Growth, under the VG's lock alone; after a crash or a freeze at each step:

    what is added zeroed (`growing`):    the old version
    commit:                              the new one; what is open of the LV, here or elsewhere, has its old
                                         size until its node has heard of it

Reduction, under the LV's lock EX, too:

    path here reloaded, shorter:         the old version; the next look (`reloads`) gives the rest back
    a little is given up: it is wiped:   the old version, emptied at its end, which was to go: reduce it again
    commit:                              the new one
    much is given up:                    the same commit keeps it as NAME_wiping, which any host wipes"""

from collections.abc import Generator
from functools import partial
from typing import Any

from ringfence.core.errors import BadInput, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.core.units import sized
from ringfence.engine.commands.activation import find_open
from ringfence.engine.commands.alter import follow
from ringfence.engine.commands.beside import beside, holes
from ringfence.engine.commands.commit import Change, begin, commit, prepare
from ringfence.engine.commands.growing import zeroed_growth
from ringfence.engine.commands.locking import LockedVg, fresh_uuids, lock_vg, space_of
from ringfence.engine.commands.lv import places_named
from ringfence.engine.commands.narrow import narrowed
from ringfence.engine.commands.zeroing import fits_at_once, places
from ringfence.engine.orders import Command, FindLock, Order
from ringfence.lvm2.names import with_dashes
from ringfence.volumes.freed import cut_off, keep_to_wipe
from ringfence.volumes.layout import Space
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.plan import Maker, check_plain, find_lv
from ringfence.volumes.policies import policy_named
from ringfence.volumes.resize import extend_lv, reduce_lv
from ringfence.volumes.sizes import Size, Stripes, Wanted, extents_for_resize, stripes_for
from ringfence.volumes.unclean import by_uuid, piece_of
from ringfence.wire.client import LvResize

_VERBS = {"extend": "lvextend", "reduce": "lvreduce", "": "lvresize"}


def lvresize(call: LvResize) -> Command:
    if call.only not in _VERBS:
        raise BadInput(f"{call.only!r} is neither extend nor reduce")
    policy = policy_named(call.alloc)
    locked = yield from lock_vg(call.vg, Mode.EX, call.wait_ms)
    change = yield from begin(locked)
    lv = find_lv(change.vg, call.lv)
    check_plain(change.vg, lv, f"{_VERBS[call.only]} … {call.vg}/{call.lv}")
    areas, listed = places_named(locked, call.pvs)
    wanted, stripes, notes = _wanted(change.vg, lv, call, listed)
    kept: Lv | None = None
    _check_way(change.vg, lv, wanted.extents, call)
    if wanted.extents > lv.extent_count:
        space = Space(areas, policy, stripes, wanted.approximate)
        more = wanted.extents - lv.extent_count
        planned = yield from beside(
            holes(change.vg) + len(lv.segments), partial(extend_lv, change.vg, lv.name, more, space)
        )
        notes += yield from _grow(change, planned, lv, call)
    else:
        if not call.force:
            raise Refused(
                f"{call.vg}/{lv.name} would lose what is at its end",
                next="make a file system on it smaller first, then use --force",
            )
        planned = yield from beside(
            len(lv.segments), partial(reduce_lv, change.vg, lv.name, wanted.extents)
        )
        kept = yield from _shrink(change, planned, lv, call)
    answer = {**_answer(locked, lv, find_lv(planned, lv.name), notes), **_kept(kept)}
    return {**answer, "device": (yield from _open_at(call.vg, lv))}


def _open_at(vg: str, lv: Lv) -> Generator[Order, Any, str]:
    """Where it is open here; empty: nowhere, or nobody can tell."""
    if (yield FindLock(space_of(vg), lv.uuid)) is None:
        return ""
    try:
        volume = yield from find_open(vg, lv.uuid)
    except RingfenceError:
        return ""
    return volume.path if volume is not None else ""


def _what(call: LvResize) -> str:
    return f"{_VERBS[call.only]} {call.vg}/{call.lv}"


def _wanted(
    vg: Vg, lv: Lv, call: LvResize, listed: int | None
) -> tuple[Wanted, Stripes, list[str]]:
    if call.sign not in ("", "+", "-"):
        raise BadInput(f"sign {call.sign!r} is not known", next="give +, - or none")
    asked: Stripes | None = None
    notes: list[str] = []
    if call.stripes or call.stripe_size_bytes:
        asked, notes = stripes_for(vg, call.stripes or len(lv.segments[-1].stripes), call.stripe_size_bytes)
    size = Size(call.size_bytes, call.extents, call.percent, call.sign)
    wanted, stripes = extents_for_resize(vg, lv, size, asked, listed)
    return wanted, stripes, [*notes, *wanted.notes]


def _check_way(vg: Vg, lv: Lv, extents: int, call: LvResize) -> None:
    """Raises Refused, in LVM2's words."""
    have = lv.extent_count
    if extents == have:
        raise Refused(f"New size ({extents} extents) matches existing size ({have} extents).")
    if call.only == "extend" and extents < have:
        raise Refused(
            f"New size given ({extents} extents) not larger than existing size ({have} extents)",
            next=f"to make it smaller: lvreduce {vg.name}/{lv.name}",
        )
    if call.only == "reduce" and extents > have:
        raise Refused(
            f"New size given ({extents} extents) not less than existing size ({have} extents)",
            next=f"to make it larger: lvextend {vg.name}/{lv.name}",
        )


def _grow(change: Change, planned: Vg, lv: Lv, call: LvResize) -> Generator[Order, Any, list[str]]:
    if call.wipe:
        change, planned = yield from zeroed_growth(change, planned, lv, _what(call))
    yield from commit(prepare(change, planned, _what(call)))
    notes: list[str] = (yield from follow(call.vg, lv.name, lv.uuid)).get("notes", [])
    return notes


def _shrink(change: Change, planned: Vg, lv: Lv, call: LvResize) -> Generator[Order, Any, Lv | None]:
    """Commit it.  What is given up is wiped before it is free, as when an LV is removed.

    Returns: what keeps it until then."""
    given_up = cut_off(lv, find_lv(planned, lv.name))
    lost = [piece_of(planned, one) for one in given_up]
    if not call.wipe:
        yield from narrowed(prepare(change, planned, _what(call)), [lv])
        return None
    if fits_at_once(sum(piece.length_bytes for piece in lost)):
        yield from narrowed(prepare(change, planned, _what(call)), [lv], places(change.locked.found, lost))
        return None
    me, uuids = yield from fresh_uuids(1)
    uuid, maker = with_dashes(uuids[0]), Maker(f"ringfence {_what(call)}", me.name, me.now_wall_s)
    planned = yield from beside(
        len(given_up), partial(keep_to_wipe, planned, lv.name, given_up, uuid, maker)
    )
    yield from narrowed(prepare(change, planned, _what(call)), [lv])
    return by_uuid(planned, uuid)


def _kept(lv: Lv | None) -> dict[str, Any]:
    if lv is None:
        return {}
    note = f"{lv.extent_count} extents are being wiped, and free after that."
    return {"notes": [note], "unclean": lv.name, "uuid_unclean": lv.uuid}


def _answer(locked: LockedVg, lv: Lv, now: Lv, notes: list[str]) -> dict[str, Any]:
    vg = locked.found.vg
    old, new = lv.extent_count * vg.extent_bytes, now.extent_count * vg.extent_bytes
    return {
        "message": f"Size of logical volume {vg.name}/{lv.name} changed from {sized(old)} "
        f"({lv.extent_count} extents) to {sized(new)} ({now.extent_count} extents).\n"
        f"Logical volume {vg.name}/{lv.name} successfully resized.",
        "vg": vg.name,
        "name": lv.name,
        "uuid": lv.uuid,
        "size_bytes": new,
        "old_size_bytes": old,
        "notes": notes,
    }
