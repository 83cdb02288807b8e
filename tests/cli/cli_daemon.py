"""A daemon's socket with canned answers, on the real client socket, in a thread of its own."""

import asyncio
import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ringfence.core.errors import RingfenceError
from ringfence.servers.client_socket import ClientSocket
from ringfence.wire.client import Call, Reply, Request

Answer = Callable[[Call], Any]


class CannedDaemon:
    """`answer(call)` returns the result, a list of (result, final) to stream, or raises RingfenceError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: Answer = lambda call: {}
        self.calls: list[Call] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._socket = ClientSocket(path, self._asked, lambda client: None)
        self._run(self._socket.start())

    def _run(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _asked(self, client: int, request: Request, who: str) -> None:
        self.calls.append(request.call)
        try:
            result = self.answer(request.call)
        except RingfenceError as error:
            self._socket.send(client, Reply(request.id, error=error.as_dict()))
            return
        for part, final in result if isinstance(result, list) else [(result, True)]:
            self._socket.send(client, Reply(request.id, result=part, final=final))

    def stop(self) -> None:
        self._run(self._socket.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()


@contextlib.contextmanager
def canned_daemon(kind: type[CannedDaemon] = CannedDaemon) -> Iterator[CannedDaemon]:
    # Not pytest's tmp_path: a Unix socket's path has 107 bytes.
    where = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
    try:
        one = kind(where / "socket")
        try:
            yield one
        finally:
            one.stop()
    finally:
        shutil.rmtree(where)
