"""A command line, taken apart by a verb's table.

As getopt_long(3) does it for LVM2: options and names in any order, short options in one word (-ff, -an),
values in the same word or in the next one, whatever that begins with (-l +50%FREE, -O -lv_size), long options
as short as they are unmistakable, `--` ends them."""

from __future__ import annotations

from ringfence.cli.verbs.table import EVERYWHERE, Given, Option, Stock, Verb
from ringfence.core.errors import BadInput, RingfenceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any


class Found:
    """One option or name of a command line."""

    __slots__ = ("option", "typed", "value", "words")

    def __init__(
        self, option: Option | Stock | None, typed: str, value: str, words: tuple[str, ...]
    ) -> None:
        self.option = option
        """None: a name."""
        self.typed = typed
        """The option's name as it was typed."""
        self.value = value
        self.words = words


def understand(verb: Verb, words: Sequence[str]) -> Given:
    """Raises BadInput with the code "bad-command"; and for an option that is left to stock LVM2, with the
    command that does it."""
    values: dict[str, Any] = {
        option.key: () if option.many else option.default if option.metavar else 0
        for option in _every(verb)
        if isinstance(option, Option)
    }
    names: list[str] = []
    lvm: list[str] = []
    stock: Stock | None = None
    found = list(_taken_apart(verb, words))
    if any(one.option is not None and "--help" in one.option.names for one in found):
        values["help"] = 1
        return Given((), values)
    for one in found:
        if not (isinstance(one.option, Option) and one.option.ours):
            lvm += one.words
        if one.option is None:
            names.append(one.value)
        elif isinstance(one.option, Stock):
            stock = stock or one.option
        elif not one.option.metavar:
            values[one.option.key] += 1
    if stock is not None:
        raise left_to_stock(verb.name, stock.what, lvm)
    once: set[str] = set()
    for one in found:
        if isinstance(one.option, Option) and one.option.metavar:
            if one.option.key in once and not one.option.many:
                raise wrong(verb, f"Option {'/'.join(one.option.names)} may not be repeated")
            once.add(one.option.key)
            try:
                value = one.option.convert(one.value)
            except LeftToStock as error:
                raise left_to_stock(verb.name, error.what, lvm) from None
            except RingfenceError as error:
                raise wrong(verb, f"Invalid value for {one.typed}: {error.message}", error.next) from None
            values[one.option.key] = (*values[one.option.key], value) if one.option.many else value
    if len(names) < verb.least and not values.get("select"):
        raise wrong(verb, f"Missing argument {verb.usage.split()[len(names)]!r}")
    if verb.most is not None and len(names) > verb.most:
        raise wrong(verb, f"Got unexpected extra argument ({names[verb.most]})")
    return Given(_named(verb, names), values)


class LeftToStock(RingfenceError):
    """A value of an option that only stock LVM2 can do."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def left_to_stock(name: str, what: str, words: Sequence[str]) -> BadInput:
    import shlex  # loads `re`; only a person who is refused waits for it

    line = shlex.join(["lvm", name, *words])
    return BadInput(
        f"{what}: left to stock LVM2, whose locks ringfence serves", next=f"run: {line}", code="left-to-lvm2"
    )


def wrong(verb: Verb, message: str, cure: str = "") -> BadInput:
    cure = f"{cure}; " if cure else ""
    return BadInput(
        f"ringfence {verb.name}: {message}",
        next=f"{cure}see `ringfence {verb.name} --help`", code="bad-command",
    )  # fmt: skip


def _taken_apart(verb: Verb, words: Sequence[str]) -> Iterator[Found]:
    at = 0
    while at < len(words):
        word, at = words[at], at + 1
        if word == "--":
            yield from (Found(None, "", one, (one,)) for one in words[at:])
            return
        if word.startswith("--"):
            name, has, value = word.partition("=")
            option = _long(verb, name)
            if takes_value(option) and not has:
                value, at = _next(verb, words, at, name), at + 1
                yield Found(option, name, value, (word, value))
            elif has and not takes_value(option):
                raise wrong(verb, f"Option {name} does not take a value")
            else:
                yield Found(option, name, value, (word,))
        elif word.startswith("-") and len(word) > 1:
            letters, first = word[1:], at
            while letters:
                name, letters = "-" + letters[0], letters[1:]
                option = _short(verb, name)
                if takes_value(option):
                    value = letters
                    if not value:
                        value, at = _next(verb, words, at, name), at + 1
                    letters = ""
                else:
                    value = ""
                whole = (word, *words[first:at]) if not letters else ()
                yield Found(option, name, value, whole)
        else:
            yield Found(None, "", word, (word,))


def _named(verb: Verb, words: Sequence[str]) -> tuple[str, ...]:
    """VGs and LVs that are given as devices get their names; PVs are devices.

    A VG that may be left out (lvcreate's) is not told from a PV here."""
    places = verb.usage.split()
    each = zip(words, [*places, *places[-1:] * len(words)], strict=False)
    return tuple(
        bare(word) if place.lstrip("[").startswith("VG") and place != "[VG]" else word for word, place in each
    )


def bare(word: str) -> str:
    """VG/LV, or VG, of the path of its device: /dev/VG/LV, or /dev/mapper/VG-LV as df and mount show it.

    Any other word is given back as it is.  Source: lvm(8): in mapped names a hyphen of a name is doubled."""
    mapped = word.removeprefix("/dev/mapper/")
    if mapped == word:
        return word.removeprefix("/dev/")
    # No name has a slash: it stands for doubled hyphens until those between the names are found.
    return "/".join(name.replace("/", "-") for name in mapped.replace("--", "/").split("-"))


def takes_value(option: Option | Stock) -> bool:
    return option.value if isinstance(option, Stock) else bool(option.metavar)


def _next(verb: Verb, words: Sequence[str], at: int, name: str) -> str:
    if at == len(words):
        raise wrong(verb, f"Option {name} requires a value")
    return words[at]


def _every(verb: Verb) -> tuple[Option | Stock, ...]:
    own: tuple[Option | Stock, ...] = (*verb.options, *verb.stock)
    names = {name for one in own for name in one.names}
    return (*own, *(one for one in EVERYWHERE if names.isdisjoint(one.names)))


def _short(verb: Verb, name: str) -> Option | Stock:
    for option in _every(verb):
        if name in option.names:
            return option
    raise wrong(verb, f"No such option '{name}'")


def _long(verb: Verb, name: str) -> Option | Stock:
    meant = []
    for option in _every(verb):
        for known in option.names:
            if known == name:
                return option
            if known.startswith(name) and known.startswith("--") and option not in meant:
                meant.append(option)
    if len(meant) == 1:
        return meant[0]
    if meant:
        options = ", ".join(known for option in meant for known in option.names if known.startswith(name))
        raise wrong(verb, f"Option {name} could be any of {options}")
    raise wrong(verb, f"No such option '{name}'")
