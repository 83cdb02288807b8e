"""What a user of a lock believes, and when it may act on it.

A grip is a belief, true or not: its user acts on it as long as the authority page lets it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ringfence.core.ids import Token
from ringfence.core.modes import Mode


class Holder(Protocol):
    """`host.Host`, as far as its data paths see it."""

    node: int
    name: str
    boots: int
    freezes: int

    @property
    def boot(self) -> str: ...

    def valid(self, incarnation: int, page: str) -> bool: ...

    def lost(self, incarnation: int, page: str) -> bool: ...

    def awake(self, what: Callable[[], None]) -> None: ...


@dataclass(eq=False)
class Grip:
    """A user of a host believes that it holds a lock."""

    host: Holder
    incarnation: int
    client: int
    lock: int
    lockspace: str
    resource: str
    mode: Mode
    token: Token
    session: int = 0
    """Counts the grants of a world, conversions too, in the order in which they were told."""
    page: str = field(init=False)

    def __post_init__(self) -> None:
        vg = self.lockspace.removeprefix("lvm_")
        self.page = f"vg/{vg}" if vg != self.lockspace else "grant"

    @property
    def valid(self) -> bool:
        """Believed under valid authority: it may write at this very moment (or right after a thaw)."""
        return self.host.valid(self.incarnation, self.page)


def conflicts(grips: list[Grip]) -> Iterator[tuple[Grip, Grip]]:
    """Pairs of grips on one resource, by different hosts, that no lock manager may grant together."""
    for index, one in enumerate(grips):
        for other in grips[index + 1 :]:
            if one.host is not other.host and not compatible(one.mode, other.mode):
                yield one, other


_ALLOWED = {
    Mode.NL: "NL CR CW PR PW EX",
    Mode.CR: "NL CR CW PR PW",
    Mode.CW: "NL CR CW",
    Mode.PR: "NL CR PR",
    Mode.PW: "NL CR",
    Mode.EX: "NL",
}
ALLOWED = {one: frozenset(Mode[name] for name in names.split()) for one, names in _ALLOWED.items()}


def compatible(one: Mode, other: Mode) -> bool:
    """Davis, VAXcluster Principles, table 6-1; written down again here, to check the engine's own."""
    return other in ALLOWED[one]


def weaker(one: Mode, other: Mode) -> Mode:
    """The strongest mode that both cover: all that is sure while a conversion is under way."""
    if {one, other} == {Mode.CW, Mode.PR}:
        return Mode.CR
    return min(one, other)
