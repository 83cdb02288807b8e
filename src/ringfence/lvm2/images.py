"""What the device-mapper table of an LV is made from, cut out of a metadata text that is not read whole.

To read the text of 20,000 LVs into a tree takes a second; to find one LV in it, a millisecond.  An image
changes whenever the table may: it is the LV's own section, in which each PV stands as its uuid and the place
where its extents begin (its name in the text, "pv0", is another one after a vgreduce).

Source: LVM2 lib/format_text/export.c (_print_lv: the id comes first; out_areas)."""

import re
import zlib
from collections.abc import Collection, Iterator
from itertools import islice

import msgspec

from ringfence.lvm2.text import Section, parse_text

_VG = re.compile(rb"([^\s{}]+) \{\n\s*id = \"[^\"]*\"\n\s*seqno = (\d{1,20})\n")
_PV = re.compile(rb'"(pv\d+)"')
_ID = b'id = "'
_LVS = b"logical_volumes {"
_REST = b'}\n}\ncontents = "Text Format Volume Group"\nversion = 1\n'
"""Behind the LVs."""


class LvImage(msgspec.Struct, frozen=True):
    name: str
    """The LV's name in this text."""
    crc: int
    """Of all that its table is made from."""


def heading(start: bytes) -> tuple[str, int] | None:
    """(VG name, seqno) from the first sector of a metadata text; None: LVM2 does not begin one like this."""
    found = _VG.match(start)
    return (found[1].decode(errors="replace"), int(found[2])) if found else None


def section_uuid(section: bytes) -> str:
    """The uuid of the LV whose section this is; empty: it has none."""
    at = section.find(_ID) + len(_ID)
    return section[at : section.find(b'"', at)].decode(errors="replace") if at >= len(_ID) else ""


def lv_images(text: bytes, wanted: Collection[str]) -> Iterator[tuple[str, LvImage]]:
    """(uuid, image) of those of the wanted LVs that the text has, in its order.

    Args:
        wanted: uuids with dashes.

    Raises Damaged: the list of PVs cannot be read."""
    places = _places(text)
    for uuid, section in _sections(text, wanted):
        image = _PV.sub(lambda pv: places.get(pv[1], pv[0]), section)
        yield uuid, LvImage(image.split(None, 1)[0].decode(errors="replace"), zlib.crc32(image))


def excerpts(text: bytes, wanted: Collection[str], most: int) -> Iterator[bytes]:
    """The text as it would be if the VG had no other LVs than some of the wanted ones; all that it has of
    them are in one of these texts.

    Args:
        wanted: uuids with dashes.
        most: so many LVs in a text."""
    start = text.find(_LVS)
    sections = (section for _, section in _sections(text, wanted))
    while some := list(islice(sections, most)):
        yield b"".join((text[:start], _LVS, b"\n", *some, _REST))


def _sections(text: bytes, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """(uuid, its own section) of those of the wanted LVs that the text has, in its order."""
    names = {uuid.encode(): uuid for uuid in wanted}
    at = text.find(_LVS)
    while names and at >= 0 and (at := text.find(_ID, at)) >= 0:
        begin, at = at, at + len(_ID)
        uuid = names.pop(text[at : text.find(b'"', at)], "")
        if uuid and text[begin - 1 : begin].isspace():
            start = text.rfind(b"\n", 0, text.rfind(b"{", 0, begin)) + 1
            at = _end(text, start)
            yield uuid, text[start:at]


def _places(text: bytes) -> dict[bytes, bytes]:
    """By a PV's name: its uuid and the sector where extent 0 begins."""
    start = text.find(b"physical_volumes {")
    if start < 0:
        return {}
    pvs = parse_text(text[start : _end(text, start)], "physical_volumes").section("physical_volumes")
    return {
        _bytes(name): _bytes(f"{pv.string('id')} {pv.number('pe_start')}")
        for name, pv in (pvs or Section()).sections()
    }


def _bytes(word: str) -> bytes:
    """As it stood in the text, UTF-8 or not."""
    return word.encode("utf-8", "surrogateescape")


def _end(text: bytes, start: int) -> int:
    """Behind the section that begins in the line at `start`: strings have no line ends in them."""
    depth, at = 0, start
    while at < len(text):
        end = text.find(b"\n", at)
        end = end if end >= 0 else len(text)
        line = text[at:end].strip()
        depth += line.endswith(b"{") - (line == b"}")
        at = end + 1
        if depth == 0:
            break
    return min(at, len(text))
