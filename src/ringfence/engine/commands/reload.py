"""What is open here is reloaded when the metadata says otherwise: it has grown, or got another name.

A look reads the VG's text without a lock, and most end there.  Only where it differs from what is open is the
VG's lock taken, shared, and the text read again: no change can be committed then before the path is as the
text says, so that no older table ever takes a newer one's place.  What is loaded is always a version that is
committed, whole by its checksum, and not older than the change that was heard of.

Crash or freeze: before the reload the path is as it was, which is part of what the LV is (`activation`); the
next look, of whichever daemon, finds it."""

from collections.abc import Callable, Collection, Generator
from typing import Any

import msgspec

from ringfence.core.errors import LocksLost, NotFound, RingfenceError, Unavailable
from ringfence.core.modes import Mode
from ringfence.engine.commands.activation import extents_of
from ringfence.engine.commands.disks import find_copy
from ringfence.engine.commands.locking import VG_RESOURCE, parse_lvb, space_of
from ringfence.engine.orders import (
    Acquire,
    FindLock,
    GoOn,
    Held,
    OpenPaths,
    OpenVolume,
    Order,
    Release,
    ReloadPath,
)
from ringfence.lvm2.images import excerpts, heading
from ringfence.lvm2.names import with_dashes
from ringfence.volumes.discovery import PvOnDisk, VgOnDisk
from ringfence.volumes.model import read_text_like
from ringfence.volumes.parts import Lv

WAIT_MS = 5000
"""For the VG's lock: changes are short."""

STEP = 500
"""So many LVs are looked at before others have their turn."""

Changed = list[tuple[VgOnDisk, OpenVolume, Lv]]
"""The VG is read without most of its other LVs."""


def reload_changed(
    vg: str, allowed: Callable[[], bool] = lambda: True, seqno: int = 0, only: Collection[str] = ()
) -> Generator[Order, Any, dict[str, str]]:
    """Reload what is open here of a VG and is not as its metadata says.

    Args:
        allowed: asked before each reload.
        seqno: of the version that was heard of.
        only: uuids of the LVs to look at; empty: all that are open.

    Returns: VG/LV -> why, of those that could not be.

    Raises NotFound, Damaged, Unavailable (what is on the disks cannot be told), TimedOut (the VG's lock),
    LocksLost."""
    if not (yield from _differing(vg, seqno, only)):
        return {}
    held: Held = yield Acquire(space_of(vg), VG_RESOURCE, Mode.PR, WAIT_MS, what=f"VG {vg}")
    known = parse_lvb(held.lvb)
    if known is not None and known.crc:  # without a checksum it was announced, and perhaps not committed
        seqno = max(seqno, known.number)
    failed = {}
    for found, volume, lv in (yield from _differing(vg, seqno, only)):
        why = yield from _reload(found, volume, lv, allowed)
        if why:
            failed[f"{vg}/{lv.name}"] = why
    yield Release(held.lock)
    return failed


def _differing(vg: str, seqno: int, only: Collection[str]) -> Generator[Order, Any, Changed]:
    volumes: tuple[OpenVolume, ...] = yield OpenPaths()
    by_uuid = {
        one.uuid: one for one in volumes if one.vg == vg and not one.failed and (not only or one.uuid in only)
    }
    if not by_uuid:
        return []
    text, pvs = yield from find_copy(vg)
    said = heading(text)
    if said is None or said[1] < seqno:
        raise Unavailable(
            f"VG {vg} reads as version {said[1] if said else 0} here, but version {seqno} was committed",
            next="look for a device that this host reads differently",
            retry=True,
        )
    changed: Changed = []
    for some in excerpts(text, by_uuid, STEP):
        found = _on_disk(some, pvs, vg)
        read = [(_as_open(found, by_uuid[lv.uuid]), by_uuid[lv.uuid], lv) for lv in found.vg.lvs]
        changed += [one for one in read if not _is_as_said(*one)]
        yield GoOn()
    return changed


def _on_disk(text: bytes, pvs: tuple[PvOnDisk, ...], vg: str) -> VgOnDisk:
    """A PV that two devices claim to be counts as missing."""
    read = read_text_like(text, vg, None)
    places: dict[str, list[PvOnDisk]] = {}
    for pv in pvs:
        places.setdefault(with_dashes(pv.label.uuid), []).append(pv)
    there = {pv.name: places[pv.uuid][0] for pv in read.pvs if len(places.get(pv.uuid, ())) == 1}
    return VgOnDisk(read, 0, there, ())


def _as_open(found: VgOnDisk, volume: OpenVolume) -> VgOnDisk:
    """What was opened without pieces that were missing (`lvchange --partial`) may go on so."""
    lacks = any("" in (one.path, *(place.path for place in one.beside)) for one in volume.extents)
    return msgspec.structs.replace(found, partial=True) if lacks else found


def _is_as_said(found: VgOnDisk, volume: OpenVolume, lv: Lv) -> bool:
    if not lv.plain or (volume.lv, volume.readonly) != (lv.name, not lv.writable):
        return False
    try:
        return volume.extents == extents_of(found, lv)
    except RingfenceError:
        return False


def _reload(
    found: VgOnDisk, volume: OpenVolume, lv: Lv, allowed: Callable[[], bool]
) -> Generator[Order, Any, str]:
    """Returns why it could not be."""
    held: Held | None = yield FindLock(space_of(volume.vg), lv.uuid)
    if held is None or held.by_lvm2:
        return ""  # it is being let go of
    if not lv.plain:
        return "it is neither linear nor striped any more"
    if not allowed():
        return "this node has no authority now"
    try:
        order = reload_order(found, volume.lv, lv, held)
    except RingfenceError as error:
        return str(error)
    try:
        yield order
    except NotFound:
        return ""  # it was closed meanwhile
    except LocksLost:
        raise
    except RingfenceError as error:
        return str(error)
    return ""


def reload_order(found: VgOnDisk, name: str, lv: Lv, held: Held) -> ReloadPath:
    """Args: name: that it is open under.

    Raises as `extents_of` does."""
    return ReloadPath(
        found.vg.name, name, lv.uuid, extents_of(found, lv), lv.name, not lv.writable, held.token
    )
