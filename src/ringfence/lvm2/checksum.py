"""LVM2's CRC-32.

Polynomial 0xedb88320 as in zlib, but the register starts at 0xf597a6cf and the result is not
inverted; zlib inverts at both ends, so both are undone here.  Source: LVM2 lib/misc/crc.c and
INITIAL_CRC in lib/format_text/layout.h."""

import zlib

_INITIAL = 0xF597A6CF
_ALL_ONES = 0xFFFFFFFF


_LONG_BYTES = 1 << 16


class _Last:
    """A long text is checked where it is placed, and again where it is written: the same bytes, which do not
    change."""

    found: tuple[bytes, int] = (b"", 0)


def crc32(data: bytes) -> int:
    last, crc = _Last.found
    if data is not last:
        crc = zlib.crc32(data, _INITIAL ^ _ALL_ONES) ^ _ALL_ONES
        if len(data) > _LONG_BYTES:
            _Last.found = data, crc
    return crc
