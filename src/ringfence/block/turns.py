"""Whose turn it is with a name: whoever comes first goes first, be it with one name or with thousands.

All of somebody's names are taken in one step, or waited for in one.  Each waits only for those who came
before, so nobody waits in a ring."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Turns:
    def __init__(self) -> None:
        self._last: dict[str, _Turn] = {}
        """The turn of whoever came last, by name; none where nobody has it."""

    def taken(self, name: str) -> bool:
        """Whether somebody has it, or waits for it."""
        return name in self._last

    @contextlib.asynccontextmanager
    async def of(self, *names: str) -> AsyncIterator[None]:
        """Have these names, and nobody else has one of them.  Where nobody has any, this does not wait."""
        turn = _Turn({name: self._last[name] for name in names if name in self._last})
        self._last.update(dict.fromkeys(names, turn))
        try:
            await turn.comes()
            yield
        finally:
            turn.ended.set()
            for name in names:
                if self._last.get(name) is turn:
                    before = turn.still_before(name)
                    if before is None:
                        del self._last[name]
                    else:
                        self._last[name] = before


class _Turn:
    """Args: before: whoever came last before it, by name."""

    def __init__(self, before: "dict[str, _Turn]") -> None:
        self._before = before
        self.ended = asyncio.Event()

    async def comes(self) -> None:
        for one in dict.fromkeys(self._before.values()):
            await one.ended.wait()
            await one.comes()  # it may have given up waiting, and those before it go on
        self._before = {}

    def still_before(self, name: str) -> "_Turn | None":
        """Where this one has given up waiting: the last one before it that has the name, or waits for it."""
        one = self._before.get(name)
        while one is not None and one.ended.is_set():
            one = one._before.get(name)
        return one
