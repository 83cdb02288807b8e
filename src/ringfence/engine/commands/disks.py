"""Reading the disks: every device's label, its metadata areas, their texts.

Three rounds of reads: first sectors, area headers, texts.  They are steps of one order (`ReadDisks`), which
the storage driver goes through by itself (`steps_of`): commands that wait for a VG's lock wait for each turn
of the event loop, too.  What cannot be read or does not hold together becomes a problem of its device, never
a guess."""

import contextlib
from collections.abc import Generator
from typing import Any

import msgspec

from ringfence.core.errors import Damaged, NotFound
from ringfence.engine.orders import (
    Device,
    GoOn,
    Order,
    Read,
    ReadBlocks,
    ReadDisks,
    Recall,
    Remember,
    ScanDevices,
)
from ringfence.lvm2.area import (
    HEADER_BYTES,
    MdaHeader,
    RawLocn,
    check_text,
    parse_header,
    text_ranges,
    verify_text,
)
from ringfence.lvm2.images import heading
from ringfence.lvm2.label import LABEL_SCAN_BYTES, Area, PvLabel, parse_label
from ringfence.lvm2.skim import visible_uuids
from ringfence.volumes.discovery import AreaOnDisk, Disks, PvOnDisk, VgOnDisk, assemble
from ringfence.volumes.known import Known, KnownVgs
from ringfence.volumes.model import SLOTS_TAG, Vg, read_all_of

_NAME_BYTES = 512
"""A text begins with the VG's name; reads are of whole sectors."""
_MOVED_TRIES = 3
"""A text read without a lock may be overwritten between header and text; then look again."""


class _Found(msgspec.Struct, frozen=True):
    """The first sectors of every device."""

    devices: tuple[Device, ...]
    labels: list[tuple[Device, bytes, PvLabel]]
    bare: dict[str, int]
    problems: dict[str, str]

    @property
    def places(self) -> list[tuple[str, Area]]:
        return [(device.path, place) for device, _, label in self.labels for place in label.metadata_areas]


Steps = Generator[ScanDevices | ReadBlocks, Any, Disks]


def read_disks(*, believed: bool = False) -> Generator[Order, Any, Disks]:
    """Scan and read everything.

    Args: believed: but for texts that are known by their headers: not to be relied on then."""
    known: KnownVgs = yield Recall()
    disks: Disks = yield ReadDisks(tuple(known), believed)
    yield from _remember(disks)
    return disks


def steps_of(order: ReadDisks) -> Steps:
    """What the order consists of; returns its answer."""
    known = KnownVgs()
    for one in order.known:
        known.put(one)
    found = yield from _find_devices()
    areas = yield from _read_areas(found.places, known, order.believed)
    pvs = tuple(
        PvOnDisk(
            device.path,
            device.size_bytes,
            start,
            label,
            tuple(area for area in areas if area.path == device.path),
        )
        for device, start, label in found.labels
    )
    aliases = {alias: device.path for device in found.devices for alias in device.aliases}
    sizes = {device.path: device.size_bytes for device in found.devices}
    return assemble(pvs, found.bare, found.problems, aliases, sizes)


def _remember(disks: Disks) -> Generator[Order, Any, None]:
    known: KnownVgs = yield Recall()
    for one in disks.vgs:
        if not any(area.vg is one.vg for area in one.areas):
            continue  # it stands on a device that has the same PV uuid as another
        read = known_as(one)
        have = known.named(one.vg.name)
        if have is None or (have.size_bytes, have.crc) != (read.size_bytes, read.crc):
            yield Remember(read)


def known_as(found: VgOnDisk) -> Known:
    area = next(area for area in found.areas if area.vg is found.vg)
    assert area.header is not None
    return Known(found.vg, found.crc, area.header.committed.size_bytes)


