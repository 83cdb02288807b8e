"""lvmlockd's socket: stock LVM2's commands connect here, each sends one request after the other.

Promises: root alone may connect; the kernel's word on which process asks goes with every request; a socket
somebody listens on (the real lvmlockd) is never taken over; a request is handed on when the one before it was
answered; garbage, a frame that never ends, too many connections or replies that nobody reads cost only that
peer its connection.  What it is told of a connection's end says whether the last reply was read: Linux resets
a connection whose peer closes it over unread bytes.

Decides nothing about requests: it hands each one on and sends what it is given."""

import asyncio
import contextlib
import errno
import socket
from pathlib import Path
from typing import Protocol, cast

import msgspec

from ringfence.core.errors import BadInput, Unavailable
from ringfence.host.processes import process
from ringfence.lvm2.lockd_text import END
from ringfence.servers.client_socket import most_connections
from ringfence.servers.listener import BACKLOG, PEERCRED, Listener
from ringfence.servers.lvmlockd_messages import HELLO, parse_request, print_answer
from ringfence.servers.pid_file import PidFile
from ringfence.wire.lvmlockd import LvmAnswered, LvmAsked

FRAME_BYTES = 64 << 10
"""Longest request; the longest that LVM2 sends is a tenth of it."""
UNSENT_BYTES = 64 << 10
"""A peer that leaves more than this unread, though it goes on to ask, is dropped."""
FIRST_CLIENT = 1 << 32
"""Clients count from here: no number is one of the client socket's."""
DUMP_SOCKET = "\0lvmlockd-dump.sock"
"""Where lvmlockctl listens for what it has asked to see."""
DUMP_BYTES = 64 << 10
INFO = "info"
PROGRAM_BYTES = 1 << 20
"""lvmlockctl has less."""
DUMP_TRIES = 500
DUMP_RETRY_S = 0.001


class Peers(Protocol):
    """Called in the event loop, and never from within `LvmSocket.send`."""

    def lvm_asked(self, client: int, asked: LvmAsked) -> None:
        """A request, which deserves exactly one `send`, now or later."""

    def lvm_gone(self, client: int, unread: bool, hung_up: bool) -> None:
        """A connection ended that has sent a request.  Called once.

        Args:
            unread: it certainly has not read the whole of the reply to its last one.
            hung_up: this side has ended it."""

    def lvm_said(self, what: str) -> None:
        """For the log: why a connection was ended by this side."""


class LvmSocket:
    """Serve one Unix socket.

    Args:
        path: where; its directory is made if it does not exist.
        pid_file: LVM2's commands look whether /run/lvmlockd.pid exists before they connect, wherever the
            socket is: a host's own has its place there, a lab host's in what becomes its commands' /run.
        peers: who is told of requests.
    """

    def __init__(
        self,
        path: Path,
        pid_file: Path,
        peers: Peers,
    ) -> None:
        self.path = path
        self._pid_file = PidFile(pid_file)
        self.peers = peers
        self.most = most_connections() // 2
        """Connections at once; what comes beyond is closed."""
        self.connections: dict[int, _Connection] = {}
        self._last = FIRST_CLIENT
        self._listener = Listener(path, "lvmlockd")
        self._server: asyncio.Server | None = None
        self._dumps: set[asyncio.Task[None]] = set()  # held so that none is collected; never iterated

    async def start(self) -> None:
        """Listen.  Raises what PidFile.claim and Listener.take do."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"cannot make {self.path.parent}: {error.strerror}") from None
        self._pid_file.claim()
        try:
            listener = self._listener.take()
        except BaseException:
            self._pid_file.release()
            raise
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Connection(self), sock=listener, backlog=BACKLOG
        )

    async def close(self) -> None:
        """Stop listening, end every connection, remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._listener.remove()
            self._pid_file.remove()
        for connection in list(self.connections.values()):
            connection.end()
        self._listener.unlock()

    def send(self, client: int, answered: LvmAnswered) -> None:
        """Reply to a connection's request; one that is gone needs none."""
        connection = self.connections.get(client)
        if connection is not None:
            connection.answer(answered)

    def send_dump(self, dump: bytes) -> None:
        task = asyncio.get_running_loop().create_task(_send_dump(dump), name="lvmlockd dump")
        self._dumps.add(task)
        task.add_done_callback(self._dumps.discard)

    def joined(self, connection: "_Connection") -> int:
        self._last += 1
        self.connections[self._last] = connection
        return self._last


