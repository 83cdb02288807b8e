"""Whose turn it is with a name: whoever comes first goes first, be it with one name or with thousands.

All of somebody's names are taken in one step, or waited for in one.  Each waits only for those who came
before, so nobody waits in a ring."""

import asyncio
from types import TracebackType


class Turns:
    def __init__(self) -> None:
        self._last: dict[str, Turn] = {}
        """The turn of whoever came last, by name; none where nobody has it."""

    def taken(self, name: str) -> bool:
        """Whether somebody has it, or waits for it."""
        return name in self._last

    def of(self, *names: str) -> "Turn":
        """Within it one has these names, and nobody else has one of them.  It counts from this call on, and
        must be entered; where nobody has any of them, that does not wait."""
        turn = Turn(self._last, names)
        self._last.update(dict.fromkeys(names, turn))
        return turn


class Turn:
    """Args:
    last: of all names, with those who came last: before this one.
    names: its own."""

    def __init__(self, last: "dict[str, Turn]", names: tuple[str, ...]) -> None:
        self._last = last
        self._names = names
        self._before = {name: last[name] for name in names if name in last}
        self._ended = asyncio.Event()

    async def __aenter__(self) -> None:
        try:
            await self._comes()
        except BaseException:
            self._end()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._ended.set()
        for name in self._names:
            if self._last.get(name) is self:
                before = self._still_before(name)
                if before is None:
                    del self._last[name]
                else:
                    self._last[name] = before

    async def _comes(self) -> None:
        for one in dict.fromkeys(self._before.values()):
            await one._ended.wait()
            await one._comes()  # it may have given up waiting, and those before it go on
        self._before = {}

    def _still_before(self, name: str) -> "Turn | None":
        """Where this one has given up waiting: the last one before it that has the name, or waits for it."""
        one = self._before.get(name)
        while one is not None and one._ended.is_set():
            one = one._before.get(name)
        return one
