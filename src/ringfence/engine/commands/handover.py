"""handover: an open LV goes from this host to another, which has its end open before this one closes its own.

The giver, who holds the LV EX, goes step by step, under the VG's lock PR, so that the metadata stay as they
are:

    LOOK     the taker reads the VG's metadata and finds the same version, and the LV in the same places
    hold     here what changes the LV waits; what was under way is done, and flushed
    PR       the lock here
    OPEN     the taker takes the lock PR, too, reads and compares again, and opens its end: reads are answered
             there, writes wait
    TAKE     decided, in the total order, if the two and nobody else hold the lock
    close    here; what waited fails, and has changed nothing
    unlock   here
    EX       the taker's lock, as soon as it is alone; its end lets write

A hand-over may be prepared, for a guest whose migration has its other end open long before it moves: then
after LOOK the lock goes to PW, the taker takes it CR, and opens its end in the same way, while the writer
here writes on.  The rest comes when it is asked for.

After a crash, a freeze or an error at each step `handovers` does what is left:

    up to OPEN, its end included:   taken back: EX here, writes go on; the taker closes its end
    prepared:                       it stays so while both live, and is taken back when the taker is lost
    TAKE, or later:                 this host closes and lets go, or is fenced, and its lock is purged; then
                                    the taker goes on.  If that is lost by then the LV is nobody's, and free
                                    when it is purged; what is still open here is taken back

Where this host is lost before TAKE, the taker closes its end: nobody has said that it may write."""

import zlib
from collections.abc import Callable, Generator, MutableMapping
from typing import Any

from ringfence.core.errors import BadInput, Damaged, NotFound, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.commands.activation import check_ours_to_use, extents_of, find_open, open_path, vg_wait
from ringfence.engine.commands.disks import find_vg
from ringfence.engine.commands.locking import check_newest, lock_vg, space_of, undo
from ringfence.engine.orders import (
    Acquire,
    AskHandover,
    AwaitTaken,
    ClosePath,
    Command,
    Convert,
    FindLock,
    Handovers,
    Held,
    Identity,
    OnItsWay,
    OpenVolume,
    Order,
    Release,
    ReloadPath,
    Whoami,
)
from ringfence.volumes.access import check_ours
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import Lv
from ringfence.volumes.plan import check_plain, find_lv
from ringfence.wire import entries
from ringfence.wire.block import Hold, Plane
from ringfence.wire.client import LvHandover
from ringfence.wire.entries import HandoverStep

LOCK_MS = 10_000
"""How long either waits for a mode of the lock that nobody ought to be in the way of."""
BACK_MS = 2_000
"""How long the giver waits for its lock back, before it tries again."""

Ask = Callable[[HandoverStep], AskHandover]


def handover(call: LvHandover, busy: MutableMapping[str, str]) -> Command:
    """Args: busy: LVs that commands of this kind are at, by uuid, each with what it is."""
    me: Whoami = yield Identity()
    if call.abort:
        return (yield from _abort(call, me, busy))
    taker = next((node for node, name in me.node_names.items() if name == call.to), None)
    if taker is None:
        raise NotFound(f"no node is called {call.to}", next="ringfence status")
    if taker == me.node:
        raise BadInput(
            f"{call.to} is this node",
            next="name the one that is to have the LV; to fetch it: the same on the host that has it",
        )
    locked = yield from lock_vg(call.vg, Mode.PR, vg_wait(call.wait_ms))
    yield from check_newest(locked)
    lv = find_lv(locked.found.vg, call.lv)
    check_plain(locked.found.vg, lv)
    _take_turn(call, lv, busy)
    try:
        yield from _check_same_taker(call, lv)
        mine, volume = yield from _open_here(call, lv)
        ask = _asking(locked.found, lv, taker)
        if volume.hold is Hold.NONE:
            yield ask(HandoverStep.LOOK)
        if call.prepare:
            if volume.hold is Hold.NONE:
                yield from _lend(volume, mine, ask)
            return _answer(call, lv, "prepared", f"{call.to} has it open, and may read; it is written here")
        yield from _give(volume, mine, ask)
        yield Release(locked.held.lock)
        taken: bool = yield AwaitTaken(lv.uuid)
    finally:
        busy.pop(lv.uuid, None)
    said = f"it is {call.to}'s" if taken else f"it is {call.to}'s, which has not said yet that it goes on"
    return _answer(call, lv, "handed over" if taken else "given", said)


