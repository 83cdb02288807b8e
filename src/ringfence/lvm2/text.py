"""The grammar of LVM2's metadata text: parse to a tree, print in LVM2's own layout.

    file    = item*
    item    = key "{" item* "}"  |  key "=" value
    value   = scalar  |  "[" (scalar ("," scalar)*)? "]"
    scalar  = integer | float | "string" | 'string' | word

Nothing is dropped: keys, sections and numbers that this program knows nothing of come back from
`print_text` as they were read, in their order.  Only comments and blank lines are not kept; those
that LVM2 would write are written.  In a "string", backslash quotes a quotation mark or a backslash.
Bytes that are not UTF-8 survive as surrogates.

Source: libdm/libdm-config.c (_section, _value, _get_token, dm_escape_double_quotes) for the grammar;
lib/format_text/export.c (_text_vg_export, _print_vg, _print_pv, _print_lv, out_areas) for the layout."""

import re
from collections.abc import Iterator

import msgspec

from ringfence.core.errors import Damaged

_DEPTH = 24
"""Sections nest five deep in real metadata; a bound keeps damaged text from exhausting the stack."""


class Bare(msgspec.Struct, frozen=True, gc=False):
    """A number in a form of its own (float, hexadecimal, octal), kept as it stood."""

    text: str


Scalar = int | str | Bare
Value = Scalar | tuple[Scalar, ...]


