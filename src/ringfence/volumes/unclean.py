"""LVs that are being zeroed (new) or wiped (removed): how the metadata mark them, and how far they are.

A new LV bears the tag `ringfence.zeroing` until no byte of an earlier owner is in it; a removed one is
renamed to NAME_wiping and bears `ringfence.wiping` until its extents are wiped, and leaves the VG only then.
How far that is stands in a tag `ringfence.wiped.N`: the first N extents, in the order of `pieces`, are done.
So any host can go on, after any crash, and stock LVM2 carries the tags along unread.  Until then it has
LVM2's flag ACTIVATION_SKIP, too, so that `vgchange -ay` passes it over.  The new name is an ordinary one to
stock LVM2 (it reserves others: lib/misc/lvm-string.c), and the LV stays VISIBLE: one that is hidden and part
of no other fails its checks (vg_validate counts them)."""

from collections.abc import Iterable

import msgspec

from ringfence.core.errors import BadInput, Refused
from ringfence.lvm2.names import check_lv_name
from ringfence.lvm2.text import Section
from ringfence.volumes.model import SECTOR_BYTES, Lv, Stripe, Vg
from ringfence.volumes.parts import WIPING_TAG, ZEROING_TAG

DONE_TAG = "ringfence.wiped."
SKIP_FLAG = "ACTIVATION_SKIP"
WIPING_SUFFIX = "_wiping"


class Piece(msgspec.Struct, frozen=True):
    """A range of one PV, in bytes of its device."""

    pv: str
    start_bytes: int
    length_bytes: int


def unclean_uuids(vg: Vg) -> tuple[str, ...]:
    """Of the LVs that nobody may open: what LVs are being moved to counts, too (`moves`)."""
    return tuple(lv.uuid for lv in vg.lvs if lv.tags and (lv.unclean or lv.keeps_for))


def by_uuid(vg: Vg, uuid: str) -> Lv | None:
    return next((lv for lv in vg.lvs if lv.uuid == uuid), None)


def size_of(vg: Vg, lv: Lv) -> int:
    """Bytes on PVs; a thin or cached LV has none of its own."""
    return sum(piece.length_bytes for piece in pieces(vg, lv))


def pieces(vg: Vg, lv: Lv) -> tuple[Piece, ...]:
    """All that an LV has of PVs; the order says nothing of where its bytes are."""
    return tuple(piece_of(vg, stripe) for segment in lv.segments for stripe in segment.stripes)


def piece_of(vg: Vg, stripe: Stripe) -> Piece:
    pv = vg.pv(stripe.pv)
    assert pv is not None, "a stripe lies on a PV of its VG"
    start = pv.start_sectors * SECTOR_BYTES + stripe.start_extent * vg.extent_bytes
    return Piece(pv.name, start, stripe.extent_count * vg.extent_bytes)


def rest_of(pieces: Iterable[Piece], done_bytes: int) -> tuple[Piece, ...]:
    """What of the pieces lies behind the first so many bytes."""
    rest = []
    for piece in pieces:
        skip = min(done_bytes, piece.length_bytes)
        done_bytes -= skip
        if skip < piece.length_bytes:
            rest.append(Piece(piece.pv, piece.start_bytes + skip, piece.length_bytes - skip))
    return tuple(rest)


def done_extents(lv: Lv) -> int:
    """How many of its extents are done, as its tags say."""
    numbers = [tag.removeprefix(DONE_TAG) for tag in lv.tags if tag.startswith(DONE_TAG)]
    done = max((int(one) for one in numbers if one.isascii() and one.isdigit() and len(one) < 20), default=0)
    return min(done, lv.extent_count)


def check_clean(vg: Vg, lv: Lv) -> None:
    """Raises Refused while the LV is being zeroed or wiped, or keeps extents for one that moves."""
    if not lv.tags:
        return  # each of these is said by a tag
    check_kept(vg, lv)
    if lv.wiping:
        raise Refused(
            f"Logical volume {vg.name}/{lv.name} was removed and is being wiped",
            next=f"it goes by itself; without wiping: lvremove --no-wipe {vg.name}/{lv.name}",
        )
    if lv.zeroing:
        percent = 100 * done_extents(lv) // max(lv.extent_count, 1)
        raise Refused(
            f"Logical volume {vg.name}/{lv.name} is still being zeroed ({percent} %)",
            next=f"wait for it (see: lvs -a {vg.name})", retry=True,
        )  # fmt: skip


