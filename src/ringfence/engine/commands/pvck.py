"""pvck: what is on a device, read without a lock; nothing is written.

A judgement of its label, headers, areas and texts; or a dump of them (`lvm2.dump`)."""

from collections.abc import Generator
from typing import Any

from ringfence.core.errors import BadInput, Damaged, DeviceFailed
from ringfence.engine.commands.disks import device_named, read_disks, read_texts
from ringfence.engine.orders import Command, GoOn, Order, Read, ReadBlocks, ReadText
from ringfence.lvm2.area import HEADER_BYTES, check_text, parse_header
from ringfence.lvm2.dump import Lines, copies_in, dump_header, dump_label, label_sector, text_line
from ringfence.lvm2.label import LABEL_SCAN_BYTES, Area, PvLabel, parse_label
from ringfence.volumes.checks import check_vg
from ringfence.wire.client import PvCk

DUMPS = ("headers", "metadata", "metadata_all", "metadata_search")
_PIECE_BYTES = 8 << 20
"""So much of a ring is searched at once; texts that run over a piece's end are found by the overlap."""
_DEFAULT = Area(4096, (1 << 20) - 4096)
"""Where LVM2 puts an area, for a device whose label is lost."""


def pvck(call: PvCk) -> Command:
    if call.dump and call.dump not in DUMPS:
        raise BadInput(f"--dump {call.dump} is not known", next=f"give one of: {', '.join(DUMPS)}")
    disks = yield from read_disks()
    path = device_named(disks, call.device)
    (start,) = yield ReadBlocks((Read(path, 0, min(LABEL_SCAN_BYTES, disks.sizes[path])),))
    if start is None:
        raise DeviceFailed(f"{path} cannot be read", next="look at the device and its paths (dmesg)")
    out = Lines()
    label = _label(start, path, out)
    if call.dump == "headers":
        dump_label(start, out)
    elif call.dump == "metadata_search":
        yield from _search(path, label, disks.sizes[path], out)
        return _answer(out, path)
    elif not call.dump and label is not None:
        out.say(f"Found label on {path}, sector {label_sector(start)}, type=LVM2 001")
    areas = label.metadata_areas if label is not None else ()
    for number, area in enumerate(areas, 1):
        yield from _look_at_area(path, number, area, call.dump, out)
    return _answer(out, path)


def _answer(out: Lines, path: str) -> dict[str, Any]:
    return {"lines": out.lines, "problems": out.problems, "pv": path}


def _label(start: bytes, path: str, out: Lines) -> PvLabel | None:
    try:
        label = parse_label(start, path)
    except Damaged as error:
        out.problems.append(error.message)
        return None
    if label is None:
        out.problems.append(f"Could not find LVM label on {path}")
    return label


def _look_at_area(path: str, number: int, area: Area, dump: str, out: Lines) -> Generator[Order, Any, None]:
    (data,) = yield ReadBlocks((Read(path, area.offset_bytes, HEADER_BYTES),))
    if data is None:
        out.problems.append(f"{path}: the metadata area at {area.offset_bytes} cannot be read")
        return
    if dump == "headers":
        dump_header(number, area, data, out)
    elif not dump:
        out.say(f"Found text metadata area: offset={area.offset_bytes}, size={area.size_bytes}")
    if dump == "metadata_all":
        yield from _search_area(path, area, out)
        return
    try:
        header = parse_header(data, area, path)
    except Damaged as error:
        out.problems.append(error.message)
        return
    if header.committed.empty or header.ignored:
        return
    (text,) = yield from read_texts([(path, header, header.committed)])
    if text is None:
        out.problems.append(f"{path}: the metadata text at {header.committed.offset_bytes} cannot be read")
        return
    shown = out if dump else Lines(problems=out.problems)
    text_line(area, header.committed, text, shown)
    if dump == "metadata":
        words = text.rstrip(b"\0").decode("utf-8", "replace")
        out.lines += ["---", *words.split("\n"), "---"]
    try:
        whole = check_text(header.committed, text, path)
        check_vg((yield ReadText(whole, path)))
    except Damaged as error:
        out.problems.append(error.message)


def _search(path: str, label: PvLabel | None, size_bytes: int, out: Lines) -> Generator[Order, Any, None]:
    """Where no header need be right."""
    default = Area(_DEFAULT.offset_bytes, min(_DEFAULT.size_bytes, size_bytes - _DEFAULT.offset_bytes))
    areas = label.metadata_areas if label is not None and label.metadata_areas else (default,)
    for area in areas:
        out.say(f"Searching for metadata at offset {area.offset_bytes} size {area.size_bytes}")
        yield from _search_area(path, area, out)


def _search_area(path: str, area: Area, out: Lines) -> Generator[Order, Any, None]:
    begin, end = area.offset_bytes + HEADER_BYTES, area.offset_bytes + area.size_bytes
    for start in range(begin, end, _PIECE_BYTES):
        size = min(end - start, 2 * _PIECE_BYTES)
        (ring,) = yield ReadBlocks((Read(path, start, size),))
        if ring is None:
            out.problems.append(f"{path}: {size} bytes at {start} cannot be read")
            continue
        for copy in copies_in(ring, start):
            if copy.at_bytes < start + _PIECE_BYTES:
                out.say(copy.line())
        yield GoOn()
