"""The daemon's Unix socket: `wire.client` spoken to many clients at once.

Promises: the kernel's word on who is asking (SO_PEERCRED) goes with every request; the socket is
never open to the world, not even for an instant; a socket somebody listens on is never taken
over; what one client sends or does not read is bounded, and costs only that client its
connection.  Replies to a client that is gone are dropped.

Decides nothing about requests: it hands each one to `on_request` and sends what it is given."""

import asyncio
import grp
import pwd
import re
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from ringfence.core.errors import BadInput, ConfigError, Refused, RingfenceError
from ringfence.servers.listener import BACKLOG, PEERCRED, Listener
from ringfence.wire.client import Busy, Cancel, Lock, Reply, Request, Unlock, decode_request, encode

LINE_BYTES = 1 << 20
"""Longest request line, newline included."""
UNSENT_BYTES = 8 << 20
"""A client that leaves more than this unread is dropped when there is more for it.  (One reply may be longer:
that on all locks of a large VG.)"""
STALL_S = 10.0
"""A client that reads nothing for this long, though there is something to read, is dropped."""
UNANSWERED = 4096
"""Requests of one connection that may be open at once.  A lock that was granted, and of which more may be
told, is none of them."""
LETS_GO = (Unlock, Cancel, Busy)
"""Never refused for that: a client that is at the limit must be able to give back what others wait for, and
believes that it has, for a quiet unlock is not answered."""
NEWER = ("Object contains unknown field", "Object missing required field", "Invalid value")
"""How msgspec begins to tell of a request that is not of this version; all else is a wrong value."""
CONNECTIONS = 2000
OWN_FILES = 256
"""Descriptors that are left to the daemon itself where its limit is too low for so many connections."""


_OF_A_FIELD = re.compile(r"Expected (?P<what>.+) - at `\$\.call\.(?P<field>[^`]+)`")
"""How msgspec tells of what is in a call."""


class _IdOnly(msgspec.Struct, frozen=True):
    id: str