def check_kept(vg: Vg, lv: Lv) -> None:
    """Raises Refused if an open LV may be writing to this one, as to the place where it moves."""
    if lv.tags and lv.keeps_for:
        mover = by_uuid(vg, lv.keeps_for)
        what = f"{vg.name}/{mover.name}" if mover is not None else "an LV that was removed"
        raise Refused(
            f"Logical volume {vg.name}/{lv.name} keeps extents for {what}, which is being moved",
            next="go on: pvmove; or give it up: pvmove --abort",
        )


def check_removable(vg: Vg, lv: Lv, *, wipe: bool) -> None:
    """Raises Refused for an LV that is removed already, unless it is to go without being wiped."""
    check_kept(vg, lv)
    if lv.wiping and wipe:
        check_clean(vg, lv)


# -- changes of the metadata; the seqno is not touched ---------------------------------------


def mark_zeroing(vg: Vg, name: str) -> Vg:
    return vg.with_lv(name, _marked(vg.section_of(name), ZEROING_TAG))


def mark_wiping(vg: Vg, name: str) -> Vg:
    """The LV under a name that is free, with nothing done yet."""
    new = wiping_name(vg, name)
    return mark_removed(vg.with_renamed(name, new), new)


def mark_removed(vg: Vg, name: str) -> Vg:
    """As `mark_wiping`, of an LV that has such a name already."""
    return vg.with_lv(name, _marked(vg.section_of(name), WIPING_TAG))


def wiping_name(vg: Vg, name: str) -> str:
    """NAME_wiping, or the like; NAME is cut where that would be too long."""
    return name_beside(vg, name, WIPING_SUFFIX)


def name_beside(vg: Vg, name: str, suffix: str) -> str:
    """NAME and the suffix, or the next like it that is free."""
    number = 0
    while vg.lv(new := _fitting(name, f"{suffix}{number or ''}", vg.name)) is not None:
        number += 1
    return new


def _fitting(name: str, suffix: str, vg: str) -> str:
    while len(name) > 1:
        try:
            check_lv_name(name + suffix, vg)
        except BadInput:
            name = name[:-1]
        else:
            break
    return name + suffix


def note_done(vg: Vg, name: str, extents: int) -> Vg:
    """So many of its extents are done."""
    section = vg.section_of(name)
    tags = [tag for tag in section.strings("tags") if not tag.startswith(DONE_TAG)]
    return vg.with_lv(name, section.put("tags", (*tags, f"{DONE_TAG}{extents}")))


def forget_done(vg: Vg) -> Vg:
    """Nothing counts as zeroed or wiped: the metadata is old, and who had the extents since is not known."""
    for lv in (by_uuid(vg, uuid) for uuid in unclean_uuids(vg)):
        if lv is not None and done_extents(lv):
            section = vg.section_of(lv.name)
            tags = tuple(tag for tag in section.strings("tags") if not tag.startswith(DONE_TAG))
            vg = vg.with_lv(lv.name, section.put("tags", tags))
    return vg


def mark_clean(vg: Vg, name: str) -> Vg:
    """A zeroed LV is as any other."""
    section = vg.section_of(name)
    flags = tuple(flag for flag in section.strings("flags") if flag != SKIP_FLAG)
    section, tags = section.put("flags", flags), _other_tags(section)
    return vg.with_lv(name, section.put("tags", tags) if tags else section.drop("tags"))


def _marked(section: Section, tag: str) -> Section:
    flags, tags = section.strings("flags"), _other_tags(section)
    if SKIP_FLAG not in flags:
        section = section.put("flags", (*flags, SKIP_FLAG))
    # LVM2 writes tags right behind the flags.
    items = section.drop("tags").items
    at = next(index for index, (key, _) in enumerate(items) if key == "flags") + 1
    return Section((*items[:at], ("tags", (*tags, tag)), *items[at:]))


def _other_tags(section: Section) -> tuple[str, ...]:
    return tuple(
        tag
        for tag in section.strings("tags")
        if tag not in (ZEROING_TAG, WIPING_TAG) and not tag.startswith(DONE_TAG)
    )
