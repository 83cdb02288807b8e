"""What a verb's entry in the table is made of.

Everything that is said of a verb is made of its entry: how it is parsed (`words`), `--help` and the documents
(`help`), completion (`tree`), and what is asked of the daemon."""

from __future__ import annotations

TYPE_CHECKING = False  # what is only for types takes longer to load than a command
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from typing import Any, TypeAlias

    from ringfence.client.brief import Brief, Call

Convert: TypeAlias = "Callable[[str], Any]"
"""From a word to a value.  Raises BadInput."""


class Option:
    __slots__ = ("choices", "convert", "default", "help", "key", "many", "metavar", "names", "ours")

    def __init__(
        self,
        key: str,
        names: tuple[str, ...],
        help: str,
        metavar: str = "",
        convert: Convert = str,
        default: Any = None,
        many: bool = False,
        ours: bool = False,
        choices: tuple[str, ...] = (),
    ) -> None:
        self.key = key
        """Of its value in `Given`."""
        self.names = names
        """Short names first, as `-L`, then long ones."""
        self.help = help
        self.metavar = metavar
        """Empty: it takes no value, and counts how often it was given."""
        self.convert = convert
        self.default = default
        self.many = many
        """Each value counts, not the last one alone."""
        self.ours = ours
        """Not one of LVM2's."""
        self.choices = choices
        """For completion."""

    def saying(self, help: str) -> Option:
        """The same with another help."""
        return Option(
            self.key, self.names, help, self.metavar, self.convert, self.default, self.many, self.ours,
            self.choices,
        )  # fmt: skip


class Stock:
    """An option of LVM2's that is left to stock LVM2."""

    __slots__ = ("names", "value", "what")

    def __init__(self, names: tuple[str, ...], what: str, value: bool = True) -> None:
        self.names = names
        self.what = what
        """What it is for, as a person calls it."""
        self.value = value
        """Whether a value follows."""


class Given:
    """What was typed, understood: given["size"] is an option's value."""

    __slots__ = ("_values", "names")

    def __init__(self, names: tuple[str, ...], values: dict[str, Any]) -> None:
        self.names = names
        """What is no option."""
        self._values = values

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def has(self, key: str) -> bool:
        """Whether the verb has that option, and it was given."""
        return bool(self._values.get(key))

    def of(self, names: tuple[str, ...]) -> Given:
        """The same about other names."""
        return Given(names, self._values)


Work: TypeAlias = "list[tuple[str, Call]]"
"""What to ask for, one after the other, each with the name that it is about."""
Plan: TypeAlias = "Callable[[Given], Work]"
"""Raises BadInput for what cannot be meant."""
Expand: TypeAlias = "Callable[[Brief, Work], Work]"
"""Fills in what only the daemon knows."""
Run: TypeAlias = "Callable[[Given], int]"
After: TypeAlias = "Callable[[Given, dict[str, Any]], dict[str, Any]]"
"""What this host does when the daemon has done its part; the result, and what to say beside it."""


During: TypeAlias = "Callable[[Given, Brief], AbstractContextManager[None]]"
"""What a person is told while the daemon works; it gets a daemon of its own to ask."""


class Verb:
    __slots__ = (
        "about", "after", "during", "examples", "expand", "least", "most", "name", "names", "options", "plan",
        "run", "stock", "summary", "usage",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        summary: str,
        usage: str,
        options: tuple[Option, ...],
        plan: Plan | None = None,
        about: str = "",
        examples: tuple[tuple[str, str], ...] = (),
        least: int = 0,
        most: int | None = None,
        stock: tuple[Stock, ...] = (),
        expand: Expand | None = None,
        run: Run | None = None,
        after: After | None = None,
        during: During | None = None,
        names: str = "",
    ) -> None:
        self.name = name
        self.summary = summary
        """One line with a full stop."""
        self.usage = usage
        """Behind the options: "VG [PV...]"."""
        self.options = options
        self.plan = plan
        """Of a verb that changes something; else `run`."""
        self.about = about
        """More than the summary says."""
        self.examples = examples
        """Command line (without `ringfence`), and what it does."""
        self.least = least
        self.most = most
        """Bounds of the number of names; None: any number."""
        self.stock = stock
        self.expand = expand
        self.run = run
        self.after = after
        self.during = during
        self.names = names
        """What the names are, for completion: vg, lv, pv or path."""


SOCKET = Option(
    "socket", ("--socket",), "The daemon's socket.  [default: $RINGFENCE_SOCKET]", "PATH", ours=True
)
ROOT = Option(
    "root", ("--root",), "All places below this directory.  [default: that of $RINGFENCE_SOCKET, or /]",
    "PATH", ours=True,
)  # fmt: skip
HELP = Option("help", ("-h", "-?", "--help", "--longhelp"), "Show this and end.")
JSON = Option("json", ("--json",), "Print one JSON object.", ours=True)
VERBOSE = Option("verbose", ("-v", "--verbose"), "Say more.")
QUIET = Option("quiet", ("-q", "--quiet"), "Print no messages, errors excepted.")
TEST = Option("test", ("-t", "--test"), "Not served where something would be changed; refused then.")
YES = Option("yes", ("-y", "--yes"), "Answer yes to LVM2's questions.")
BACKUP = Option(
    "autobackup", ("-A", "--autobackup"), "Taken from LVM2's scripts; nothing depends on it.", "y|n"
)

SELECT = Option(
    "select", ("-S", "--select"), "Only what passes, as in lvmreport(7); names may be left out then.",
    "SELECTION", default="",
)  # fmt: skip

DAEMON = (SOCKET, ROOT)
CHANGE = (YES, VERBOSE, QUIET, TEST, BACKUP, JSON, *DAEMON, HELP)
"""Options of every verb that changes something."""


_NONE = "Taken from LVM2's scripts; nothing depends on it."
EVERYWHERE = (
    Option("debug", ("-d", "--debug"), _NONE), Option("nohints", ("--nohints",), _NONE),
    Option("journal", ("--journal",), _NONE, "WHAT"),
    Option("driverloaded", ("--driverloaded",), _NONE, "y|n"),
    Stock(("--config",), "another configuration"), Stock(("--commandprofile",), "profiles"),
    Stock(("--profile",), "profiles"), Stock(("--devices",), "other devices"),
    Stock(("--devicesfile",), "other devices"), Stock(("--lockopt",), "options of its locks"),
    Stock(("--nolocking",), "a command without locks", False), Stock(("--version",), "its version", False),
    Stock(("-S", "--select"), "a selection"), Stock(("--reportformat",), "its log as JSON"),
    Stock(("--configreport",), "its log as a report"), Stock(("--logonly",), "its log as a report", False),
)  # fmt: skip
"""What LVM2 takes with every command, where a verb's own table does not have it."""


def ignored(*names: str, metavar: str = "") -> Option:
    """An option that LVM2 has, and that means nothing here."""
    return Option(names[-1].lstrip("-"), names, _NONE, metavar)


def call(name: str, **fields: Any) -> Call:
    """A call of `wire.client`.  Fields that are None are left out: they have the default then."""
    return {"type": name, **{key: value for key, value in fields.items() if value is not None}}


def find(options: Sequence[Option], key: str) -> Option:
    return next(option for option in options if option.key == key)
