"""A VG's text cut into a fragment for each LV, and what stands before and behind them.

A VG of thousands of LVs changes by one of them at a time: the fragments of the others are kept as they
are, and only what is new in a text is parsed.  A text is cut only where that is sure to mean the same as
parsing it whole:

* the lines before and behind the LVs are of the plainest kind (`_LINES`), so that no string and no comment
  goes on across the cut, and the only `logical_volumes {` among them is the one that is cut behind;
* each fragment ends with the line `}`, and is a section of its own to the parser (`text.parse_member`), so
  that no token of it goes on in the next.

Whoever reads the fragments sees to the second; all other texts are parsed whole.

Source: LVM2 lib/format_text/export.c (_print_vg, _print_lvs: LVs are followed by historical LVs, if any)."""

import re

import msgspec

_WORD = rb"[a-zA-Z0-9_+.@/-]+"
_STRING = rb'"(?:[^"\\\n]|\\["\\])*"'
_SCALAR = rb"(?:-?[0-9]+|" + _STRING + rb")"
_LIST = rb"\[(?:" + _SCALAR + rb"(?:, " + _SCALAR + rb")*)?\]"
_COMMENT = rb"#[^\n]*"
_ENTRY = _WORD + rb" (?:\{|= (?:" + _SCALAR + rb"|" + _LIST + rb"))(?:\t" + _COMMENT + rb")?"
"""LVM2 puts its comments behind a tab."""
_LINES = re.compile(rb"(?:(?:" + _COMMENT + rb"|\}|" + _ENTRY + rb")?\n)*")
_OPENING = b"\nlogical_volumes {\n"
_END = b"\n}\n}\n"
"""Of an LV: of its last segment, and its own."""
_BETWEEN = _END + b"\n"
_HISTORICAL = _END + b"}\n\nhistorical_logical_volumes {\n"
_LAST = _END + b"}\n\n}\n"
"""The end of the last LV, of the section of LVs, and of the VG."""


class Cut(msgspec.Struct, frozen=True):
    head: bytes
    """Up to and with the line `logical_volumes {`; the whole text where there is none."""
    fragments: list[bytes]
    """Each begins with the blank line before an LV's name."""
    tail: bytes


def cut(text: bytes) -> Cut | None:
    """Cut a text (without its NUL) that is laid out as LVM2 does it.  None: it is not."""
    opening = text.find(_OPENING)
    if opening < 0:
        return Cut(text, [], b"") if sound_ends(text, b"") else None
    begin = opening + len(_OPENING)
    end = _end(text, begin)
    head, tail = text[:begin], text[end:]
    if end < begin or not sound_ends(head, tail):
        return None
    first, *others = text[begin : end - len(_END)].removeprefix(b"\n").split(_BETWEEN)
    return Cut(head, [b"\n%b%b" % (piece, _END) for piece in (first, *others)], tail)


def sound_ends(head: bytes, tail: bytes) -> bool:
    """Whether LVs may stand between them, or have no place there (no tail, and no section for LVs)."""
    has_place = head.endswith(_OPENING) and head.count(_OPENING) == 1 and _OPENING not in tail
    none = not tail and _OPENING not in head
    return (has_place or none) and _LINES.fullmatch(head) is not None and _LINES.fullmatch(tail) is not None


def _end(text: bytes, begin: int) -> int:
    """Where the LVs end; -1: who knows."""
    at = text.find(_HISTORICAL, begin)
    if at < 0:
        at = text.rfind(_LAST, begin)
    return at + len(_END) if at >= 0 else -1
