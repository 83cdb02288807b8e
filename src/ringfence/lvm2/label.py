"""A PV's label and header: what makes a disk a PV, and where its areas are.

One 512-byte sector, sector 1 unless another tool put it in 0, 2 or 3.  All numbers little-endian:

    +0   8  "LABELONE"
    +8   8  number of this sector
    +16  4  CRC of bytes 20..511
    +20  4  offset of the PV header in this sector (32)
    +24  8  "LVM2 001"
    +32 32  PV uuid, no dashes
    +64  8  size of the device in bytes
    +72     data areas: {offset u64, size u64}..., a pair of zeros ends them (size 0 = up to the end)
            metadata areas: likewise
            extension: version u32 (2), flags u32 (1 = the PV is in a VG)
            bootloader areas: likewise (extension version 2)

The sector is written whole, so a crash leaves the old label or the new one.

Source: LVM2 lib/label/label.h, lib/format_text/layout.h; seen with `pvck --dump headers`."""

import struct

import msgspec

from ringfence.core.errors import Damaged
from ringfence.lvm2.checksum import crc32

SECTOR_BYTES = 512
LABEL_SECTORS = 4
"""A label is looked for in the first four sectors."""
LABEL_SCAN_BYTES = SECTOR_BYTES * LABEL_SECTORS
USED = 1
"""Extension flag: the PV belongs to a VG, whether or not that VG's metadata can be found."""

_ID = b"LABELONE"
_TYPE = b"LVM2 001"
_HEADER = struct.Struct("<8sQII8s")
_PAIR = struct.Struct("<QQ")
_CRC_FROM = 20
_PV_HEADER = 32


class Area(msgspec.Struct, frozen=True):
    """A range of a device."""

    offset_bytes: int
    size_bytes: int


class PvLabel(msgspec.Struct, frozen=True):
    uuid: str
    """32 characters, no dashes."""
    device_bytes: int
    data_areas: tuple[Area, ...]
    metadata_areas: tuple[Area, ...]
    bootloader_areas: tuple[Area, ...] = ()
    extension: int = 2
    """Version of the header's extension; 0 = there is none."""
    flags: int = 0
    sector: int = 1
    flags_offset_bytes: int = 0
    """Where the extension's flags are in the sector (0 = no extension); for `mark_used`."""

    @property
    def used(self) -> bool:
        return bool(self.flags & USED)

    @property
    def data_start_bytes(self) -> int:
        return self.data_areas[0].offset_bytes if self.data_areas else 0


def parse_label(start: bytes, where: str) -> PvLabel | None:
    """Read the label from the first bytes of a device (LABEL_SCAN_BYTES of them).

    Args:
        where: names the device in messages.

    Returns: the label, or None if no sector has one: then this is not a PV.

    Raises:
        Damaged: a sector says that it is a label, but is not one that holds together."""
    for number in range(LABEL_SECTORS):
        sector = start[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES]
        if len(sector) == SECTOR_BYTES and sector.startswith(_ID):
            return _parse_sector(sector, number, where)
    return None


def _parse_sector(sector: bytes, number: int, where: str) -> PvLabel:
    _, claimed, crc, offset, kind = _HEADER.unpack_from(sector)
    if crc32(sector[_CRC_FROM:]) != crc:
        raise Damaged(f"{where}: the PV label in sector {number} has a wrong checksum")
    if claimed != number:
        raise Damaged(f"{where}: the PV label in sector {number} was written for sector {claimed}")
    if kind != _TYPE:
        raise Damaged(f"{where}: the label in sector {number} is of unknown type {kind!r}")
    try:
        return _parse_header(sector, offset, number)
    except (struct.error, UnicodeDecodeError):
        raise Damaged(f"{where}: the PV header runs over the end of its sector") from None


def _parse_header(sector: bytes, offset: int, number: int) -> PvLabel:
    uuid = sector[offset : offset + 32].decode("ascii")
    (device_bytes,) = struct.unpack_from("<Q", sector, offset + 32)
    data, offset = _parse_areas(sector, offset + 40)
    metadata, offset = _parse_areas(sector, offset)
    version, flags = struct.unpack_from("<II", sector, offset)
    if version == 0:
        return PvLabel(uuid, device_bytes, data, metadata, (), 0, 0, number)
    boot: tuple[Area, ...] = ()
    if version >= 2:
        boot, _ = _parse_areas(sector, offset + 8)
    return PvLabel(uuid, device_bytes, data, metadata, boot, version, flags, number, offset + 4)


def _parse_areas(sector: bytes, offset: int) -> tuple[tuple[Area, ...], int]:
    """Areas up to the ending pair of zeros, and where the bytes after it begin."""
    areas: list[Area] = []
    while True:
        start, size = _PAIR.unpack_from(sector, offset)
        offset += _PAIR.size
        if start == 0:
            return tuple(areas), offset
        areas.append(Area(start, size))


def print_label(label: PvLabel) -> bytes:
    """The label's sector.  Inverse of `parse_label` for labels as this version of LVM2 writes them."""
    assert len(label.uuid) == 32
    body = label.uuid.encode() + struct.pack("<Q", label.device_bytes)
    body += _print_areas(label.data_areas) + _print_areas(label.metadata_areas)
    if label.extension:
        body += struct.pack("<II", label.extension, label.flags)
        if label.extension >= 2:
            body += _print_areas(label.bootloader_areas)
    rest = struct.pack("<I8s", _PV_HEADER, _TYPE) + body
    rest = rest.ljust(SECTOR_BYTES - _CRC_FROM, b"\0")
    assert len(rest) == SECTOR_BYTES - _CRC_FROM, "a label with that many areas does not fit a sector"
    return _seal(label.sector, rest)


def _print_areas(areas: tuple[Area, ...]) -> bytes:
    pairs = [_PAIR.pack(area.offset_bytes, area.size_bytes) for area in areas]
    return b"".join([*pairs, _PAIR.pack(0, 0)])


def _seal(number: int, rest: bytes) -> bytes:
    return struct.pack("<8sQI", _ID, number, crc32(rest)) + rest


def with_size(start: bytes, label: PvLabel, device_bytes: int) -> bytes:
    """The label's sector with another size of the device, every other byte as it was.  As `mark_used`."""
    sector = start[label.sector * SECTOR_BYTES : (label.sector + 1) * SECTOR_BYTES]
    header = _HEADER.unpack_from(sector)[3]
    at = header + 32
    rest = sector[_CRC_FROM:at] + struct.pack("<Q", device_bytes) + sector[at + 8 :]
    return _seal(label.sector, rest)


def mark_used(start: bytes, label: PvLabel, used: bool) -> bytes:
    """The label's sector with the flag "is in a VG" set or cleared, every other byte as it was.

    Args:
        start: the first bytes of the device, which `label` was parsed from.

    Returns: the sector; unchanged if the header has no extension to hold the flag."""
    sector = start[label.sector * SECTOR_BYTES : (label.sector + 1) * SECTOR_BYTES]
    if not label.flags_offset_bytes:
        return sector
    flags = label.flags | USED if used else label.flags & ~USED
    at = label.flags_offset_bytes
    rest = sector[_CRC_FROM:at] + struct.pack("<I", flags) + sector[at + 4 :]
    return _seal(label.sector, rest)
