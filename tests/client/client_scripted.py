"""A daemon's socket with scripted answers, on a real Unix socket, in a thread of its own."""

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ringfence.core import errors
from ringfence.locks.flags import Flag
from ringfence.servers.client_socket import ClientSocket
from ringfence.wire import client as calls
from ringfence.wire.client import Reply, Request

Script = Callable[["Daemon", int, Request], None]

IN_PYTHON = "from ringfence.client import link; link.say = link.hear = link.peek = None"
"""Does without `exchange.c`."""


class Daemon:
    """`script` runs in the socket's own thread for each request; it may answer, drop or stay silent."""

    def __init__(self, path: Path, script: Script) -> None:
        self.path = path
        self.script = script
        self.asked: list[tuple[int, Request]] = []
        self.gone: list[int] = []
        self.changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._server: ClientSocket | None = None
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(self._start())

    async def _start(self) -> None:
        self._server = ClientSocket(self.path, self._on_request, self._on_gone)
        await self._server.start()

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _on_request(self, client: int, request: Request, who: str) -> None:
        with self.changed:
            self.asked.append((client, request))
            self.changed.notify_all()
        self.script(self, client, request)

    def _on_gone(self, client: int) -> None:
        with self.changed:
            self.gone.append(client)
            self.changed.notify_all()

    # -- for scripts (in the socket's thread) --------------------------------------------

    def reply(self, client: int, reply: Reply) -> None:
        assert self._server is not None
        self._server.send(client, reply)

    def drop(self, client: int) -> None:
        assert self._server is not None
        self._server.drop(client)

    # -- for tests -------------------------------------------------------------------------

    def say(self, client: int, reply: Reply) -> None:
        self._loop.call_soon_threadsafe(self.reply, client, reply)

    def until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 60), f"asked {self.asked}, gone {self.gone}"

    def calls(self, kind: type[Any]) -> list[Any]:
        """What it was asked of that kind, so far."""
        with self.changed:
            return [request.call for _, request in self.asked if isinstance(request.call, kind)]

    def end(self, client: int) -> None:
        """Drop the connection, as a daemon that ends does."""
        self._loop.call_soon_threadsafe(self.drop, client)
        self.until(lambda: client in self.gone)
        self._run(asyncio.sleep(0))  # the socket itself is closed after that was told

    def stop(self) -> None:
        assert self._server is not None
        self._run(self._server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


class LockTable:
    """Grants everything at once, but for resources named `busy`, which nobody ever gets."""

    lvb = "QUFB"
    """b"AAA": a value that somebody has written; `exchange.c` leaves such a grant to the link."""

    def __init__(self) -> None:
        self.last = 0
        self.taken: dict[int, calls.Lock] = {}
        self.requests: dict[int, str] = {}
        """Lock -> the request that took it."""
        self.clients: dict[int, int] = {}
        self.waiting: list[str] = []

    def __call__(self, daemon: Daemon, client: int, request: Request) -> None:
        call = request.call
        if isinstance(call, calls.Lock):
            if call.resource == "busy":
                self.waiting.append(request.id)
                return
            self.last += 1
            self.taken[self.last], self.requests[self.last] = call, request.id
            self.clients[self.last] = client
            told = self.grant(self.last, call.mode) | ({"incarnation": 1} if call.cached else {})
            daemon.reply(client, Reply(request.id, told, final=not (call.notices or call.cached)))
        elif isinstance(call, calls.Convert):
            if call.mode == "CW":
                self.waiting.append(request.id)
                return
            if call.flags & Flag.CONVDEADLK:  # it gives up its mode, and gets none in time
                late = errors.TimedOut("held EX by another")
                daemon.reply(client, Reply(request.id, self.grant(call.lock, "NL"), late.as_dict()))
                return
            daemon.reply(client, Reply(request.id, self.grant(call.lock, call.mode)))
        elif isinstance(call, calls.Unlock):
            lock = self.taken.pop(call.lock, None)
            if lock is None:
                unknown = errors.NotFound("no such lock")
                daemon.reply(client, Reply(request.id, error=unknown.as_dict()))
                return
            if lock.notices or lock.cached:
                released = {"released": True, "lock": call.lock}
                daemon.reply(client, Reply(self.requests[call.lock], released))
            if not call.quiet:
                daemon.reply(client, Reply(request.id, {"released": True}))
        elif isinstance(call, calls.Cancel):
            cancelled = call.request in self.waiting
            if cancelled:
                self.waiting.remove(call.request)
                gone = errors.Refused("not waited for any more")
                daemon.reply(client, Reply(call.request, error=gone.as_dict()))
            daemon.reply(client, Reply(request.id, {"cancelled": cancelled}))
        else:
            daemon.reply(client, Reply(request.id, {"call": type(call).__name__}))

    def grant(self, lock: int, mode: str) -> dict[str, Any]:
        return {
            "lock": lock, "mode": mode, "token": f"3.1.{lock}", "lvb": self.lvb, "lvb_valid": True,
            "demoted": False, "altmode": False,
        }  # fmt: skip


@contextlib.contextmanager
def daemon(script: Script) -> Iterator[Daemon]:
    where = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
    try:
        one = Daemon(where / "socket", script)
        try:
            yield one
        finally:
            one.stop()
    finally:
        shutil.rmtree(where)