class _Connection(asyncio.Protocol):
    """One command of stock LVM2."""

    def __init__(self, server: LvmSocket) -> None:
        self._server = server
        self._client = 0
        self._pid = 0
        self._started = 0
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._asked = False
        """It has made a request that was handed on."""
        self._unanswered = False
        self._paused = False
        self._hung_up = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone
        self._transport = stream
        raw = stream.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEERCRED.size)
        self._pid, _, _ = PEERCRED.unpack(raw)
        if len(self._server.connections) >= self._server.most:
            self._hang_up(f"{self._server.most} processes are connected already")
            return
        peer = None
        with contextlib.suppress(OSError):
            peer = process(self._pid)
        if peer is None:
            self._hang_up("a process that cannot be told from others cannot have locks")
            return
        self._started = peer.start
        self._client = self._server.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.pop(self._client, None)
        if self._asked:
            unread = exc is not None or self._unanswered
            self._server.peers.lvm_gone(self._client, unread, self._hung_up)

    def data_received(self, data: bytes) -> None:
        whole = data.endswith(END) and data.find(END) == len(data) - len(END)
        if whole and not self._received and not self._unanswered:
            self._take(data[: -len(END)])  # one request, whole: LVM2 awaits each answer
            return
        self._received += data
        self._go_on()

    def _go_on(self) -> None:
        """Hand on what may be handed on."""
        while not self._unanswered and not self._transport.is_closing():
            end = self._received.find(END)
            if end < 0:
                break
            frame = bytes(self._received[:end])
            del self._received[: end + len(END)]
            self._take(frame)
        if len(self._received) > FRAME_BYTES:
            if self._unanswered:
                self._paused = True
                self._transport.pause_reading()
            else:
                self._hang_up(f"it sends more than {FRAME_BYTES} bytes at once")

    def _take(self, frame: bytes) -> None:
        try:
            asked = parse_request(frame, self._pid, self._started)
        except BadInput as error:
            self._hang_up(error.message)
            return
        self._unanswered = True
        if asked.op == HELLO:
            self.answer(LvmAnswered(HELLO))
            return
        if asked.op == INFO:
            asked = msgspec.structs.replace(asked, old_info=_reads_sysid(self._pid))
        self._asked = True
        self._server.peers.lvm_asked(self._client, asked)

    def answer(self, answered: LvmAnswered) -> None:
        assert self._unanswered, "a reply to nothing"
        self._unanswered = False
        if self._transport.is_closing():
            return
        self._transport.write(print_answer(answered))
        if answered.dump:
            self._server.send_dump(answered.dump)
        if self._transport.get_write_buffer_size() > UNSENT_BYTES:
            self._hang_up("it asks and does not read")
        elif self._received:
            # Not from within `send`: the driver is in the middle of a step's effects.
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._go_on()

    def end(self) -> None:
        self._hung_up = True
        self._transport.abort()

    def _hang_up(self, why: str) -> None:
        self.end()
        self._server.peers.lvm_said(f"the connection of process {self._pid} is ended: {why}")


def _reads_sysid(pid: int) -> bool:
    """Whether that program is an lvmlockctl from before 2.03.28: what it reads a line with stands in it."""
    try:
        with open(f"/proc/{pid}/exe", "rb") as program:
            return b"vg_sysid=%s" in program.read(PROGRAM_BYTES)
    except OSError:
        return False


async def _send_dump(dump: bytes) -> None:
    """To whoever listens for it: lvmlockctl, which has asked; it reads after the reply."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        tries = DUMP_TRIES
        while dump and tries:
            try:
                sent = out.sendto(dump[:DUMP_BYTES], DUMP_SOCKET)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                    return
                tries -= 1
                await asyncio.sleep(DUMP_RETRY_S)
            else:
                dump = dump[sent:]
