"""Where LVs wait that are open and that nobody uses yet: the service's side of its porters.

A worker for each LV of a VG of thousands would fill the host's memory to serve a few guests.  What is opened
together therefore has its socket alone, held by a porter among thousands; its worker is started when the
first client comes.  Until then nothing can be written through it, so there is nothing to flush, and no
authority to be out of.  Nor are its disks held open: that they are still the same ones is looked at when its
worker starts (`disks`)."""

import asyncio
import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from ringfence.block.disks import Disk
from ringfence.block.porter import MESSAGE_BYTES
from ringfence.core.errors import Unavailable
from ringfence.wire import block as wire

PLACES = 4096
"""How many sockets a porter has: what a process may have open is limited."""
ANSWER_S = 20.0
Knock = Callable[[str, socket.socket], None]
Lost = Callable[[list[str], str], None]


class Waiting:
    """An open LV without a worker.  What the service asks of a `Handle` it may ask of this, too.

    There may be thousands: it is little more than the call that opened it.

    Args:
        socket_path: that a porter listens on.
        direct: whether its disks have direct I/O.
        disks: that its extents' paths lead to; perhaps others', too."""

    __slots__ = ("_porch", "direct", "disks", "failed", "open_call", "socket_path")

    gone = True
    """No process has it open."""

    def __init__(
        self, call: wire.Open, socket_path: str, direct: bool, disks: Mapping[str, Disk], porch: "Porch"
    ) -> None:
        self.open_call = call
        self.socket_path = socket_path
        self.direct = direct
        self.disks = disks
        self.failed = ""
        self._porch = porch

    @property
    def name(self) -> str:
        return f"{self.open_call.vg}/{self.open_call.lv}"

    @property
    def path(self) -> wire.Path:
        return listed(self.open_call, self.socket_path, direct=self.direct, failed=self.failed)

    async def look(self) -> wire.Path:
        return self.path

    def kill(self) -> None:
        """Nothing of it runs; its socket goes with its porter (`Porch.end`)."""

    async def reaped(self) -> None:
        """Nothing of it runs."""

    async def end(self, flush: bool) -> None:
        """There is nothing to flush."""
        await self._porch.close([self.socket_path])


def listed(call: wire.Open, socket_path: str, *, direct: bool = True, failed: str = "") -> wire.Path:
    """An LV as it is listed that is open on the NBD plane."""
    return wire.Path(
        call.vg,
        call.lv,
        call.uuid,
        socket_path,
        uri_of(call.lv, socket_path),
        sum(extent.length_bytes for extent in call.extents),
        shared=call.shared,
        readonly=call.readonly,
        direct=direct,
        failed=failed,
        pages=call.pages,
        token=call.token,
        extents=call.extents,
        hold=call.hold,
    )


def uri_of(lv: str, socket_path: str) -> str:
    directory, name = socket_path.rsplit("/", 1)
    export = _quoted(lv)
    file = export if name == lv else _quoted(name)
    return f"nbd+unix:///{export}?socket={_quoted_directory(directory)}/{file}"


_UNQUOTED = re.compile(r"[\w.-]*", re.ASCII)
_quoted_directory = functools.lru_cache(16)(quote)
"""One has thousands of LVs."""


def _quoted(name: str) -> str:
    return name if _UNQUOTED.fullmatch(name) else quote(name)


