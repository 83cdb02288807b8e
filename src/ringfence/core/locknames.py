r"""Names of lockspaces and resources: 1 to 64 bytes of any content, as text.

Everywhere but at a program's own door a name is the text that this room makes of its bytes, and one name
has one text: what is printable UTF-8 stands for itself, every other byte is `\xHH`, a backslash is `\\`.
So names go through JSON, tables, logs and shells as they are, two names never look alike because of what
cannot be seen, and a text that was printed can be typed again.  In a lockspace's name a slash is `\x2f`:
LOCKSPACE/RESOURCE is read up to the first.

Which characters count as printable is written down here rather than asked of Python: nodes may run
different ones, with different Unicode tables, and must not make two names of the same bytes.

Source: the limits are the DLM's (DLM_LOCKSPACE_LEN, DLM_RESNAME_MAXLEN); what is unseen follows Unicode 15,
general categories Cc, Cf, Zl, Zp, Zs, Co, Cs and the noncharacters."""

import re
from collections.abc import Callable

from ringfence.core.errors import BadInput

NAME_BYTES = 64
VG_SPACE = "lvm_"
GLOBAL_SPACE = "lvm_global"

_PLAIN = re.compile(r"[!-\[\]-~]{1,64}")
"""What is its own text, as nearly all names are."""
_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(\\))|\\")
_UNSEEN = re.compile(
    "["
    "\x00-\x20\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f"
    "\u2028-\u202f\u205f-\u206f\u3000\ud800-\uf8ff\ufdd0-\ufdef\ufeff\ufff0-\ufffb\ufffe\uffff"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff\U000f0000-\U0010ffff"
    "]"
)


def escape(name: bytes) -> str:
    """The text of a name.  Any bytes have one; how many there may be is `canonical`'s to say."""
    text = name.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    return _UNSEEN.sub(lambda found: _hex(found[0]), text)


def _hex(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def unescape(text: str) -> bytes:
    r"""The bytes of a name, of its own text or of any other way to write it down.

    Raises BadInput for a backslash that begins neither `\\` nor `\xHH`."""
    try:
        raw = text.encode("utf-8", "surrogateescape")  # as os.fsdecode leaves what is not UTF-8
    except UnicodeEncodeError:
        raise BadInput(f"{text!r} is no text", next="write bytes that are not UTF-8 as \\xHH") from None

    def byte(found: re.Match[bytes]) -> bytes:
        if found[1] is not None:
            return bytes([int(found[1], 16)])
        if found[2] is not None:
            return b"\\"
        raise BadInput(f"{text!r}: a backslash alone", next="write \\\\ for a backslash, \\xHH for a byte")

    return _ESCAPE.sub(byte, raw)


def text_of(name: str | bytes) -> str:
    """A program's name for something: its characters, or its bytes, as they are.

    Raises BadInput for a str that holds what is neither text nor from os.fsdecode, and for anything else."""
    if not isinstance(name, bytes | str):
        raise BadInput(f"{name!r} is no name", next="give str or bytes")
    try:
        return escape(name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise BadInput(f"{name!r} is no text", next="give bytes") from None


def lockspace_text_of(name: str | bytes) -> str:
    """The same of a lockspace's name: the one text that it has everywhere, once it is known to be one."""
    return text_of(name).replace("/", "\\x2f")


def lockspace_name(text: str) -> str:
    """The one text of the lockspace's name that was written down as `text`.

    Raises BadInput if it cannot be read, is empty, or is longer than 64 bytes."""
    if _PLAIN.fullmatch(text) is not None and "/" not in text:
        return text
    return _canonical("lockspace", text).replace("/", "\\x2f")


def resource_name(text: str) -> str:
    """The one text of the resource's name that was written down as `text`.  Raises as `lockspace_name`."""
    return text if _PLAIN.fullmatch(text) is not None else _canonical("resource", text)


def is_lockspace_name(text: str) -> bool:
    """Whether this is the one text of a lockspace's name."""
    return _is_own_text(lockspace_name, text)


def is_resource_name(text: str) -> bool:
    """Whether this is the one text of a resource's name."""
    return _PLAIN.fullmatch(text) is not None or _is_own_text(resource_name, text)


def _is_own_text(read: Callable[[str], str], text: str) -> bool:
    try:
        return read(text) == text
    except BadInput:
        return False


def is_literal(name: str) -> bool:
    """Whether the text of a name is its own UTF-8, and no longer than names are: anybody can read it."""
    return "\\" not in name and len(name.encode()) <= NAME_BYTES


def _canonical(what: str, text: str) -> str:
    name = unescape(text)
    if not 1 <= len(name) <= NAME_BYTES:
        raise BadInput(
            f"a {what} name has 1 to {NAME_BYTES} bytes, this one {len(name)}: {escape(name[:80])!r}",
            next="choose a shorter name" if name else "give a name",
        )
    return escape(name)


def vg_of(lockspace: str) -> str | None:
    """The VG behind a lockspace name, as lvmlockd names them; None for any other lockspace."""
    if lockspace.startswith(VG_SPACE) and lockspace != GLOBAL_SPACE:
        return lockspace.removeprefix(VG_SPACE)
    return None
