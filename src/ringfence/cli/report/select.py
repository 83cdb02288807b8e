"""-S: which rows are reported.

    EXPRESSION := AND { ('||' | '#') AND }        AND := ONE { ('&&' | ',') ONE }
    ONE := '(' EXPRESSION ')' | '!' '(' EXPRESSION ')' | FIELD OPERATOR VALUE

Operators: = != for all, =~ !~ (regular expression) for strings and lists, > >= < <= for numbers, sizes,
percentages and times, since after until before for times.  A list is [A,B] (exactly these), [A||B] (any of
them), {A,B} ... (a subset: any, with && all).  Sizes are in MiB where they have no unit.

A value ends at a blank, a logical operator or `)`, also the one of a regular expression, unless it is quoted.

Source: lvmreport(7), "Selection"; LVM2 libdm/libdm-report.c (_parse_selection, _tok_value, _cmp_field_*)."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ringfence.cli.report import fields as known
from ringfence.cli.report.fields import BINARY, LIST, NUMBER, PERCENT, SIZE, STRING, TIME, Field
from ringfence.cli.report.values import NAMES, NUMBER_WORDS, UNDEFINED, UNKNOWN, WORDS, items, number
from ringfence.core.errors import BadInput

if TYPE_CHECKING:
    from ringfence.cli.report.moments import Moment

_COMPARISONS = ("=~", "!~", "=", "!=", ">=", ">", "<=", "<", "since", "after", "until", "before")
_TIMES = {"since": ">=", "after": ">", "until": "<=", "before": "<"}
_AND, _OR = ("&&", ","), ("||", "#")
_LETTERS = "kmgtpe"
_NUMERIC = (NUMBER, SIZE, PERCENT, BINARY)

Find = Callable[[str], Field | None]
Test = Callable[[Any], bool]


class Item(NamedTuple):
    """FIELD OPERATOR VALUE."""

    field: Field
    passes: Test
    """Of a raw value."""


class Node(NamedTuple):
    """`all` or any of the parts; `negated`: not so."""

    all: bool
    parts: tuple["Node | Item", ...]
    negated: bool = False

    @property
    def fields(self) -> list[Field]:
        """Those that it looks at."""
        found: list[Field] = []
        for part in self.parts:
            found += [part.field] if isinstance(part, Item) else part.fields
        return found


def parse_selection(text: str, find: Find) -> Node | None:
    """None selects all.  Raises BadInput, with the place where it is wrong."""
    if not text or text.lower() == "all":
        return None
    parser = _Parser(text, find)
    node = parser.any()
    parser.blanks()
    if parser.at < len(text):
        raise parser.wrong("Expecting logical operator")
    return node


def selected(node: Node | Item, values: Callable[[Field], Sequence[Any]]) -> list[bool]:
    """For each row, whether it passes.  Args: values: a field's raw values, one a row."""
    if isinstance(node, Item):
        known: dict[Any, bool] = {}
        found = []
        for value in values(node.field):
            key = value if type(value) is not list else tuple(value)
            if key not in known:
                known[key] = node.passes(value)
            found.append(known[key])
        return found
    parts = [selected(part, values) for part in node.parts]
    decide = all if node.all else any
    return [decide(row) is not node.negated for row in zip(*parts, strict=True)]