def _take_turn(call: LvHandover, lv: Lv, busy: MutableMapping[str, str]) -> None:
    if lv.uuid in busy:
        words = f"Logical volume {call.vg}/{lv.name} is busy here with {busy[lv.uuid]}"
        raise Refused(words, next=f"wait until that is over; ringfence why {call.vg}/{lv.name}", retry=True)
    busy[lv.uuid] = "another hand-over"


def _answer(call: LvHandover, lv: Lv, state: str, said: str) -> dict[str, Any]:
    return {
        "message": f"Logical volume {call.vg}/{lv.name} {state}: {said}.",
        "vg": call.vg,
        "name": lv.name,
        "uuid": lv.uuid,
        "to": call.to,
        "state": state,
    }


# -- the giver ---------------------------------------------------------------------------------


def _check_same_taker(call: LvHandover, lv: Lv) -> Generator[Order, Any, None]:
    """Raises Refused: it is prepared for another one."""
    ways: dict[str, OnItsWay] = yield Handovers(call.vg)
    way = ways.get(lv.uuid)
    if way is not None and way.names[1] != call.to:
        giver, taker = way.names
        raise Refused(
            f"Logical volume {call.vg}/{lv.name} is being handed over from {giver} to {taker}",
            next=f"to drop that: on {giver}, ringfence handover {call.vg}/{lv.name} --abort",
        )


def _open_here(call: LvHandover, lv: Lv) -> Generator[Order, Any, tuple[Held, OpenVolume]]:
    """Raises Refused: it is not this host's to hand over, or not by a path that can be held."""
    name = f"Logical volume {call.vg}/{lv.name}"
    mine: Held | None = yield FindLock(space_of(call.vg), lv.uuid)
    check_ours_to_use(mine, call.vg, lv.name)
    volume = yield from find_open(call.vg, lv.uuid)
    if mine is None or volume is None:
        raise Refused(
            f"{name} is not active here", next=f"ask the host that has it: ringfence lvs {call.vg}/{lv.name}"
        )
    if volume.failed:
        words = f"{name}: its path has failed: {volume.failed}"
        raise Refused(words, next=f"lvchange -an {call.vg}/{lv.name}")
    if volume.plane is not Plane.NBD:
        raise Refused(
            f"{name} is open as a device, whose writes cannot be made to wait for another host's",
            next='use [volumes] plane = "nbd" for what is to be handed over',
        )
    if volume.moving is not None:
        raise Refused(f"{name} is being moved", next="wait until pvmove is through", retry=True)
    if (mine.mode, volume.hold) not in ((Mode.EX, Hold.NONE), (Mode.PW, Hold.LENDING)):
        if volume.hold is Hold.NONE:
            raise Refused(f"{name} is active here in shared mode: there is nothing to hand over")
        raise Refused(f"{name} is being handed over already", next="wait a moment", retry=True)
    return mine, volume


def _asking(found: VgOnDisk, lv: Lv, taker: int) -> Ask:
    """Makes the order of each step."""
    what, seen = (found.vg.name, lv.name, lv.uuid, taker), (found.vg.seqno, found.crc, table_of(found, lv))
    return lambda step: AskHandover(*what, step, *seen)


def table_of(found: VgOnDisk, lv: Lv) -> int:
    """A checksum of what the LV is made of, as this host finds it: which PVs, and where on each.

    Raises NotFound (a PV is missing), Refused, Damaged."""
    vg = found.vg
    pvs = [pv.uuid for segment in lv.segments for stripe in segment.stripes if (pv := vg.pv(stripe.pv))]
    places = [
        (one.length_bytes, one.stripe_bytes, one.start_bytes, *(place.start_bytes for place in one.beside))
        for one in extents_of(found, lv)
    ]
    return zlib.crc32(repr((pvs, places, lv.writable)).encode())


