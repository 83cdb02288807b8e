"""VGs as this node last read or wrote them, so that what has not changed need not be parsed again.

A version is known by its text's CRC and size, as the headers of metadata areas name it, and it is a hint: a
change reads the text itself and compares all of it (`Known.says`), a report may do without where the VG's
lock vouches for it."""

from collections.abc import Iterator

import msgspec

from ringfence.volumes.model import Vg

MOST = 64


class Known(msgspec.Struct, frozen=True):
    vg: Vg
    crc: int
    size_bytes: int
    """Of its text, final NUL included, as in a slot."""

    def says(self, text: bytes) -> bool:
        """Whether this is the VG of that text (with its NUL)."""
        return len(text) == self.size_bytes and text == self.vg.text


class KnownVgs:
    """At most `MOST`, the newest version of each."""

    def __init__(self) -> None:
        self._by_name: dict[str, Known] = {}

    def put(self, known: Known) -> None:
        self._by_name.pop(known.vg.name, None)
        self._by_name[known.vg.name] = known
        if len(self._by_name) > MOST:
            del self._by_name[next(iter(self._by_name))]

    def named(self, name: str) -> Known | None:
        return self._by_name.get(name)

    def with_text(self, size_bytes: int, crc: int) -> Known | None:
        return next((one for one in self if (one.size_bytes, one.crc) == (size_bytes, crc)), None)

    def __iter__(self) -> Iterator[Known]:
        return iter(self._by_name.values())
