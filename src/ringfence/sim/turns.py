"""When a host's block service gets to an order, which may be late; and whether it is carried out by then.

As `block.service` promises, and no more: orders about one LV wait for one another in the order in which they
came (`Turns.of`), and each is looked at when its turn comes (`_check_still`).  One of a daemon that was
succeeded is refused, and so is one that was given before all paths were dropped.  What a daemon has ordered
that is gone, and not succeeded yet, is carried out."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ringfence.core.errors import Refused
from ringfence.engine import orders

Done = Callable[[object], None]


class Giver(msgspec.Struct, frozen=True):
    """Who gave an order, and when, as the service tells them apart."""

    incarnation: int
    """Of the life whose page a path gets."""
    daemon: int
    """Counts the daemons of a host."""
    drops: int
    """How often all paths had been dropped by then."""


@dataclass(eq=False)
class Asked:
    body: orders.BlockOrder
    giver: Giver
    done: Done
    due: bool = False
    """The service has got to it, as far as it alone is concerned."""
    begun: bool = False

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """The LVs whose turn it needs."""
        match self.body:
            case orders.OpenPaths():
                return ()
            case orders.ReloadPath(vg=vg, lv=lv, name=name):
                return (vg, lv), (vg, name)
            case orders.PathsTogether():
                raise AssertionError("each of them has a turn of its own")
            case one:
                return ((one.vg, one.lv),)


class Turns:
    """Args: begin: carries an order out, and then calls `ended`."""

    def __init__(self, begin: Callable[[Asked], None]) -> None:
        self._begin = begin
        self._asked: list[Asked] = []
        """In the order in which they came, those that are under way too."""
        self.floor = 0
        """What an earlier daemon than this has ordered is refused."""
        self.drops = 0

    @property
    def reloads(self) -> bool:
        """Whether a path is being reloaded: what is open, and how, is not to be told before that is over."""
        return any(one.begun and isinstance(one.body, orders.ReloadPath) for one in self._asked)

    def check_still(self, giver: Giver) -> None:
        """Raises Refused: the daemon, or its life, is over."""
        if giver.daemon < self.floor:
            raise Refused("a later daemon has taken over", next="let this one end: one daemon a host")
        if giver.drops != self.drops:
            raise Refused("it was left alone: all paths were dropped meanwhile", retry=True)

    def add(self, asked: Asked) -> None:
        """Its turn counts from now on; it comes once it is `due`."""
        self._asked.append(asked)

    def due(self, asked: Asked) -> None:
        if asked in self._asked:
            asked.due = True
            self._go_on()

    def ended(self, asked: Asked) -> None:
        if asked in self._asked:
            self._asked.remove(asked)
            self._go_on()

    def stop(self) -> None:
        """The host has no power: what was not done is never done."""
        self._asked = []

    def _go_on(self) -> None:
        taken: list[tuple[str, str]] = []
        for one in self._asked.copy():
            names = one.names
            if one.due and not one.begun and not any(name in taken for name in names):
                one.begun = True
                self._begin(one)
            taken += names