def _reload(volume: OpenVolume, hold: Hold, held: Held) -> ReloadPath:
    """The path as it is, with another hold."""
    return ReloadPath(
        volume.vg, volume.lv, volume.uuid, volume.extents, volume.lv, volume.readonly, held.token, hold
    )


def _lend(volume: OpenVolume, mine: Held, ask: Ask) -> Generator[Order, Any, None]:
    yield _reload(volume, Hold.LENDING, mine)
    mine = yield Convert(mine.lock, Mode.PW, LOCK_MS)
    yield _reload(volume, Hold.LENDING, mine)
    yield ask(HandoverStep.LEND)


def _give(volume: OpenVolume, mine: Held, ask: Ask) -> Generator[Order, Any, None]:
    yield _reload(volume, Hold.GIVING, mine)
    yield Convert(mine.lock, Mode.PR, LOCK_MS)
    yield ask(HandoverStep.OPEN)
    yield ask(HandoverStep.TAKE)
    yield ClosePath(volume.vg, volume.lv, volume.uuid)
    yield Release(mine.lock)


def _abort(call: LvHandover, me: Whoami, busy: MutableMapping[str, str]) -> Command:
    _, found = yield from find_vg(call.vg)
    lv = find_lv(found.vg, call.lv)
    ways: dict[str, OnItsWay] = yield Handovers(call.vg)
    way, name = ways.get(lv.uuid), f"{call.vg}/{lv.name}"
    if way is None:
        raise Refused(f"Logical volume {name} is not being handed over", next=f"ringfence why {name}")
    giver, taker = way.names
    if way.giver != me.node:
        raise Refused(
            f"Logical volume {name} is being handed over by {giver}",
            next=f"there: ringfence handover {name} --abort",
        )
    _take_turn(call, lv, busy)
    try:
        gone = yield from take_back(call.vg, lv.uuid, way.taker)
    finally:
        busy.pop(lv.uuid, None)
    here = f"; its path was gone: lvchange -aey {call.vg}/{lv.name} opens it" if gone else ""
    return _answer(call, lv, "taken back", f"it stays with {giver}, and {taker} closes its end{here}")


def take_back(vg: str, uuid: str, taker: int) -> Command:
    """The giver's end of a hand-over that is not decided: writes go on here.

    Args: taker: is told to drop it; 0: there is none any more.

    Returns: as `_keep`.

    Raises Refused: it is decided; TimedOut, Deadlock: the taker has not let go yet."""
    volume = yield from find_open(vg, uuid)
    mine: Held | None = yield FindLock(space_of(vg), uuid)
    if taker:
        yield AskHandover(vg, _name(volume, uuid), uuid, taker, HandoverStep.DROP)
    return (yield from _keep(vg, uuid, mine, BACK_MS))


def _keep(vg: str, uuid: str, mine: Held | None, wait_ms: int | None) -> Generator[Order, Any, bool]:
    """The LV is this host's: EX, and writes go on.  Of a path that has failed, or is gone, what is left is
    closed: to activate the LV once more opens it anew.

    Returns: whether that is so: the LV is locked here, and not open."""
    if mine is not None and mine.mode is not Mode.EX:
        mine = yield Convert(mine.lock, Mode.EX, wait_ms)
    volume = yield from find_open(vg, uuid)  # as it is by now: it may have grown, or have another name
    if mine is None or volume is None or volume.failed:
        yield ClosePath(vg, _name(volume, uuid), uuid)
        return mine is not None
    yield _reload(volume, Hold.NONE, mine)
    return False


def _name(volume: OpenVolume | None, uuid: str) -> str:
    """What a path is open under.  (What is not open is closed under any name.)"""
    return volume.lv if volume is not None else uuid


