"""A VG's change on disk: text, pre-commit, commit, and its publication.

What is true after a crash at each step stands in `lvm2.area`; in one sentence: readers see the old
version up to the first header that names the new text in slot 0, and the new version from there.

If the value block of the VG's lock was not valid, the last writer may be frozen in the middle of a
change.  Then its place in the ring is not used again, its seqno neither, and what was written is
read back."""

from collections.abc import Generator
from typing import Any

import msgspec

from ringfence.core.errors import Damaged, DeviceFailed, Refused
from ringfence.engine.commands.disks import known_as, read_texts
from ringfence.engine.commands.locking import LockedVg, Version, check_newest, parse_lvb, print_lvb
from ringfence.engine.orders import (
    Order,
    Publish,
    Read,
    ReadBlocks,
    Release,
    Remember,
    Write,
    WriteBlocks,
    WriteVersion,
    ZeroBlocks,
)
from ringfence.lvm2.area import (
    HEADER_BYTES,
    MdaHeader,
    RawLocn,
    check_text,
    place_text,
    print_header,
    text_writes,
)
from ringfence.lvm2.label import SECTOR_BYTES, mark_used
from ringfence.lvm2.text import parse_text
from ringfence.volumes.access import check_writable
from ringfence.volumes.checks import check_vg
from ringfence.volumes.deltas import delta_between
from ringfence.volumes.discovery import AreaOnDisk, VgOnDisk, check_complete
from ringfence.volumes.groups import mark_missing
from ringfence.volumes.known import Known
from ringfence.volumes.model import Vg
from ringfence.volumes.plan import Maker, next_seqno
from ringfence.volumes.unclean import unclean_uuids
from ringfence.wire.entries import VgDelta


class Change(msgspec.Struct, frozen=True):
    """May begin: the VG under its lock, checked, and what to make of a writer before us."""

    locked: LockedVg
    doubtful: bool
    """The value block was not valid, or speaks of another text than the disk."""
    seqno: int
    """Of the version that the change will write."""

    @property
    def vg(self) -> Vg:
        return self.locked.found.vg


class _Placed(msgspec.Struct, frozen=True):
    area: AreaOnDisk
    header: MdaHeader
    slot: RawLocn


class Prepared(msgspec.Struct, frozen=True):
    """A new version, ready to be written."""

    change: Change
    vg: Vg
    text: bytes
    placed: tuple[_Placed, ...]
    what: str
    found: VgOnDisk
    """On the devices that it will have; the VG in it is of no account."""

    @property
    def known(self) -> Known:
        slot = self.placed[0].slot
        return Known(self.vg, slot.crc, slot.size_bytes)


def begin(
    locked: LockedVg, *, partial: bool = False, resizing: bool = False
) -> Generator[Order, Any, Change]:
    """Check that the VG may be changed as it is found.  Raises Refused, Damaged, DeviceFailed.

    Args:
        partial: PVs may be missing.  Then what the missing ones hold may be newer than what is found; so no
            version is made that the cluster has heard of already.
        resizing: PVs are added or taken out, which needs a VG that is resizeable."""
    found = locked.found
    vg = found.vg
    check_complete(found, partial=partial)
    check_writable(vg, partial=partial, resizing=resizing)
    check_vg(vg)
    yield from check_newest(locked)
    known = parse_lvb(locked.held.lvb)
    doubtful = known is None or known.number != vg.seqno or known.crc not in (0, found.crc)
    seqno = vg.seqno + 1
    if doubtful:
        seqno = max(seqno, 1 + (yield from abandoned_seqno(found.areas)))
    return Change(locked, doubtful, seqno)


