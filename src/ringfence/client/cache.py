"""Granted locks that a client keeps after use, so that the next use asks nobody.

The daemon counts such a lock as held all the time.  The client may use it again without a word while
nobody asked for it, it is not lost, and the authority page of the incarnation that granted it says that
this host's authority is valid.  When somebody asks, it goes back: at once if it is not in use, else after
the last use; a try is told meanwhile that it is in use.

No input or output but the page and the clock: both clients, blocking and asyncio, have one of these for
each listening connection and hand it `send`, which must not wait for an answer.

Source: GFS2's glocks, which keep a DLM lock until a blocking notice (Linux fs/gfs2/glock.c)."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringfence.client.held import HeldLock
from ringfence.client.messages import NODE_LOST, Grant
from ringfence.core.errors import BadInput
from ringfence.core.modes import Mode
from ringfence.host.pages import PageReader, page_path
from ringfence.locks.compat import compatible
from ringfence.wire import client as calls
from ringfence.wire.client import Call

_now_ns = time.clock_gettime_ns
_CLOCK = time.CLOCK_BOOTTIME
Send = Callable[[Call], None]


class Entry:
    """A lock that the daemon granted with `cached`.  Fulfils `link.Holder`."""

    __slots__ = (
        "cache", "grant", "key", "lost", "mode", "owner", "page", "returned", "shared", "unwanted", "users",
    )  # fmt: skip

    def __init__(
        self, cache: "Cache", key: tuple[str, str], mode: Mode, owner: str, first: HeldLock
    ) -> None:
        self.cache = cache
        self.key = key
        self.mode = mode
        self.owner = owner
        """Whom its users have named, each the same one; empty: nobody."""
        self.shared = compatible(mode, mode)
        self.users: list[HeldLock] = [first]
        self.grant: Grant | None = None
        self.page: PageReader | None = None
        self.unwanted = False
        """Somebody asked for it: no new use, and back it goes after the last."""
        self.returned = False
        """Unlocked, or about to be: by whoever has set this."""
        self.lost = ""

    def told(self, lock: int, result: dict[str, Any]) -> None:
        self.cache.told(self, lock, result)

    def lose(self, why: str) -> None:
        self.cache.lose(self, why)


class Cache:
    """Args:
    socket: the daemon's; its authority pages lie beside it.
    send: says a call to the daemon without waiting for an answer."""

    def __init__(self, socket: str, send: Send) -> None:
        self._authority = Path(socket).parent / "authority"
        self._send = send
        self._mutex = threading.Lock()
        self._entries: dict[tuple[str, str], Entry] = {}
        self._pages: dict[int, PageReader] = {}

    # -- uses --------------------------------------------------------------------------

    def take(self, lockspace: str, resource: str, mode: Mode, owner: str, user: HeldLock) -> bool:
        """Let it use the kept lock; False if the daemon must be asked."""
        with self._mutex:
            entry = self._entries.get((lockspace, resource))
            if entry is None or entry.unwanted or (entry.users and not entry.shared):
                return False
            valid = entry.page is not None and _now_ns(_CLOCK) < entry.page.deadline_ns()
            same = entry.mode is mode and entry.owner == owner
            if valid and same and entry.grant is not None:
                user.use(entry, entry.grant)  # first: whoever is interrupted now can say that it is done
                entry.users.append(user)
                return True
            if entry.users:
                return False
            back = self._leaves(entry)  # in the way of what is asked for, or to be confirmed by the daemon
        self._give_back(back)
        return False

    def new(self, lockspace: str, resource: str, mode: Mode, owner: str, first: HeldLock) -> Entry:
        """For a lock that the daemon is asked for."""
        return Entry(self, (lockspace, resource), mode, owner, first)

    def granted(self, entry: Entry, grant: Grant, first: HeldLock) -> None:
        """It is kept from now on, unless another one of its name is kept already."""
        with self._mutex:
            entry.grant = grant
            first.use(entry, grant)
            if self._entries.get(entry.key) is None and not entry.lost:
                entry.page = self._page(grant.incarnation)
                self._entries[entry.key] = entry

    def done(self, entry: Entry, user: HeldLock) -> None:
        """A use is over."""
        with self._mutex:
            if user in entry.users:
                entry.users.remove(user)
            kept = self._entries.get(entry.key) is entry and not entry.unwanted
            back = [] if entry.users or kept else self._leaves(entry)
        self._give_back(back)

    def take_out(self, entry: Entry) -> None:
        """Its only user unlocks it in its own way.

        Raises BadInput: it has other users."""
        with self._mutex:
            if len(entry.users) > 1:
                raise BadInput(
                    f"{'/'.join(entry.key)} is shared by other uses of this cached lock",
                    next="take it without cached=True",
                )
            self._leaves(entry)

    def give_all_back(self) -> None:
        """What is not in use goes back."""
        with self._mutex:
            unused = [entry for entry in self._entries.values() if not entry.users]
            back = [one for entry in unused for one in self._leaves(entry)]
        self._give_back(back)

    # -- words of the daemon, in the thread that reads -----------------------------------

    def told(self, entry: Entry, lock: int, result: dict[str, Any]) -> None:
        if result.get("lost"):
            self.lose(entry, NODE_LOST)
            return
        if result.get("blocking") is None:
            return
        with self._mutex:
            entry.unwanted = True
            users = list(entry.users)
            back = [] if users else self._leaves(entry)
        if not users:
            self._give_back(back)
        elif result.get("tries"):
            self._send(calls.Busy(lock))
        else:
            for user in users:
                user.told(lock, result)

    def lose(self, entry: Entry, why: str) -> None:
        with self._mutex:
            entry.lost = why
            self._leaves(entry)
            users = list(entry.users)
        for user in users:
            user.lose(why)

    # -- helpers ---------------------------------------------------------------------------

    def _leaves(self, entry: Entry) -> list[Entry]:
        """It is kept no more.  Returns it if it is still to be given back."""
        entry.unwanted = True
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
        back = [] if entry.returned or entry.lost else [entry]
        entry.returned = True
        return back

    def _give_back(self, entries: list[Entry]) -> None:
        for entry in entries:
            assert entry.grant is not None, "given back before it was granted"
            self._send(calls.Unlock(entry.grant.lock, quiet=True))

    def _page(self, incarnation: int) -> PageReader:
        page = self._pages.get(incarnation)
        if page is None:
            page = self._pages[incarnation] = PageReader(page_path(self._authority, incarnation, "grant"))
        return page
