"""What lvmlockd's socket carries: LVM2's config text in frames.

A frame is lines `key = "string"` or `key = number`, then `\\n##\\n`.  Around "=" there may be blanks or none.
In a string, backslash quotes a quotation mark or a backslash.  Blank lines say nothing; of a key that stands
twice the last counts.  Bytes that are not UTF-8 survive as surrogates.

Of the whole grammar (`lvm2.text`) no more than this is ever sent, and it is read some ten times for each
LV that a host activates.

Source: LVM2 libdaemon/client/daemon-io.c (buffer_read: frames), config-util.c (buffer_append_vf: how values
are written), libdm/libdm-config.c (strings)."""

import re
from collections.abc import Iterable

from ringfence.core.errors import BadInput

END = b"\n##\n"

_LINE = re.compile(
    r"""
        [ \t]*(?P<key>[\w\[\]]+)[ \t]*=[ \t]*
        (?:"(?P<text>[^"\\\n]*(?:\\.[^"\\\n]*)*)"|(?P<number>-?\d+))[ \t]*(?:\n|\Z)
      | \s*?(?:\n|\Z)
      | (?P<other>.+)
    """,
    re.VERBOSE | re.ASCII,
)
"""A line with a field, a blank one, or what is neither.  It always matches, so no line is passed over."""
_QUOTED = re.compile(r'\\(["\\])')
_TO_QUOTE = re.compile(r'(["\\])')


def parse_fields(frame: bytes) -> dict[str, str]:
    """A frame's fields, without its end; numbers as their text.

    Raises BadInput for anything else."""
    found: dict[str, str] = {}
    for key, text, number, other in _LINE.findall(frame.decode("utf-8", "surrogateescape")):
        if key:
            found[key] = number or (_QUOTED.sub(r"\1", text) if "\\" in text else text)
        elif other:
            raise BadInput(f"not a line of a request: {other[:60]!r}", next='send lines: key = "value"')
    return found


def print_fields(fields: Iterable[tuple[str, int | str]]) -> bytes:
    """A frame, its end included."""
    lines = [f"{key} = {_printed(value)}\n" for key, value in fields]
    return "".join(lines).encode("utf-8", "surrogateescape") + END


def _printed(value: int | str) -> str:
    return str(value) if isinstance(value, int) else '"' + _TO_QUOTE.sub(r"\\\1", value) + '"'