def abandoned_seqno(areas: tuple[AreaOnDisk, ...], uuid: str = "") -> Generator[Order, Any, int]:
    """The highest seqno among texts that were pre-committed and left so.

    Args: uuid: of the VG whose texts count; empty: of any."""
    wanted = [
        (area.path, area.header, area.header.precommitted)
        for area in areas
        if area.header is not None and not area.header.precommitted.empty
    ]
    highest = 0
    texts = yield from read_texts(wanted)
    for (path, _, slot), data in zip(wanted, texts, strict=True):
        try:
            tree = parse_text(check_text(slot, data or b"", path), path)
        except Damaged:
            continue  # it never was written whole
        bodies = [body for _, body in tree.sections() if uuid in ("", body.string("id"))]
        highest = max([highest, *(body.number("seqno") or 0 for body in bodies)])
    return highest


def prepare(change: Change, planned: Vg, what: str, found: VgOnDisk | None = None) -> Prepared:
    """Everything that can be refused about a planned VG, refused before anything is written.  (That it reads
    back as planned is seen to where it is changed: `volumes.model`.)

    PVs that are missing are flagged so.

    Args:
        what: the command in a few words, for the metadata's description and for people.
        found: the devices that the VG will have, if others than it has.

    Raises:
        Refused: an area is full.
        Damaged: the VG as planned does not hold together."""
    me, found = change.locked.me, found or change.locked.found
    planned = mark_missing(planned, [pv.name for pv in planned.pvs if pv.name not in found.pvs])
    new = next_seqno(planned, change.seqno, Maker(f"ringfence {what}", me.name, me.now_wall_s))
    check_vg(new)
    text = new.text
    # No two grants of the VG's lock have one position.
    avoid = change.locked.held.token.position if change.doubtful else None
    return Prepared(change, new, text, place(found.areas, text, avoid=avoid), what, found)


def commit(prepared: Prepared, zeros: tuple[ZeroBlocks, ...] = ()) -> Generator[Order, Any, Vg]:
    """Write the VG, publish it, and release the VG's lock with its new value.

    Args: zeros: what must read as zeros by then.

    Returns: the VG as it is on disk now.

    Raises:
        DeviceFailed, NoAuthority: old version or new, as the disks say."""
    yield from write(prepared, zeros)
    locked, after = prepared.change.locked, prepared.known
    yield from finish(locked, after, prepared.what, delta_between(known_as(locked.found), after))
    return prepared.vg


def write(prepared: Prepared, zeros: tuple[ZeroBlocks, ...] = ()) -> Generator[Order, Any, None]:
    """The first half of `commit`: it is on disk, and nobody was told."""
    before = prepared.change.vg
    yield from write_version(
        prepared.placed, prepared.text, prepared.vg.name, zeros, before.text,
        alone=prepared.vg.name != before.name,
    )  # fmt: skip
    if prepared.change.doubtful:
        yield from _read_back(prepared.placed, prepared.text)
    # A crash between commit and labels leaves PVs without the flag that says they are in a VG.
    yield from label_writes(prepared.found, used=True)


def finish(
    locked: LockedVg, new: Known, what: str, delta: VgDelta | None = None
) -> Generator[Order, Any, None]:
    """Tell everybody, then let the next one in."""
    vg = new.vg
    yield Publish(vg.name, vg.seqno, new.crc, f"{locked.me.name}: {what}", delta, unclean_uuids(vg))
    yield Remember(new)
    yield Release(locked.held.lock, print_lvb(Version(vg.seqno, new.crc)))


def place(areas: tuple[AreaOnDisk, ...], text: bytes, *, avoid: int | None) -> tuple[_Placed, ...]:
    """Choose the text's place in every area.  Raises Refused before anything is written."""
    placed = []
    for area in areas:
        assert not area.unread, "to take its ring for empty would be to write over the committed text"
        header = area.header or MdaHeader(area.place.offset_bytes, area.place.size_bytes)
        placed.append(_Placed(area, header, place_text(header, text, area.path, avoid=avoid)))
    return tuple(placed)