def _find_devices() -> Generator[ScanDevices | ReadBlocks, Any, _Found]:
    devices: tuple[Device, ...] = yield ScanDevices()
    starts: tuple[bytes | None, ...] = yield ReadBlocks(
        tuple(Read(device.path, 0, min(LABEL_SCAN_BYTES, device.size_bytes)) for device in devices)
    )
    labels: list[tuple[Device, bytes, PvLabel]] = []
    bare: dict[str, int] = {}
    problems: dict[str, str] = {}
    for device, start in zip(devices, starts, strict=True):
        if start is None:
            problems[device.path] = f"{device.path} cannot be read"
            continue
        try:
            label = parse_label(start, device.path)
        except Damaged as error:
            problems[device.path] = error.message
            continue
        if label is None:
            bare[device.path] = device.size_bytes
        else:
            labels.append((device, start, label))
    return _Found(devices, labels, bare, problems)


def _read_areas(
    places: list[tuple[str, Area]], known: KnownVgs, believed: bool
) -> Generator[ReadBlocks, Any, list[AreaOnDisk]]:
    for _ in range(_MOVED_TRIES):
        areas = yield from _read_areas_once(places, known, believed)
        if not any(area.header is not None and area.problem for area in areas):
            break
    return areas


def _read_areas_once(
    places: list[tuple[str, Area]], known: KnownVgs, believed: bool
) -> Generator[ReadBlocks, Any, list[AreaOnDisk]]:
    if not places:
        return []
    areas = []
    for area in (yield from _read_headers(places)):
        slot = area.header.committed if area.header is not None and area.in_use else RawLocn()
        have = known.with_text(slot.size_bytes, slot.crc) if believed and not slot.empty else None
        if have is not None:
            area = AreaOnDisk(area.path, area.place, area.header, have.vg, slot.crc)
        areas.append(area)
    texts = iter((yield from read_texts(_committed(areas))))
    parsed: dict[bytes, Vg] = {}
    for at, area in enumerate(areas):
        if _lacks_text(area) and area.header is not None:
            areas[at] = _with_text(area, area.header.committed, next(texts), parsed, known)
    return areas


def _lacks_text(area: AreaOnDisk) -> bool:
    """Whether the area has a text that was not read yet."""
    header = area.header
    return area.vg is None and header is not None and area.in_use and not header.committed.empty


def _read_headers(places: list[tuple[str, Area]]) -> Generator[ReadBlocks, Any, list[AreaOnDisk]]:
    blocks: tuple[bytes | None, ...] = yield ReadBlocks(
        tuple(Read(path, place.offset_bytes, HEADER_BYTES) for path, place in places)
    )
    return [_header(path, place, data) for (path, place), data in zip(places, blocks, strict=True)]


def _committed(headers: list[AreaOnDisk]) -> list[tuple[str, MdaHeader, RawLocn]]:
    """Where the committed texts are."""
    return [
        (area.path, area.header, area.header.committed)
        for area in headers
        if _lacks_text(area) and area.header is not None
    ]


def _header(path: str, place: Area, data: bytes | None) -> AreaOnDisk:
    if data is None:
        return AreaOnDisk(path, place, None, problem=f"{path}: the metadata area cannot be read", unread=True)
    try:
        return AreaOnDisk(path, place, parse_header(data, place, path))
    except Damaged as error:
        return AreaOnDisk(path, place, None, problem=error.message)


def read_texts(
    wanted: list[tuple[str, MdaHeader, RawLocn]],
) -> Generator[ReadBlocks, Any, list[bytes | None]]:
    """The texts of slots, pieces joined, not yet verified; None where a read failed."""
    if not wanted:
        return []
    ranges = [text_ranges(header, slot) for _, header, slot in wanted]
    reads = [
        Read(path, piece.offset_bytes, piece.size_bytes)
        for (path, _, _), pieces in zip(wanted, ranges, strict=True)
        for piece in pieces
    ]
    answers = iter((yield ReadBlocks(tuple(reads))))
    texts: list[bytes | None] = []
    for pieces in ranges:
        parts = [next(answers) for _ in pieces]
        texts.append(None if None in parts else b"".join(parts))
    return texts


