"""An LV grows by zeros: what is added shows nobody's data, from the moment at which it can be read.

A little is zeroed before the commit.  What is more is first set apart as an LV of its own, NAME_growing,
which is zeroed without the VG's lock (`wiping`), and then taken up.  After a crash at each step:

    set apart:          the LV as it was; another LV, which any host zeroes, and which may be removed
    zeroed:             the same; lvremove it, then try again
    taken up:           the LV, grown"""

from collections.abc import Generator
from functools import partial
from typing import Any

from ringfence.core.errors import LocksLost, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.beside import beside
from ringfence.engine.commands.commit import Change, begin, commit, prepare
from ringfence.engine.commands.locking import fresh_uuids, lock_vg, space_of
from ringfence.engine.commands.wiping import cleanse
from ringfence.engine.commands.zeroing import fits_at_once, places, zero
from ringfence.engine.orders import Acquire, Order
from ringfence.lvm2.names import with_dashes
from ringfence.volumes.growth import added_pieces, set_apart, take_up
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.plan import Maker, find_lv
from ringfence.volumes.unclean import by_uuid


def zeroed_growth(change: Change, planned: Vg, lv: Lv, what: str) -> Generator[Order, Any, tuple[Change, Vg]]:
    """Zero what an LV is to grow by.  Returns what is to be committed, under the VG's lock: the one it came
    with, or, if that was let go of meanwhile, a new one.

    Args:
        planned: the VG with the LV grown.
        what: the command, for people."""
    found = change.locked.found
    added = added_pieces(planned, lv, find_lv(planned, lv.name))
    if fits_at_once(sum(piece.length_bytes for piece in added)):
        yield from zero(found.vg.name, places(found, added))
        return change, planned
    me, uuids = yield from fresh_uuids(1)
    uuid, vg = with_dashes(uuids[0]), found.vg.name
    maker = Maker(f"ringfence {what}", me.name, me.now_wall_s)
    work = partial(set_apart, change.vg, planned, lv.name, uuid, maker)
    reserved, apart = yield from beside(len(added), work)
    yield from commit(prepare(change, reserved, f"{what}: {apart}"))
    try:
        done = yield from cleanse(vg, uuid, apart, None, paced=False)
        if done is not None and not done.finished:
            raise Refused("somebody else wants what it is to grow by", retry=True)
        again = yield from begin((yield from lock_vg(vg, Mode.EX)))
        now, more = by_uuid(again.vg, lv.uuid), by_uuid(again.vg, uuid)
        if now is None or more is None:
            raise Refused(f"LV {vg}/{lv.name} was removed meanwhile", next=f"see: lvs {vg}")
        # It is clean, and anybody may have activated it since.
        yield Acquire(space_of(vg), uuid, Mode.EX, 0, what=f"LV {vg}/{more.name}")
        work_on = partial(take_up, again.vg, now.name, more.name)
        return again, (yield from beside(len(now.segments) + len(more.segments), work_on))
    except LocksLost:
        raise
    except RingfenceError as error:
        message = f"LV {vg}/{lv.name} has not grown: {error.message}"
        next = f"lvremove {vg}/{apart}, then try again"
        raise type(error)(message, node=error.node, next=next, retry=error.retry) from error