class Section(msgspec.Struct, frozen=True, gc=False):
    """Items in the order of the text."""

    items: "tuple[tuple[str, Value | Section], ...]" = ()

    def get(self, key: str) -> "Value | Section | None":
        for name, node in self.items:
            if name == key:
                return node
        return None

    def number(self, key: str) -> int | None:
        value = self.get(key)
        return value if isinstance(value, int) else None

    def string(self, key: str) -> str | None:
        value = self.get(key)
        return value if isinstance(value, str) else None

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of strings; a lone string counts as a list of one, as in LVM2."""
        value = self.get(key)
        if isinstance(value, str):
            return (value,)
        return tuple(one for one in value if isinstance(one, str)) if isinstance(value, tuple) else ()

    def section(self, key: str) -> "Section | None":
        value = self.get(key)
        return value if isinstance(value, Section) else None

    def sections(self) -> "tuple[tuple[str, Section], ...]":
        return tuple((name, node) for name, node in self.items if isinstance(node, Section))

    def put(self, key: str, node: "Value | Section") -> "Section":
        """With `key` replaced where it stands, or added at the end."""
        if self.get(key) is None:
            return Section((*self.items, (key, node)))
        return Section(tuple((name, node if name == key else old) for name, old in self.items))

    def drop(self, key: str) -> "Section":
        return Section(tuple(item for item in self.items if item[0] != key))


# -- parsing -------------------------------------------------------------------

_TOKEN = re.compile(
    r"""[ \t\r\n\f\v]*(?:\#[^\n]*[ \t\r\n\f\v]*)*
        (?: "(?P<string>[^"\\]*(?:\\.[^"\\]*)*)"
          | '(?P<plain>[^']*)'
          | (?P<mark>[={}\[\],])
          | (?P<word>[^\s\#={}\[\],"']+)
          | (?P<end>\Z)
        )""",
    re.VERBOSE | re.DOTALL,
)
_INTEGER = re.compile(r"(?:0|-?[1-9][0-9]*)\Z", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\Z", re.ASCII)
_ESCAPED = re.compile(r'\\(["\\])')

_Token = tuple[str, str, int]
"""(kind, text, position)."""


def parse_text(data: bytes, where: str) -> Section:
    """Parse metadata text.

    Args:
        where: names the text's source in messages.

    Raises:
        Damaged: with the line where the text stops making sense."""
    text = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
    return _laid_out(text) or _Parser(text, where).file()


_NUMERAL, _QUOTED = "0|-?[1-9][0-9]{0,17}", r'"[^"\\\n]*"'
_EITHER = f"(?:{_NUMERAL}|{_QUOTED})"
_LINE = re.compile(
    rf"""(?P<key>[a-zA-Z0-9_+.@/-]+)
           (?: [ ]=[ ](?: (?P<number>{_NUMERAL})
                        | (?P<string>{_QUOTED})
                        | \[\n?(?P<list>(?:{_EITHER}(?:,[ \n]{_EITHER})*)?)\n?\])
             | (?P<opening>[ ]\{{) )
           (?:[ \t]*\#[^\n]*)?\n
      | (?P<closing>\}}\n)
      | (?P<nothing>(?:\#[^\n]*)?\n)""",
    re.VERBOSE | re.ASCII,
)
_ELEMENT = re.compile(f"({_NUMERAL})|({_QUOTED})", re.ASCII)


def _laid_out(text: str) -> Section | None:
    """A text line by line, as LVM2 and ringfence print one; None: some line of it is not.

    It accepts less than the grammar, and reads what it accepts to the same tree, several times as fast."""
    items: list[tuple[str, Value | Section]] = []
    above: list[tuple[str, list[tuple[str, Value | Section]]]] = []
    at = 0
    while at < len(text):
        line = _LINE.match(text, at)  # no search: that would try at each place of a long line that is none
        if line is None:
            return None
        at, kind = line.end(), line.lastgroup
        if kind == "number":
            items.append((line["key"], int(line["number"])))
        elif kind == "string":
            items.append((line["key"], line["string"][1:-1]))
        elif kind == "list":
            values = _ELEMENT.findall(line["list"])
            items.append((line["key"], tuple(int(one) if one else other[1:-1] for one, other in values)))
        elif kind == "opening":
            above.append((line["key"], items))
            items = []
        elif kind == "closing":
            if not above or len(above) > _DEPTH:
                return None
            section = Section(tuple(items))
            key, items = above.pop()
            items.append((key, section))
    return Section(tuple(items)) if at == len(text) and not above else None


class _Parser:
    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._tokens = self._scan()
        self._next = next(self._tokens)

    def file(self) -> Section:
        section = self._items(0)
        if self._next[0] != "end":
            raise self._error("a closing brace too many")
        return section

    def _scan(self) -> Iterator[_Token]:
        position = 0
        while True:
            match = _TOKEN.match(self._text, position)
            if match is None:
                raise self._error("a string without an end", position)
            kind = match.lastgroup
            assert kind is not None
            yield kind, match[kind], match.start(kind)
            if kind == "end":
                return
            position = match.end()

    def _error(self, what: str, position: int | None = None) -> Damaged:
        at = self._next[2] if position is None else position
        line = self._text.count("\n", 0, at) + 1
        return Damaged(f"{self._where}: the metadata text is damaged in line {line}: {what}")

    def _take(self) -> _Token:
        token = self._next
        if token[0] != "end":
            self._next = next(self._tokens)
        return token

    def _items(self, depth: int) -> Section:
        """Items up to a closing brace or the end, which is left for the caller."""
        if depth > _DEPTH:
            raise self._error("sections nest too deep")
        items: list[tuple[str, Value | Section]] = []
        while self._next[0] in ("word", "string", "plain"):
            kind, raw, _ = self._take()
            key = _unescape(raw) if kind == "string" else raw
            items.append((key, self._node(key, depth)))
        if self._next[0] == "mark" and self._next[1] != "}":
            raise self._error(f"{self._next[1]!r} where a name should be")
        return Section(tuple(items))

    def _node(self, key: str, depth: int) -> "Value | Section":
        kind, mark, _ = self._next
        if kind == "mark" and mark == "{":
            self._take()
            section = self._items(depth + 1)
            if self._take()[1:2] != ("}",):
                raise self._error(f"section {key!r} has no end")
            return section
        if kind == "mark" and mark == "=":
            self._take()
            return self._value()
        raise self._error(f"neither a value nor a section follows {key!r}")

    def _value(self) -> Value:
        if self._next[:2] != ("mark", "["):
            return self._scalar()
        self._take()
        values: list[Scalar] = []
        while self._next[:2] != ("mark", "]"):
            values.append(self._scalar())
            if self._next[:2] == ("mark", ","):
                self._take()
            elif self._next[:2] != ("mark", "]"):
                raise self._error("a list without an end")
        self._take()
        return tuple(values)

    def _scalar(self) -> Scalar:
        kind, raw, _ = self._next
        if kind in ("mark", "end"):
            raise self._error("a value is missing")
        self._take()
        if kind == "string":
            return _unescape(raw)
        if kind == "word" and _INTEGER.match(raw) and len(raw) < 24:
            return int(raw)
        if kind == "word" and _NUMBER.match(raw):
            return Bare(raw)
        return raw


def _unescape(raw: str) -> str:
    return _ESCAPED.sub(r"\1", raw) if "\\" in raw else raw


# -- printing --------------------------------------------------------------------

_PLAIN_KEY = re.compile(r"[a-zA-Z0-9_+.@/-]+\Z", re.ASCII)
_AREA_LISTS = {"stripes": 2, "mirrors": 2, "raids": 2, "raid0_lvs": 1}
"""Lists that LVM2 prints with one area a line, and how many values an area has."""
_LEAD = ("type", "reshape_count", "message1", "use_compression")
"""Keys in segments that a blank line stands before."""


def print_text(tree: Section, generator: str = "ringfence") -> bytes:
    """The text as LVM2 lays it out on disk (no indentation), with its final newline and NUL.

    `parse_text(print_text(tree), …) == tree` for every tree that `parse_text` can return."""
    return _encoded(_print_file(tree, generator)) + b"\0"


def print_ends(frame: Section, generator: str = "ringfence") -> tuple[bytes, bytes]:
    """A text in two, between which the sections of LVs go.

    Args:
        frame: a file whose VG has no LVs; nothing goes between if it has no `logical_volumes` either.

    Returns: what `print_text` prints, without its NUL, cut behind the line `logical_volumes {`."""
    lines = _print_file(frame, generator)
    opening = next((at for at, line in enumerate(lines) if isinstance(line, _Members)), len(lines) - 1)
    head = _encoded([*lines[: opening + 1], ""]) if opening + 1 < len(lines) else _encoded(lines)
    return head, _encoded(lines[opening + 1 :])


def print_member(name: str, member: Section) -> bytes:
    """The section of one LV or PV as it stands in a text, with the blank line before it."""
    lines: list[str] = []
    _print_child(lines, name, member)
    return _encoded([*lines, ""])


def parse_member(data: bytes, where: str) -> tuple[str, Section]:
    """(name, section) of a piece of text that is one LV or PV.

    Raises Damaged: it is anything else."""
    items = parse_text(data, where).items
    if len(items) != 1 or not isinstance(items[0][1], Section):
        raise Damaged(f"{where}: this is not the text of one section")
    return items[0][0], items[0][1]


class _Members(str):
    """The line `logical_volumes {` of a VG."""


def _encoded(lines: list[str]) -> bytes:
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def _print_file(tree: Section, generator: str) -> list[str]:
    lines: list[str] = []
    commented = False
    for key, node in tree.items:
        if isinstance(node, Section):
            _print_vg(lines, key, node)
            continue
        if not commented:
            commented = True
            lines += [f"# Generated by {generator}", ""]
        if key in ("description", "creation_host"):
            lines.append("")
        _print_value(lines, key, node)
    return [*lines, "", ""]


def _print_vg(lines: list[str], name: str, vg: Section) -> None:
    lines.append(f"{_key(name)} {{")
    sections = False
    for key, node in vg.items:
        if not isinstance(node, Section):
            _print_value(lines, key, node)
            continue
        sections = True
        opening = f"{_key(key)} {{"
        lines += ["", _Members(opening) if key == "logical_volumes" else opening]
        for child, body in node.items:
            if isinstance(body, Section):
                _print_child(lines, child, body)
            else:
                _print_value(lines, child, body)
        lines.append("}")
    if sections:
        # LVM2 leaves a blank line where one of these would be.
        lines += ["" for key in ("logical_volumes", "historical_logical_volumes") if vg.get(key) is None]
    lines.append("}")


def _print_child(lines: list[str], name: str, member: Section) -> None:
    lines += ["", f"{_key(name)} {{"]
    _print_member(lines, member)
    lines.append("}")


def _print_member(lines: list[str], member: Section) -> None:
    """The inside of one PV or LV."""
    is_pv = member.get("pe_start") is not None
    segments = False
    for key, node in member.items:
        if isinstance(node, Section):
            if not segments:
                lines.append("")
            segments = True
            lines.append(f"{_key(key)} {{")
            _print_segment(lines, node)
            lines.append("}")
            continue
        if is_pv and key == "status":
            lines.append("")
        _print_value(lines, key, node)


def _print_segment(lines: list[str], segment: Section) -> None:
    before = ""
    for key, node in segment.items:
        if key in _LEAD and before not in _LEAD:
            lines.append("")
        before = key
        if isinstance(node, Section):
            lines.append(f"{_key(key)} {{")
            _print_segment(lines, node)
            lines.append("}")
        elif key in _AREA_LISTS and isinstance(node, tuple) and node:
            each = _AREA_LISTS[key]
            lines += ["", f"{key} = ["]
            rows = [node[at : at + each] for at in range(0, len(node), each)]
            lines.append(",\n".join(", ".join(_scalar(one) for one in row) for row in rows))
            lines.append("]")
        else:
            _print_value(lines, key, node)


def _print_value(lines: list[str], key: str, value: Value) -> None:
    if isinstance(value, tuple):
        lines.append(f"{_key(key)} = [{', '.join(_scalar(one) for one in value)}]")
    else:
        lines.append(f"{_key(key)} = {_scalar(value)}")


def _key(key: str) -> str:
    return key if _PLAIN_KEY.match(key) else _quoted(key)


def _scalar(value: Scalar) -> str:
    if isinstance(value, Bare):
        return value.text
    return str(value) if isinstance(value, int) else _quoted(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
