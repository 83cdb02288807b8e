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

_FIELD = re.compile(
    r"""[ \t]*([\w\[\]]+)[ \t]*=[ \t]*(?:"([^"\\]*(?:\\.[^"\\]*)*)"|(-?\d+))[ \t]*""", re.ASCII
)
_QUOTED = re.compile(r'\\(["\\])')
_TO_QUOTE = re.compile(r'(["\\])')


def parse_fields(frame: bytes) -> dict[str, str]:
    """A frame's fields, without its end; numbers as their text.

    Raises BadInput for anything else."""
    lines = frame.decode("utf-8", "surrogateescape").split("\n")
    return dict([field for field in map(parse_line, lines) if field is not None])


def parse_line(line: str) -> tuple[str, str] | None:
    """A field: its key, and its value as text.  None: a blank line.

    Raises BadInput for anything else."""
    found = _FIELD.fullmatch(line)
    if found is not None:
        key, text, number = found.groups()
        return key, number or (_QUOTED.sub(r"\1", text) if "\\" in text else text)
    if line.isspace() or not line:
        return None
    raise BadInput(f"not a line of a request: {line[:60]!r}", next='send lines: key = "value"')


def print_fields(fields: Iterable[tuple[str, int | str]]) -> bytes:
    """A frame, its end included."""
    lines = [f"{key} = {_printed(value)}\n" for key, value in fields]
    return "".join(lines).encode("utf-8", "surrogateescape") + END


def _printed(value: int | str) -> str:
    return str(value) if isinstance(value, int) else '"' + _TO_QUOTE.sub(r"\\\1", value) + '"'
