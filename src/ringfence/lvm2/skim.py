"""A VG's text skimmed for the uuids of its LVs, where to parse it all would take too long.

It relies on how LVM2 and ringfence write a text (a key a line, `status` right after `id`), not on all that
the grammar allows: for hints only.

Source: LVM2 lib/format_text/export.c, _print_lv."""

import re
from collections.abc import Iterator

SLICE_BYTES = 256 * 1024
"""About a millisecond's work."""

_UUID = rb"[0-9A-Za-z]{6}(?:-[0-9A-Za-z]{4}){5}-[0-9A-Za-z]{6}"
_LV = re.compile(rb'\n\s*id = "(' + _UUID + rb')"\n\s*status = \[([^\]\n]*)\]|\n\s*tags = \[([^\]\n]*)\]')


def visible_uuids(text: bytes, without_tag: str = "") -> Iterator[list[str]]:
    """The uuids of LVs that users see, in the order of the text, a slice of it at a time.

    without_tag: not of those that bear this tag."""
    tag = f'"{without_tag}"'.encode()
    at = max(text.find(b"\n\tlogical_volumes {"), text.find(b"\nlogical_volumes {"))
    while 0 <= at < len(text):
        end = text.find(b"}", at + SLICE_BYTES) + 1 or len(text)
        found: list[str] = []
        for match in _LV.finditer(text, at, end):
            uuid, status, tags = match.groups()
            if uuid is not None and b'"VISIBLE"' in status:
                found.append(uuid.decode())
            elif tags is not None and tag in tags and found:
                found.pop()
        yield found
        at = end
