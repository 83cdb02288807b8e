"""How a torture client takes locks: the one place here that knows ringfence's Python API.

A hold looks at the grant authority of the incarnation that granted it, as a client-side cached lock
would: the page of another one says nothing about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.client import Connection, Lock, Lockspace, connect
from ringfence.config import Paths
from ringfence.core.errors import LocksLost
from ringfence.host.pages import PageReader, page_path
from ringfence.wire import client as calls

JOIN_MS = 5000


class Hold:
    """A lock that is ours as far as we were told."""

    def __init__(self, handle: Lock, page: PageReader) -> None:
        self._handle = handle
        self._page = page

    @property
    def token(self) -> str:
        return str(self._handle.token)

    @property
    def mode(self) -> str:
        return self._handle.mode.name

    @property
    def value(self) -> str | None:
        lvb = self._handle.lvb
        return None if lvb is None else lvb.hex()

    @property
    def held(self) -> bool:
        return self._handle.held

    def deadline_ns(self) -> int:
        """Of its grant authority (`host.pages`)."""
        return self._page.deadline_ns()

    def convert(self, mode: str, wait_ms: int | None, writes: bytes | None = None) -> None:
        """Raises RingfenceError; LocksLost: it is gone."""
        self._handle.convert(mode, wait_ms=wait_ms, lvb=writes)

    def release(self) -> None:
        self._handle.unlock()

    def close(self) -> None:
        self._handle.abandon()


class Dlm:
    """A connection to a host's daemon.  Raises Unavailable: there is none."""

    def __init__(self, root: Path) -> None:
        self._paths = Paths(root)
        self._connection: Connection = connect(self._paths.socket, retry_ms=0)

    def join(self, space: str) -> None:
        self._connection.call(calls.JoinSpace(space), timeout_ms=JOIN_MS)

    def lock(self, space: str, resource: str, mode: str, wait_ms: int | None) -> Hold:
        """Raises RingfenceError; LocksLost also if the daemon's life changed meanwhile."""
        before = self._incarnation()
        handle = Lockspace(self._connection, space).lock(resource, mode, wait_ms=wait_ms)
        if self._incarnation() != before:
            handle.abandon()
            raise LocksLost(f"{space}/{resource} was asked of one life of the daemon, granted by the next")
        return Hold(handle, PageReader(page_path(self._paths.authority, before, "grant")))

    def _incarnation(self) -> int:
        """The one whose pages are newest; 0: there are none."""
        try:
            found = [int(one.name) for one in self._paths.authority.iterdir() if one.name.isdecimal()]
        except OSError:
            return 0
        return max(found, default=0)

    def close(self) -> None:
        self._connection.close()


@contextmanager
def dlm(root: Path) -> Iterator[Dlm]:
    opened = Dlm(root)
    try:
        yield opened
    finally:
        opened.close()
