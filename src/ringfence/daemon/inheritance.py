"""What an earlier daemon of this host left behind: open data paths, and the authority pages under them.

A daemon that was killed leaves its data paths to the block service, each under a page whose deadline
ends by itself.  The next daemon takes the service over first: from then on nothing is opened for the
one that is gone.  What is open then is left as it is if every path may be adopted; the cluster decides
whether it will be.  Otherwise, and where nothing is known, all authority is taken away before the paths
are closed."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import TypeVar

from ringfence.block.control import BlockService
from ringfence.core.errors import DeviceFailed, RingfenceError, Unavailable
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.engine.commands.locking import space_of
from ringfence.engine.inputs import LeftOpen
from ringfence.host.pages import LOST_NS, UNCHECKED_NS, PageReader, Pages, page_of, page_path
from ringfence.wire import block as wire
from ringfence.wire.ring import OpenLock

ANSWER_S = 5.0
"""How long to wait for the block service at the start; later the engine goes on asking."""
RETRY_S = 0.1
ALL_INCARNATIONS = 1 << 63

Answer = TypeVar("Answer")
Say = Callable[[str], None]


async def take_over(
    service: BlockService, authority: Path, last: int, say: Say
) -> tuple[LeftOpen, ...] | None:
    """Take the block service over from earlier daemons.

    Args:
        authority: the directory of the authority pages.
        last: the last incarnation of this boot; 0: none of what is open may be adopted.

    Returns: every open path, if all may be adopted; else None.
    """
    try:
        paths = await _ask(service.take_over)
    except Unavailable as error:
        say(f"what an earlier daemon left open is not known: {error.message}")
        return None
    left_open: list[LeftOpen] = []
    for path in paths:
        one = _adoptable(path, authority, last)
        if isinstance(one, str):
            say(f"{path.vg}/{path.lv} is open and may not be adopted: {one}; every volume is closed")
            return None
        left_open.append(one)
    return tuple(left_open)


def _adoptable(path: wire.Path, authority: Path, last: int) -> LeftOpen | str:
    """Or why not."""
    pages: list[tuple[int, str]] = []
    for name in path.pages:
        page = page_of(authority, Path(name))
        if page is None or page[0] > last:
            return "it was not opened by a daemon of this boot"
        if PageReader(Path(name)).deadline_ns() in (LOST_NS, UNCHECKED_NS):
            return "its authority was lost"
        pages.append(page)
    try:
        token = Token.parse(path.token)
    except ValueError:
        return "it is not known under which lock"
    mode = Mode.PR if path.shared else path.hold.least
    lock = OpenLock(space_of(path.vg), path.uuid, mode, token)
    return LeftOpen(path.vg, path.lv, lock, tuple(pages), hold=path.hold)


def revoke(authority: Path, kept: Collection[tuple[int, str]]) -> None:
    """No authority of an earlier daemon outlives this call, but for the pages (incarnation, page) kept.

    A page that still is mapped somewhere reads lost through its mapping; the files go, for after a
    reboot incarnations begin at 1 again and a page that is lost never becomes anything else.

    Raises DeviceFailed."""
    Pages(authority).lose_before(ALL_INCARNATIONS, kept)
    stay = [page_path(authority, *page) for page in kept]
    try:
        for entry in sorted(authority.iterdir()) if authority.exists() else ():
            if not any(path.parent == entry for path in stay):
                shutil.rmtree(entry)
                continue
            for path in sorted(entry.iterdir()):
                if path not in stay:
                    path.unlink()
    except OSError as error:
        words = f"cannot clear {authority}: {error.strerror}"
        raise DeviceFailed(words, next="check its owner and mode") from None


async def reap(service: BlockService, say: Say) -> bool:
    """Close what earlier daemons left open.  True only if the block service has verified it."""
    try:
        await _ask(service.drop_all)
    except Unavailable as error:
        say(f"data paths of an earlier daemon are not known to be closed: {error.message}")
        return False
    return True


async def _ask(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask again and again, for a while.  Raises Unavailable."""
    trouble = f"the block service has not answered within {ANSWER_S:.0f} s"
    try:
        async with asyncio.timeout(ANSWER_S):
            while True:
                try:
                    return await ask()
                except RingfenceError as error:
                    trouble = str(error)
                    await asyncio.sleep(RETRY_S)
    except TimeoutError:
        raise Unavailable(trouble) from None