def _with_text(
    area: AreaOnDisk, slot: RawLocn, data: bytes | None, parsed: dict[bytes, Vg], known: KnownVgs
) -> AreaOnDisk:
    """The area with its VG.  The areas of a VG bear the same text: it is parsed once."""
    if data is None:
        problem = f"{area.path}: the metadata text cannot be read"
        return AreaOnDisk(area.path, area.place, area.header, problem=problem, unread=True)
    try:
        verify_text(slot, data, area.path)
        have = known.with_text(slot.size_bytes, slot.crc)
        if data not in parsed and have is not None and have.says(data):
            parsed[data] = have.vg
        if data not in parsed:
            text = data.rstrip(b"\0")
            said = heading(text[:_NAME_BYTES])
            have = known.named(said[0]) if said else None
            parsed[data] = read_all_of(text, area.path, have.vg if have is not None else None)
        return AreaOnDisk(area.path, area.place, area.header, parsed[data], slot.crc)
    except Damaged as error:
        return AreaOnDisk(area.path, area.place, area.header, problem=error.message)


def find_vg(name: str, uuid: str = "") -> Generator[Order, Any, tuple[Disks, VgOnDisk]]:
    """Args: uuid: of the one that is meant, where another VG may have the same name.

    Raises NotFound, Damaged."""
    disks = yield from read_disks()
    named = [one for one in disks.vgs if (one.vg.name, one.vg.uuid) == (name, uuid)]
    return disks, named[0] if named else disks.vg_named(name)


def find_text(name: str) -> Generator[Order, Any, bytes]:
    """A VG's newest committed text as it stands on the disks: one copy, which nobody has parsed.

    Raises NotFound: there is none, or none that is whole."""
    text, _ = yield from find_copy(name)
    return text


def find_copy(name: str) -> Generator[Order, Any, tuple[bytes, tuple[PvOnDisk, ...]]]:
    """As `find_text`, with all PVs that are there; their areas are left out."""
    found = yield from _find_devices()
    for _ in range(_MOVED_TRIES if found.places else 0):
        slots = _committed((yield from _read_headers(found.places)))
        firsts = [text_ranges(header, slot)[0] for _, header, slot in slots]
        starts: tuple[bytes | None, ...] = yield ReadBlocks(
            tuple(
                Read(path, piece.offset_bytes, min(piece.size_bytes, _NAME_BYTES))
                for (path, _, _), piece in zip(slots, firsts, strict=True)
            )
        )
        headings = [heading(start) if start is not None else None for start in starts]
        texts = [
            (said[1], slot) for said, slot in zip(headings, slots, strict=True) if said and said[0] == name
        ]
        if not texts:
            break
        path, header, slot = max(texts, key=lambda one: (one[0], one[1][2].crc))[1]
        (data,) = yield from read_texts([(path, header, slot)])
        with contextlib.suppress(Damaged):  # a writer may have come between
            if data is not None:
                return check_text(slot, data, path), tuple(
                    PvOnDisk(device.path, device.size_bytes, start, label, ())
                    for device, start, label in found.labels
                )
    raise NotFound(
        f'Volume group "{name}" not found', next="see: vgs; are its devices among [devices] paths?"
    )


def lv_order(vg: str) -> Generator[Order, Any, list[str]]:
    """The uuids of a VG's LVs that users see, but for the disk slots', in the order of its text: that in
    which stock LVM2 goes through them.

    It is a hint.  The reading goes on between other steps; to parse so much text would take too long.

    Raises NotFound."""
    text = yield from find_text(vg)
    order: list[str] = []
    for some in visible_uuids(text, without_tag=SLOTS_TAG):
        order += some
        yield GoOn()
    return order


def device_named(disks: Disks, path: str) -> str:
    """A device as this host knows it.  Raises NotFound unless [devices] paths allow it."""
    name = disks.aliases.get(path, path)
    if name not in disks.sizes:
        raise NotFound(f"Device {path} not found", next="is it there, and among [devices] paths?")
    return name
