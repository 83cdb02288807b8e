"""A change that takes something away from LVs: extents, or the access.

Under the LVs' locks EX.  Before the commit what is open here is reloaded to what will be left, which is part
of what it is by then, too: so nothing of ours writes to an extent that the next change of the VG may give
to another LV, and there is no moment in which the metadata promise less than the path uses.  A reload is
answered when all that was under way in the old table is done.  After an error nobody here knows which of
the two versions is the committed one: the path stays as it is, and the next look (`reloads`) tells."""

from collections.abc import Generator, Sequence
from typing import Any

from ringfence.core.errors import Refused
from ringfence.core.modes import Mode
from ringfence.engine.commands.activation import check_ours_to_use, find_open
from ringfence.engine.commands.commit import Prepared, commit
from ringfence.engine.commands.locking import space_of
from ringfence.engine.commands.reload import reload_order
from ringfence.engine.commands.zeroing import zero
from ringfence.engine.orders import Acquire, FindLock, Held, Order, Release
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import Lv
from ringfence.volumes.plan import find_lv
from ringfence.wire.block import Extent


def narrowed(
    prepared: Prepared, lvs: Sequence[Lv], wiped: Sequence[Extent] = ()
) -> Generator[Order, Any, None]:
    """Commit it, with the LVs' paths here as they will be.

    Args:
        lvs: those that lose something, as they are now.
        wiped: what they lose, to be wiped before the commit.

    Raises LockHeld (an LV is in use on another host), Refused (LVM2 has it active here), and what a reload or
    a commit raises."""
    vg = prepared.vg.name
    after = VgOnDisk(prepared.vg, 0, prepared.change.locked.found.pvs, ())
    locks = []
    for lv in lvs:
        locks.append((yield from _take(vg, lv)))
    for lv, (held, active) in zip(lvs, locks, strict=True):
        volume = (yield from find_open(vg, lv.uuid)) if active else None
        if volume is not None and volume.failed:
            raise Refused(
                f"The path of {vg}/{lv.name} has failed: {volume.failed}",
                next=f"lvchange -an {vg}/{lv.name} first",
            )
        if volume is not None:
            yield reload_order(after, volume.lv, find_lv(prepared.vg, lv.name), held)
    yield from zero(vg, wiped)
    yield from commit(prepared)
    for held, active in locks:
        if not active:
            yield Release(held.lock)


def _take(vg: str, lv: Lv) -> Generator[Order, Any, tuple[Held, bool]]:
    """EX on an LV, and whether it is active here; nothing waits."""
    what = f"LV {vg}/{lv.name}"
    mine: Held | None = yield FindLock(space_of(vg), lv.uuid)
    if mine is None:
        held: Held = yield Acquire(space_of(vg), lv.uuid, Mode.EX, 0, what=what)
        return held, False
    check_ours_to_use(mine, vg, lv.name)
    if mine.mode is not Mode.EX:
        raise Refused(
            f"Logical volume {vg}/{lv.name} is active here in shared mode",
            next=f"lvchange -an {vg}/{lv.name} on every host, or lvchange -aey here",
        )
    return mine, True