class _Parser:
    def __init__(self, text: str, find: Find) -> None:
        self.text = text
        self.at = 0
        self._find = find

    def wrong(self, what: str, at: int | None = None) -> BadInput:
        place = self.text[self.at if at is None else at :]
        return BadInput(
            f"{what}; selection syntax error at '{place}'",
            next="lvmreport(7) has the grammar, `-o help` the fields",
            code=known.BAD_FIELD,
        )

    def blanks(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def takes(self, *words: str) -> str:
        """One of these, if it stands here."""
        self.blanks()
        for word in words:
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return word
        return ""

    # -- the tree ---------------------------------------------------------------

    def any(self) -> Node:
        parts = [self._all()]
        while self.takes(*_OR):
            parts.append(self._all())
        return Node(False, tuple(parts))

    def _all(self) -> Node:
        parts = [self._one()]
        while self.takes(*_AND):
            parts.append(self._one())
        return Node(True, tuple(parts))

    def _one(self) -> Node | Item:
        negated = bool(self.takes("!"))
        if self.takes("("):
            inner = self.any()
            if not self.takes(")"):
                raise self.wrong("right parenthesis expected")
            return inner._replace(negated=negated)
        if negated:
            raise self.wrong("left parenthesis expected")
        return self._item()

    def _item(self) -> Item:
        self.blanks()
        begin = self.at
        while self.at < len(self.text) and (
            (self.text[self.at].isalnum() and self.text[self.at].isascii()) or self.text[self.at] in "_-"
        ):
            self.at += 1
        name = self.text[begin : self.at]
        if not name:
            raise self.wrong("Expecting field name")
        field = self._find(name)
        if name in known.HELP or field is None:
            raise self.wrong(f"Unrecognised selection field: {name}", begin)
        operator = self.takes(*_COMPARISONS)
        if not operator:
            raise self.wrong(f"Unrecognised comparison operator: {self.text[self.at :]}", begin)
        if operator in ("=~", "!~"):
            return Item(field, self._regex(field, operator == "!~", begin))
        if operator in _TIMES and field.kind != TIME:
            raise self.wrong(f"Operator can be used only with time fields: {name}", begin)
        if operator not in ("=", "!=") and field.kind not in (*_NUMERIC, TIME):
            raise self.wrong(
                f"Operator can be used only with number, size, time or percent fields: {name}", begin
            )
        self.blanks()
        return Item(field, self._value(field, _TIMES.get(operator, operator), begin))

    # -- values -------------------------------------------------------------------

    def _value(self, field: Field, operator: str, begin: int) -> Test:
        reserved = self._reserved(field)
        if reserved is not None:
            return _comparison(field, operator, reserved, reserved)
        if field.kind == STRING:
            text = self._word(begin)
            return lambda value: (str(value or "") == text) is (operator == "=")
        if field.kind == LIST:
            return self._list(operator == "!=", begin)
        if field.kind == TIME:
            moment = self._moment(field, begin)
            return _comparison(field, operator, moment.first_s, moment.last_s)
        amount = self._amount(field, begin)
        return _comparison(field, operator, amount, amount)

    def _reserved(self, field: Field) -> Any:
        """What a reserved word stands for, if one stands here.  It may be quoted."""
        begin = self.at
        try:
            word = self._word(begin)
        except BadInput:
            self.at = begin
            return None
        if word in NAMES.get(field.name, {}):
            return NAMES[field.name][word]
        if field.kind in (NUMBER, BINARY) and word in UNKNOWN:
            return UNDEFINED
        if field.kind == BINARY and word in ("", *WORDS.get(field.name, ())):
            return int(bool(word)) if word else None
        if NUMBER_WORDS.get(field.name) == word:
            return UNDEFINED
        self.at = begin
        return None

    def _quote(self) -> str:
        quote = self.text[self.at : self.at + 1]
        if quote not in ('"', "'") or not quote:
            return ""
        self.at += 1
        return quote

    def _word(self, begin: int, ends: Sequence[str] = (*_AND, *_OR, ")")) -> str:
        """To the closing quote, or to a blank, a logical operator or a parenthesis."""
        return self._until(self._quote(), begin, ends)

    def _until(self, end: str, begin: int, ends: Sequence[str]) -> str:
        start = self.at
        if end:
            close = self.text.find(end, start)
            if close < 0:
                raise self.wrong("Missing end quote", begin)
            self.at = close + 1
            return self.text[start:close]
        while self.at < len(self.text):
            if self.text[self.at] == " " or any(self.text.startswith(one, self.at) for one in ends):
                break
            self.at += 1
        return self.text[start : self.at]

    def _regex(self, field: Field, negated: bool, begin: int) -> Test:
        if field.kind != STRING:
            raise self.wrong(f"a regular expression needs a string field, not {field.name}", begin)
        self.blanks()
        if self.at == len(self.text):
            raise self.wrong(f"Regular expression expected for selection field {field.name}", begin)
        close = {"(": ")", "{": "}", "[": "]", '"': '"', "'": "'"}.get(self.text[self.at], "")
        self.at += bool(close)
        pattern = self._until(close, begin, (*_AND, *_OR, ")"))
        try:
            search = re.compile(pattern).search
        except re.error as error:
            raise self.wrong(f"{pattern!r} is no regular expression ({error})", begin) from None
        return lambda value: (search(str(value or "")) is None) is negated

    def _list(self, negated: bool, begin: int) -> Test:
        bracket = self.takes("[", "{")
        if not bracket:
            word = self._word(begin)
            return lambda value: (word in (items(value) or [""])) is not negated
        words, joint = [], ""
        while True:
            self.blanks()
            words.append(self._word(begin, (*_AND, *_OR, "]", "}")))
            found = self.takes(*_AND, *_OR, "]", "}")
            if found in ("]", "}"):
                if found != {"[": "]", "{": "}"}[bracket]:
                    raise self.wrong("List ended with incorrect character", begin)
                break
            if not found:
                raise self.wrong("Missing list end, or an invalid operator in it", begin)
            kind = "all" if found in _AND else "any"
            if joint not in ("", kind):
                raise self.wrong("Only one type of logical operator allowed in a list at a time", begin)
            joint = kind
        wanted = sorted(words)
        every = (joint or ("all" if bracket == "[" else "any")) == "all"
        exact = bracket == "["
        return lambda value: _in_list(items(value), wanted, every, exact) is not negated

    def _amount(self, field: Field, begin: int) -> float:
        start, point = self.at, False
        while self.at < len(self.text) and (
            self.text[self.at] in "0123456789" or (self.text[self.at] == "." and not point)
        ):
            point = point or self.text[self.at] == "."
            self.at += 1
        digits = self.text[start : self.at]
        if not digits.strip("."):
            raise self.wrong(f"Failed to parse numeric value for selection field {field.name}", begin)
        if self.text.startswith("%", self.at):
            self.at += 1
            if field.kind != PERCENT:
                raise self.wrong(f"Found percent value for selection field {field.name}", begin)
        elif factor := self._unit():
            if field.kind != SIZE:
                raise self.wrong(f"Found size unit specifier for selection field {field.name}", begin)
            return float(digits) * factor
        if field.kind == SIZE:
            return float(digits) * (1 << 20)
        if field.kind == PERCENT:
            if float(digits) > 100:
                raise self.wrong(f"Percentage {digits} is out of range for field {field.name}", begin)
            return float(digits)
        if int(digits.partition(".")[0] or 0) >= UNDEFINED:
            raise self.wrong(f"Numeric value {digits} is out of range for field {field.name}", begin)
        return int(digits.partition(".")[0] or 0)

    def _unit(self) -> int:
        """Bytes of the unit that stands here; capitals count in thousands.  0: none does."""
        letter = self.text[self.at : self.at + 1]
        if not letter or letter.lower() not in "bs" + _LETTERS:
            return 0
        self.at += 1
        if letter.lower() in "bs":
            return 1 if letter.lower() == "b" else 512
        base = 1000 if letter.isupper() else 1024
        return int(base ** (_LETTERS.index(letter.lower()) + 1))

    def _moment(self, field: Field, begin: int) -> "Moment":
        from ringfence.cli.report.moments import Moment, parse_moment  # loads datetime

        if self.text.startswith("@", self.at):
            self.at += 1
            start = self.at
            while self.text[self.at : self.at + 1].isdigit():
                self.at += 1
            if start == self.at:
                raise self.wrong(f"Failed to parse time value for selection field {field.name}", begin)
            second = int(self.text[start : self.at])
            return Moment(second, second)
        text = self._word(begin)
        try:
            return parse_moment(text)
        except ValueError as error:
            what = f"Failed to parse time value for selection field {field.name} ({error})"
            raise self.wrong(what, begin) from None


def _in_list(have: list[str], wanted: list[str], every: bool, exact: bool) -> bool:
    if not have:
        return wanted == [""] if every else "" in wanted
    if not every:
        return any(one in have for one in wanted)
    return have == wanted if exact else all(one in have for one in wanted)


def _comparison(field: Field, operator: str, first: Any, last: Any) -> Test:
    """first and last: the ends of a stretch of time; else the same."""
    if isinstance(first, str):
        return lambda value: (str(value or "") == first) is (operator == "=")

    def passes(value: Any) -> bool:
        if field.kind == PERCENT and not isinstance(value, int | float):
            return False
        have = number(field, value)
        if operator in ("=", "!="):
            return (first <= have <= last) is (operator == "=")
        if have == UNDEFINED and field.kind in (NUMBER, BINARY):
            return False  # what there is not is neither more nor less
        if operator == ">":
            return bool(have > last)
        if operator == ">=":
            return bool(have >= first)
        return bool(have < first) if operator == "<" else bool(have <= last)

    return passes