def close_end(vg: str, uuid: str) -> Command:
    """This end is the other's, or nobody's: close it, then unlock."""
    volume = yield from find_open(vg, uuid)
    mine: Held | None = yield FindLock(space_of(vg), uuid)
    yield ClosePath(vg, _name(volume, uuid), uuid)
    if mine is not None:
        yield Release(mine.lock)


# -- the taker ---------------------------------------------------------------------------------


def receive(ask: entries.AskHandover) -> Command:
    """LOOK, LEND or OPEN, as the giver asks.

    The giver holds the VG's lock: nobody changes the metadata meanwhile.

    Raises Refused, Damaged (this host reads something else than the giver), NotFound, TimedOut."""
    found, lv = yield from _compare(ask)
    if ask.step is HandoverStep.LOOK:
        return
    vg, space = found.vg.name, space_of(found.vg.name)
    mine: Held | None = yield FindLock(space, lv.uuid)
    check_ours_to_use(mine, vg, lv.name)
    volume = yield from find_open(vg, lv.uuid)
    hold, mode = (Hold.BORROWING, Mode.CR) if ask.step is HandoverStep.LEND else (Hold.TAKING, Mode.PR)
    if mine is not None or volume is not None:
        if mine is None or volume is None or volume.hold is not Hold.BORROWING:
            what = f"Logical volume {vg}/{lv.name} is active there"
            raise Refused(what, next=f"lvchange -an {vg}/{lv.name}")
        mine = yield Convert(mine.lock, mode, LOCK_MS)
        found, lv = yield from _compare(ask)
        # By the metadata that both read: it may have grown since its end was opened, and not be reloaded yet.
        yield ReloadPath(
            vg, volume.lv, lv.uuid, extents_of(found, lv), lv.name, not lv.writable, mine.token, hold
        )
        return
    what = f"LV {vg}/{lv.name}"
    mine = yield Acquire(space, lv.uuid, mode, LOCK_MS, persistent=True, what=what)
    assert mine is not None
    try:
        found, lv = yield from _compare(ask)
        yield from open_path(found, lv, mine, hold)
        if hold is Hold.BORROWING:
            yield from _check_direct(vg, lv)
    except RingfenceError as error:
        yield from undo(error, ClosePath(vg, lv.name, lv.uuid, own=True), Release(mine.lock))
        raise


def _check_direct(vg: str, lv: Lv) -> Generator[Order, Any, None]:
    """Raises Refused: what is read while the other host writes would stay in this host's cache."""
    volume = yield from find_open(vg, lv.uuid)
    if volume is not None and not volume.direct:
        raise Refused("its disks have no direct I/O there", next="hand it over without --prepare")


def _compare(ask: entries.AskHandover) -> Generator[Order, Any, tuple[VgOnDisk, Lv]]:
    """Read the metadata from the disks.  Raises Damaged: they are not what the giver reads."""
    me: Whoami = yield Identity()
    _, found = yield from find_vg(ask.vg)
    check_ours(found.vg, me.cluster)
    lv = next((one for one in found.vg.lvs if one.uuid == ask.uuid), None)
    if lv is None or (found.vg.seqno, found.crc) != (ask.seqno, ask.crc):
        other = ", by another text" if found.vg.seqno == ask.seqno else ""
        raise Damaged(
            f"VG {ask.vg} is version {found.vg.seqno} on {me.name}, and {ask.seqno} where it is given{other}",
            next="look for a device that one of the hosts reads differently",
        )
    check_plain(found.vg, lv)
    if table_of(found, lv) != ask.table:
        raise Damaged(
            f"{me.name} finds {ask.vg}/{lv.name} in other places on its disks",
            next="look for a device that one of the hosts reads differently",
        )
    return found, lv


def take(vg: str, uuid: str) -> Command:
    """It is decided: EX as soon as the giver's lock is gone, however long that takes; then writes go on.

    Returns: as `_keep`."""
    mine: Held | None = yield FindLock(space_of(vg), uuid)
    return (yield from _keep(vg, uuid, mine, None))