def write_version(
    placed: tuple[_Placed, ...],
    text: bytes,
    vg: str,
    zeros: tuple[ZeroBlocks, ...] = (),
    before: bytes = b"",
    *,
    alone: bool = False,
) -> Generator[Order, Any, None]:
    """Text, pre-commit, commit.

    Args:
        zeros: before all of them.
        before: the text that was committed, where there was one.
        alone: before the commit the old version is taken out of all areas but one.  For a VG that gets
            another name: where areas disagree about it, stock LVM2 goes by the old one, and by its locks."""
    pieces = [
        Write(one.area.path, offset, data)
        for one in placed
        for offset, data in text_writes(one.header, one.slot, text)
    ]
    # A damaged header has nothing to keep: it becomes an empty one with a pre-committed text.
    precommits = [_header_write(one, one.header.committed, one.slot) for one in placed]
    order = sorted(placed, key=lambda one: -(one.area.vg.seqno if one.area.vg else 0)) if alone else placed
    emptied = [_header_write(one, RawLocn(), one.slot) for one in order[1:]] if alone else []
    commits = [_header_write(one, one.slot, RawLocn()) for one in order]
    try:
        yield WriteVersion(
            tuple(pieces), tuple(precommits), (*emptied, *commits), vg, zeros, (before, text)
        )
    except DeviceFailed as error:
        # One area that names the new text is enough: it is committed, and the others lag.
        if not (yield from _committed_anywhere(placed)):
            raise
        if len(placed) == 1:
            raise DeviceFailed(
                f"{error.message}; VG {vg} was changed, but its device fails", next=error.next
            ) from error


def _header_write(one: _Placed, committed: RawLocn, precommitted: RawLocn) -> Write:
    header = MdaHeader(one.header.start_bytes, one.header.size_bytes, committed, precommitted)
    return Write(one.area.path, header.start_bytes, print_header(header))


def _committed_anywhere(placed: tuple[_Placed, ...]) -> Generator[Order, Any, bool]:
    blocks = yield ReadBlocks(
        tuple(Read(one.area.path, one.header.start_bytes, HEADER_BYTES) for one in placed)
    )
    return any(
        data == _header_write(one, one.slot, RawLocn()).data for one, data in zip(placed, blocks, strict=True)
    )


def _read_back(placed: tuple[_Placed, ...], text: bytes) -> Generator[Order, Any, None]:
    headers = yield ReadBlocks(
        tuple(Read(one.area.path, one.header.start_bytes, HEADER_BYTES) for one in placed)
    )
    texts = yield from read_texts([(one.area.path, one.header, one.slot) for one in placed])
    for one, header, data in zip(placed, headers, texts, strict=True):
        if header != _header_write(one, one.slot, RawLocn()).data or data != text:
            raise DeviceFailed(
                f"{one.area.path} does not return the metadata that was just written to it",
                next="another host may have written to it: fence it, then look with vgck",
                retry=True,
            )


def label_writes(found: VgOnDisk, *, used: bool) -> Generator[Order, Any, None]:
    writes = []
    for pv in found.pvs.values():
        sector = mark_used(pv.start, pv.label, used)
        if pv.label.flags_offset_bytes and pv.label.used is not used:
            writes.append(Write(pv.path, pv.label.sector * SECTOR_BYTES, sector))
    if writes:
        yield WriteBlocks(tuple(writes), found.vg.name, "pv-header")


def refuse_with_lvs(vg: Vg) -> None:
    """Raises Refused while the VG has LVs."""
    lvs = [lv for lv in vg.lvs if not lv.slots]
    if lvs and all(lv.wiping for lv in lvs):
        raise Refused(
            f'Volume group "{vg.name}" still contains {len(lvs)} logical volume(s) that are being wiped',
            next=f"wait (see: lvs -a {vg.name}); or leave what is on them: vgremove --force {vg.name}",
        )
    if lvs:
        raise Refused(
            f'Volume group "{vg.name}" still contains {len(lvs)} logical volume(s)',
            next=f"remove them first, or: vgremove --force {vg.name}",
        )
