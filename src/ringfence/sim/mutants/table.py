"""How a rule is taken out of the engine of this process, by name, and put back."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

Change = tuple[Any, str, Any]
"""(owner, attribute, what it is instead)."""


class Mutant(NamedTuple):
    what: str
    """The rule that is missing."""
    story: str
    """Which of `stories`, or which kind of plan, reaches it; "": any does, sooner or later."""
    changes: Callable[[], list[Change]]


MUTANTS: dict[str, Mutant] = {}


def mutant(name: str, what: str, story: str = "") -> Callable[[Callable[[], list[Change]]], None]:
    def add(changes: Callable[[], list[Change]]) -> None:
        assert name not in MUTANTS
        MUTANTS[name] = Mutant(what, story, changes)

    return add


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The engine of this process is that mutant.  Raises KeyError for an unknown name."""
    before = []
    try:
        for owner, attribute, instead in MUTANTS[name].changes():
            before.append((owner, attribute, owner.__dict__[attribute]))
            setattr(owner, attribute, instead)
        yield
    finally:
        for owner, attribute, real in reversed(before):
            setattr(owner, attribute, real)


def engine(mutant: str) -> AbstractContextManager[None]:
    """The engine as that mutant; "": as it is."""
    return planted(mutant) if mutant else nullcontext()