class ClientSocket:
    """Serve one Unix socket.

    Args:
        path: where; its directory must exist.
        on_request: called in the event loop with (client number, request, who is asking).  Every
            request deserves exactly one `send` of a final reply, now or later.
        on_gone: called once when a client's connection ended, whoever ended it.
            Neither is ever called from within `send` or `drop`: the driver steps the engine in them, and
            sends in the middle of a step's effects.
        group: name of the group that may connect besides root; "" leaves the process's own.
    """

    def __init__(
        self,
        path: Path,
        on_request: Callable[[int, Request, str], None],
        on_gone: Callable[[int], None],
        *,
        group: str = "",
    ) -> None:
        self.path = path
        self.on_request = on_request
        self._on_gone = on_gone
        self._group = group
        self._connections: dict[int, _Connection] = {}
        self.late: list[_Connection] | None = None
        """Whose answers wait for the end of this turn of the loop; None: nothing was answered in it yet."""
        self._last = 0  # client numbers are never reused within a daemon's run
        self._listener = Listener(path)
        self._server: asyncio.Server | None = None
        self.most = most_connections()
        """Connections at once; what comes beyond is refused."""

    async def start(self) -> None:
        """Listen.

        Raises:
            Refused: somebody listens there already; the message names the process.
            ConfigError: the group does not exist, or the path is too long for a Unix socket.
            Unavailable: the directory cannot be written."""
        listener = self._listener.take(mode=0o660, gid=_gid(self._group))
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Connection(self), sock=listener, backlog=BACKLOG
        )

    async def close(self) -> None:
        """Stop listening, end every connection after what was already handed to it, remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._listener.remove()
        for connection in list(self._connections.values()):
            connection.end()
        for _ in range(20):  # let the last replies out; a client that does not read cannot hold us
            if not self._connections:
                break
            await asyncio.sleep(0.01)
        for connection in list(self._connections.values()):
            connection.abort()
        self._listener.unlock()

    def send(self, client: int, reply: Reply) -> bool:
        """Queue a reply.  False: the client is gone (or has just been dropped for not reading)."""
        connection = self._connections.get(client)
        return connection is not None and connection.send(reply)

    def drop(self, client: int) -> None:
        """End a connection now; `on_gone` follows."""
        connection = self._connections.get(client)
        if connection is not None:
            connection.abort()

    @property
    def clients(self) -> tuple[int, ...]:
        return tuple(self._connections)

    # -- called by connections ----------------------------------------------------

    def first_of_turn(self) -> None:
        """The first answer of a turn of the loop was written, at once, as it may be all there is.

        The others are written when all that the turn has read is dealt with: each write wakes a client that
        takes the CPU, and when it is ours again nothing here is in its caches."""
        self.late = []
        asyncio.get_running_loop().call_soon(self._turn_over)

    def _turn_over(self) -> None:
        late, self.late = self.late, None
        for connection in late or ():
            connection.write_late()

    def _joined(self, connection: "_Connection") -> int:
        self._last += 1
        self._connections[self._last] = connection
        return self._last

    def _left(self, client: int) -> None:
        if self._connections.pop(client, None) is not None:
            self._on_gone(client)


def most_connections() -> int:
    """As many as this process's limit of open files leaves room for; it must be raised before."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS
    return min(CONNECTIONS, max(soft - OWN_FILES, soft // 2))


class _Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: ClientSocket) -> None:
        self._server = server
        self._client = 0
        self._who = ""
        self._transport: asyncio.Transport
        self._partial = bytearray()
        self._open: set[str] = set()  # request ids without a final reply; never iterated
        self._asking: set[str] = set()  # those of them that end with their first reply: locks with notices
        self._late: list[bytes] = []  # what is to be written when this turn of the loop is over
        self._late_bytes = 0
        self._queued_bytes = 0  # ever, so that what was taken is known while more is added
        self._stall: asyncio.TimerHandle | None = None
        self._ending = False
        self._caches = False  # such a client believes in its locks until it reads; see `pause_writing`

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's is one by its methods alone
        self._transport = stream
        self._who = _credentials(stream.get_extra_info("socket"))
        stream.set_write_buffer_limits(high=256 << 10)
        if len(self._server._connections) >= self._server.most:
            self._refuse("", Refused("too many clients are connected", next="close some", retry=True))
            return
        self._client = self._server._joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self._server._left(self._client)

    def eof_received(self) -> bool:
        """The client sends no more and so is gone (half a line is nobody's request): now, before what others
        have sent since, not a turn of the loop later as `connection_lost`.  Whoever knows that it has closed
        is refused nothing for its sake."""
        self._server._left(self._client)
        return False

    def data_received(self, data: bytes) -> None:
        start = 0
        if self._ending:
            return
        while (end := data.find(b"\n", start)) >= 0:
            line = bytes(self._partial) + data[start:end] if self._partial else data[start:end]
            self._partial.clear()
            start = end + 1
            if len(line) >= LINE_BYTES:
                self._too_long()
            elif line.strip():
                self._line(line)
            if self._ending:
                return
        self._partial += data[start:]
        if len(self._partial) >= LINE_BYTES:
            self._too_long()

    def _too_long(self) -> None:
        self._partial.clear()
        self._refuse("", BadInput(f"a request is longer than {LINE_BYTES} bytes", next="send less at once"))

    def _line(self, line: bytes) -> None:
        try:
            request = decode_request(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._unreadable(line, error)
            return
        if request.id in self._open:
            # The first one's reply answers both; to run it twice is what the id is there to prevent.
            return
        if len(self._open) >= UNANSWERED and not isinstance(request.call, LETS_GO):
            what = f"{UNANSWERED} requests of this client are open"
            busy = Refused(what, next="await some replies", retry=True)
            self.send(Reply(request.id, error=busy.as_dict()))
            return
        if not (isinstance(request.call, Unlock) and request.call.quiet):
            self._open.add(request.id)
        if isinstance(request.call, Lock) and (request.call.cached or request.call.notices):
            self._asking.add(request.id)
            self._caches = self._caches or request.call.cached
        self._server.on_request(self._client, request, self._who)

    def _unreadable(self, line: bytes, why: Exception) -> None:
        """A request with an id that we do not understand is answered; noise ends the connection."""
        reason = str(why).splitlines()[0]
        try:
            id = msgspec.json.decode(line, type=_IdOnly).id
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._refuse("", BadInput(f"not a request: {reason}", next="send one JSON object a line"))
            return
        if reason.startswith(NEWER):
            refused = BadInput(
                f"unknown request: {reason}",
                next="if ringfence was upgraded here: systemctl restart ringfence; volumes stay open",
            )
        else:
            refused = BadInput(_wrong_value(reason), next="give one of its type and in its range")
        self.send(Reply(id, error=refused.as_dict()))

    def _refuse(self, id: str, error: RingfenceError) -> None:
        """One clear reply, then the end of the connection."""
        self.send(Reply(id, error=error.as_dict()))
        self.end()

    def send(self, reply: Reply) -> bool:
        if self._transport.is_closing():
            return False
        if reply.final or (self._asking and reply.id in self._asking):
            self._open.discard(reply.id)
            self._asking.discard(reply.id)
        if not self._caches and self._late_bytes + self._transport.get_write_buffer_size() > UNSENT_BYTES:
            self.abort()
            return False
        line = encode(reply)
        self._queued_bytes += len(line)
        late = self._server.late
        if late is None:
            self._write(line)
            self._server.first_of_turn()
            return True
        if not self._late:
            late.append(self)
        self._late.append(line)
        self._late_bytes += len(line)
        return True

    def write_late(self) -> None:
        """What waits for the end of the turn, now."""
        if self._late:
            lines, self._late, self._late_bytes = self._late, [], 0
            if not self._transport.is_closing():
                self._write(lines[0] if len(lines) == 1 else b"".join(lines))

    def _write(self, lines: bytes) -> None:
        self._transport.write(lines)
        if self._caches and self._transport.get_write_buffer_size() > UNSENT_BYTES:
            self._transport.pause_reading()

    def end(self) -> None:
        """Close after what is queued; one that does not read is cut off by the stall timer."""
        self._ending = True
        self.write_late()
        if not self._transport.is_closing():
            self._transport.close()
            if self._stall is None and self._transport.get_write_buffer_size():
                self._watch()

    def abort(self) -> None:
        self._ending = True
        self._transport.abort()

    def pause_writing(self) -> None:
        """The client does not read.

        One that caches locks is not dropped for it: they would go to others while, thawed, it goes on
        under what it has not yet read.  It is read no more instead when too much is unsent (`send`), and
        so gets no further answers; what it is told unasked is bounded by its locks."""
        if self._stall is None and not self._caches:
            self._watch()

    def resume_writing(self) -> None:
        if self._caches and not self._ending:
            self._transport.resume_reading()
        if self._stall is not None and not self._ending:
            self._stall.cancel()
            self._stall = None

    @property
    def _unsent_bytes(self) -> int:
        return self._late_bytes + self._transport.get_write_buffer_size()

    @property
    def _taken_bytes(self) -> int:
        return self._queued_bytes - self._unsent_bytes

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._stall = loop.call_later(STALL_S, self._stalled, self._taken_bytes)

    def _stalled(self, before_bytes: int) -> None:
        """Still not all read.  Progress since the last look keeps a merely slow client."""
        if self._taken_bytes <= before_bytes:
            self.abort()
        else:
            self._watch()


def _wrong_value(reason: str) -> str:
    """For people: "wait_ms: expected int, got str"."""
    found = _OF_A_FIELD.fullmatch(reason)
    if found is None:
        return f"a wrong value: {reason}"
    return f"{found['field']}: expected {found['what'].replace('`', '')}"


def _credentials(sock: socket.socket) -> str:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEERCRED.size)
    pid, uid, _ = PEERCRED.unpack(raw)
    return f"uid {uid} ({_user(uid)}) pid {pid}"


_users: dict[int, str] = {}


def _user(uid: int) -> str:
    """The user's name; asked once per uid, for a name service may be slow."""
    if uid not in _users:
        try:
            _users[uid] = pwd.getpwuid(uid).pw_name
        except KeyError:
            _users[uid] = "unknown"
    return _users[uid]


def _gid(group: str) -> int:
    if not group:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"no group {group!r} for the socket", next="create it or change it") from None