class Porch:
    """Args:
    group: of the sockets; -1: unchanged.
    lock_fd: the service's lock, which everything keeps that could still be reached.
    knocked: called with a path and its listening socket, which is the called one's, when somebody comes.
    lost: called with the paths of a porter that has ended by itself, and how."""

    def __init__(self, group: int, lock_fd: int, knocked: Knock, lost: Lost) -> None:
        self._group, self._lock_fd = group, lock_fd
        self._knocked, self._lost = knocked, lost
        self._porters: list[_Porter] = []
        self._at: dict[str, _Porter] = {}
        """By path."""

    async def listen(self, paths: list[str]) -> list[str]:
        """Returns why not, of each; empty where all is well.  Raises Unavailable: nobody listens on any."""
        errors: list[str] = []
        try:
            await self._listen(paths, errors)
        except Unavailable:
            await self.close(path for path, error in zip(paths, errors, strict=False) if not error)
            raise
        return errors

    async def _listen(self, paths: list[str], errors: list[str]) -> None:
        """Args: errors: what is known by now."""
        while len(errors) < len(paths):
            porter = self._with_room()
            some = paths[len(errors) :][: PLACES - porter.count]
            porter.count += len(some)
            for path in some:  # before the answer: somebody may knock at once
                self._at[path] = porter
            told = await porter.ask({"listen": some})
            for path, error in zip(some, told, strict=True):
                if error:
                    self._forget(path)
            errors += told

    async def close(self, paths: Iterable[str]) -> list[str]:
        """From now on nobody can reach them; their places in the file system are empty.

        Returns those that no porter has: somebody has knocked, and the called one has the socket."""
        by_porter: dict[_Porter, list[str]] = {}
        without: list[str] = []
        for path in paths:
            porter = self._at.get(path)
            if porter is not None:
                by_porter.setdefault(porter, []).append(path)
            else:
                without.append(path)
        for porter, some in by_porter.items():
            with contextlib.suppress(Unavailable):  # it has ended, and all that it had with it
                await porter.ask({"close": some})
            without += [path for path in some if path not in self._at]  # it was on its way to the called one
            for path in some:
                self._forget(path)
        return without

    def _with_room(self) -> "_Porter":
        for porter in self._porters:
            if porter.count < PLACES:
                return porter
        porter = _Porter(self._group, self._lock_fd, self._heard, self._ended)
        self._porters.append(porter)
        return porter

    def _heard(self, path: str, listener: socket.socket) -> None:
        if self._at.get(path) is None:
            listener.close()
            return
        self._forget(path)
        self._knocked(path, listener)

    def _forget(self, path: str) -> None:
        porter = self._at.pop(path, None)
        if porter is not None:
            porter.count -= 1

    def _ended(self, porter: "_Porter", why: str) -> None:
        paths = [path for path, one in self._at.items() if one is porter]
        for path in paths:
            self._forget(path)
        self._porters.remove(porter)
        if paths:
            self._lost(paths, why)

    def end(self) -> None:
        """Every socket is gone when this returns, but for its place in the file system."""
        porters, self._porters, self._at = self._porters, [], {}
        for porter in porters:
            porter.kill()


_Ended = Callable[["_Porter", str], None]


class _Porter:
    def __init__(
        self, group: int, lock_fd: int, heard: Knock, ended: Callable[["_Porter", str], None]
    ) -> None:
        self._heard, self._on_end = heard, ended
        self.count = 0
        """Sockets that it has, or was asked to have."""
        self._asking = asyncio.Lock()
        self._answer: asyncio.Future[list[str]] | None = None
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            for one in (self._channel, theirs):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MESSAGE_BYTES)
            command = [sys.executable, "-m", "ringfence.block.porter"]
            command += [str(theirs.fileno()), str(os.getpid()), str(group)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), lock_fd)
            )
        except OSError as error:
            self._channel.close()
            raise Unavailable(f"cannot start a porter: {error}", retry=True) from None
        finally:
            theirs.close()
        self.pid = self._process.pid
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._read)

    async def ask(self, message: dict[str, list[str]]) -> list[str]:
        """Raises Unavailable: it has ended, and been reaped."""
        async with self._asking:
            answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
            self._answer = answer
            try:
                self._channel.send(json.dumps(message).encode())
                return await asyncio.wait_for(answer, ANSWER_S)
            except TimeoutError:
                self._end("it does not answer")
            except OSError as error:
                self._end(error.strerror or str(error))
            raise Unavailable("a porter has ended", next="try again", retry=True)

    def kill(self) -> None:
        """Returns when it is reaped: all that it had can be reached no more."""
        if self._channel.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Unavailable("a porter has ended", next="try again", retry=True))

    def _end(self, why: str) -> None:
        if self._channel.fileno() >= 0:
            self.kill()
            self._on_end(self, f"their porter, process {self.pid}, is gone: {why}")

    def _read(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._channel, MESSAGE_BYTES, 1)
        except OSError:
            data, fds = b"", []
        if not data:
            self._end("it has ended")
            return
        message: dict[str, Any] = json.loads(data)
        if "knock" in message:
            self._heard(message["knock"], socket.socket(fileno=fds[0]))
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(message["errors"])
