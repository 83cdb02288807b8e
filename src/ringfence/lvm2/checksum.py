"""LVM2's CRC-32.

Polynomial 0xedb88320 as in zlib, but the register starts at 0xf597a6cf and the result is not
inverted; zlib inverts at both ends, so both are undone here.  Source: LVM2 lib/misc/crc.c and
INITIAL_CRC in lib/format_text/layout.h."""

import zlib

_INITIAL = 0xF597A6CF
_ALL_ONES = 0xFFFFFFFF


def crc32(data: bytes) -> int:
    return zlib.crc32(data, _INITIAL ^ _ALL_ONES) ^ _ALL_ONES
