"""What a fence agent says of itself: the XML of its `metadata` action -> its parameters and actions.

Agents have grown two names for most parameters (`ip` was `ipaddr`, `plug` was `port`).  Old ones are folded
into the new: the metadata lists both, one `obsoletes` the other.  In names `-` and `_` are one letter, as the
agents' own library reads them.

The text comes from a program that may be broken or hostile: no entity is expanded, nothing outside is
loaded, sizes are bounded, and what is shown is one line without control characters.

Source: FenceAgentAPI (ClusterLabs fence-agents, doc/FenceAgentAPI.md), lib/metadata.rng; for the names,
lib/fencing.py (`metadata`, `_parse_input_stdin`)."""

import enum
import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element

import msgspec

from ringfence.config.xml_tree import parse_xml
from ringfence.core.errors import BadInput, ConfigError

MOST_BYTES = 1 << 20
MOST_PARAMETERS = 1000
SHORT_CHARS, LONG_CHARS = 200, 4000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BEGIN = re.compile(rb"<\?xml|<!DOCTYPE|<resource-agent")
"""Some agents complain on their output before they begin."""
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")
_YES = ("1", "true", "yes", "on")
YES_NO = (*_YES, "0", "false", "no", "off")
"""What agents take for a boolean; whatever else is given they leave out.  Source: `_parse_input_stdin`."""


class Kind(enum.Enum):
    STRING = "string"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    SECOND = "second"
    SELECT = "select"


class Parameter(msgspec.Struct, frozen=True):
    name: str
    kind: Kind = Kind.STRING
    default: str | None = None
    required: bool = False
    words: str = ""
    """The agent's own, one line."""
    options: tuple[str, ...] = ()
    """What a `select` may be."""
    old_names: tuple[str, ...] = ()


class Action(msgspec.Struct, frozen=True):
    name: str
    automatic: bool = False
    """`on`: to be called whenever the node joins."""
    on_target: bool = False
    """`on`: by the node itself."""


class Metadata(msgspec.Struct, frozen=True):
    name: str
    short: str
    long: str
    parameters: tuple[Parameter, ...]
    """In the agent's order, old names folded in."""
    actions: tuple[Action, ...]

    def parameter(self, name: str) -> Parameter | None:
        """By its name or an old one."""
        wanted = spelled(name)
        for one in self.parameters:
            if wanted in map(spelled, (one.name, *one.old_names)):
                return one
        return None

    def can(self, action: str) -> bool:
        return any(one.name == action for one in self.actions)

    @property
    def unfences_itself(self) -> bool:
        """A node that joins must call `on` for itself, as with persistent reservations."""
        return any(one.name == "on" and one.automatic and one.on_target for one in self.actions)


def spelled(name: str) -> str:
    """One spelling for what an agent takes for one name."""
    return name.replace("-", "_")


def yes(value: str) -> bool:
    """A boolean as agents read it."""
    return value.strip().strip('"').lower() in _YES


def parse_metadata(data: bytes) -> Metadata:
    """
    Raises:
        BadInput: it is no agent's metadata; the message says why, without the agent's name.
    """
    if len(data) > MOST_BYTES:
        raise _no(f"it prints more than {MOST_BYTES >> 20} MiB")
    begin = _BEGIN.search(data)
    if begin is None:
        raise _no("it prints no metadata")
    try:
        root = parse_xml("its metadata", data[begin.start() :])
    except ConfigError as error:
        raise _no(error.message) from None
    if root.tag != "resource-agent":
        raise _no(f"its metadata is a <{_line(root.tag, 40)}>, not a <resource-agent>")
    listed = [_listed(one) for one in root.iterfind("parameters/parameter")]
    if len(listed) > MOST_PARAMETERS:
        raise _no(f"its metadata has more than {MOST_PARAMETERS} parameters")
    actions = {one.get("name", ""): _action(one) for one in root.iterfind("actions/action")}
    if not actions:
        raise _no("its metadata names no action")
    return Metadata(
        _named(root),
        _line(root.get("shortdesc") or root.findtext("shortdesc") or "", SHORT_CHARS),
        _line(root.findtext("longdesc") or "", LONG_CHARS),
        _folded(listed),
        tuple(actions.values()),
    )


def _no(why: str) -> BadInput:
    return BadInput(why, next="run it with -o metadata by hand, or install it anew")


class _Listed(msgspec.Struct, frozen=True):
    """A parameter as it stands in the XML."""

    parameter: Parameter
    deprecated: bool


def _listed(element: Element) -> _Listed:
    content = element.find("content")
    kind = content.get("type", "") if content is not None else ""
    default = content.get("default") if content is not None else None
    obsoletes = re.split(r"[,\s]+", element.get("obsoletes", ""))
    return _Listed(
        Parameter(
            _named(element),
            Kind(kind) if kind in [one.value for one in Kind] else Kind.STRING,
            None if default is None else _line(default, SHORT_CHARS),
            yes(element.get("required", "")),
            _line(element.findtext("shortdesc") or "", SHORT_CHARS),
            tuple(_line(one.get("value", ""), SHORT_CHARS) for one in element.iterfind("content/option")),
            tuple(name for name in obsoletes if _NAME.fullmatch(name)),
        ),
        yes(element.get("deprecated", "")),
    )


def _action(element: Element) -> Action:
    return Action(_named(element), yes(element.get("automatic", "")), yes(element.get("on_target", "")))


def _named(element: Element) -> str:
    name = element.get("name", "")
    if not _NAME.fullmatch(name):
        raise _no(f"its metadata has a {element.tag} called {_line(name, 40)!r}")
    return name


def _folded(listed: list[_Listed]) -> tuple[Parameter, ...]:
    """Each parameter once, under its new name."""
    replaced = {spelled(old) for one in listed for old in one.parameter.old_names}
    first: dict[str, Parameter] = {}
    for one in sorted(listed, key=lambda one: one.deprecated):  # a new spelling goes before an old one
        key = spelled(one.parameter.name)
        if key in first or (one.deprecated and key in replaced):
            continue
        old = tuple(dict.fromkeys(name for name in one.parameter.old_names if spelled(name) != key))
        first[key] = msgspec.structs.replace(one.parameter, old_names=old)
    order = dict.fromkeys(spelled(one.parameter.name) for one in listed)
    return tuple(first[key] for key in order if key in first)


def _line(text: str, most: int) -> str:
    return " ".join(_UNPRINTABLE.sub(" ", text).split())[:most]


def effective_default(metadata: Metadata, key: str, given: Mapping[str, str]) -> str | None:
    """What the agent would use for a parameter: what is given under any of its names, else its default."""
    parameter = metadata.parameter(key)
    names = {spelled(key)} if parameter is None else set(map(spelled, (parameter.name, *parameter.old_names)))
    for name, value in given.items():
        if spelled(name) in names:
            return value
    return parameter.default if parameter is not None else None
