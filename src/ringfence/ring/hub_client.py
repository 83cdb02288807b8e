"""A node's end of the embedded ring: `port.Ring` over the hub's socket.

Connects, and connects again, for ever; every end of a link is one `RingLost`, and so is the first
connect if it fails.  A link that the hub ended, or that it refused, says why.  What was queued for
a lost link is gone with it (the engine submits again); what had arrived is handed over first, so
`RingLost` stands where it belongs in the order."""

import asyncio
import contextlib
import socket as sockets
from collections import deque
from pathlib import Path

from ringfence.core.errors import BadInput
from ringfence.engine.inputs import Delivered, RingLost, ViewChanged
from ringfence.ring.link import Link
from ringfence.ring.port import OnInput, RingInput
from ringfence.wire import hub as wire
from ringfence.wire.hub import FromHub, Role

FIRST_RETRY_S = 0.02
LONGEST_RETRY_S = 1.0
WELCOME_TIMEOUT_S = 5.0
LEAVE_TIMEOUT_S = 2.0
SLICE_S = 0.005
"""How long one turn of the event loop may be spent in `on_input`."""
BACKLOG_HIGH = 8192
BACKLOG_LOW = 1024
"""Inputs waiting for `on_input`: above high the socket is not read, until low is reached."""
UNSENT_LIMIT_BYTES = 32 << 20


class HubRing:
    """Fulfils `port.Ring`.

    Args:
        socket: the hub's.
        node: this node's configured id.
        on_input: may be set later, but before `start`.
        seen: the highest epoch sequence on this node's disk; a hub that lost its own memory goes
            on above it."""

    def __init__(
        self, socket: Path | str, node: int, on_input: OnInput = lambda fact: None, seen: int = 0
    ) -> None:
        self.on_input = on_input
        self.socket = Path(socket)
        self.node = node
        self.seen = seen
        self.dropped = 0
        """Payloads that were not sent: no view, or the hub did not take them."""
        self._link: Link[FromHub] | None = None
        self._in_view = False
        self._out: list[bytes] = []
        self._sending = False
        """Something was sent in this turn of the loop; what follows it goes out together."""
        self._in: deque[RingInput] = deque()
        self._pumping = False
        self._ended: asyncio.Future[str] | None = None
        self._why = ""
        """What the hub said before it ended the link."""
        self._told = ""
        """The last RingLost's reason; "" while in a view."""
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        assert self._task is None, "started twice"
        self._task = asyncio.create_task(self._keep_connected(), name=f"hub ring of node {self.node}")

    def multicast(self, payload: bytes) -> None:
        """Send to all members.  Dropped while there is no view, or while the hub takes nothing.

        Raises BadInput if the payload is larger than the ring carries."""
        if len(payload) > wire.MAX_PAYLOAD_BYTES:
            raise BadInput(
                f"a message of {len(payload)} bytes is over the ring's limit of {wire.MAX_PAYLOAD_BYTES}"
            )
        link = self._link
        if link is None or not self._in_view or link.buffered_bytes > UNSENT_LIMIT_BYTES:
            self.dropped += 1
            return
        if self._sending:
            self._out.append(payload)
            return
        # The first at once: it may be all there is.  The rest of this turn together.
        self._sending = True
        link.send_now(wire.encode(wire.Send((payload,))))
        asyncio.get_running_loop().call_soon(self._send_waiting)

    async def leave(self) -> None:
        """Tell the hub, wait until it has answered (2 s at most), and stop."""
        link, ended = self._link, self._ended
        self._stopping = True
        if link is not None and ended is not None:
            self._send_waiting()
            link.send(wire.encode(wire.Leave()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(ended), LEAVE_TIMEOUT_S)
        await self.stop()

    async def stop(self) -> None:
        """Drop the link without a word; no further input comes."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._drop_link()
        self._in.clear()

    # -- the link ----------------------------------------------------------------

    async def _keep_connected(self) -> None:
        pause_s = FIRST_RETRY_S
        while not self._stopping:
            reason = self._connect()
            if not reason:
                assert self._ended is not None
                was_in = False
                try:
                    reason, was_in = await self._until_ended()
                finally:
                    self._drop_link()
                if was_in:
                    pause_s = FIRST_RETRY_S
            if self._stopping:
                return
            self._lost(reason)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_RETRY_S)

    def _connect(self) -> str:
        """Returns why not, or "" with a link that has said Hello."""
        sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(str(self.socket))
        except OSError as error:
            sock.close()
            return (
                f"no hub answers on {self.socket} ({error.strerror or error}); start it with "
                f"`ringfence hub --socket {self.socket}`, this node then joins by itself"
            )
        link = Link(sock, wire.from_hub_frames())
        self._ended = asyncio.get_running_loop().create_future()
        self._why = ""
        link.on_message = self._heard
        link.on_closed = self._closed
        self._link = link
        link.send(wire.encode(wire.Hello(Role.DAEMON, self.node, self.seen)))
        return ""

    async def _until_ended(self) -> tuple[str, bool]:
        """Wait for the link's end.  Returns the reason, and whether the link had got into a view."""
        assert self._ended is not None
        try:
            how = await asyncio.wait_for(asyncio.shield(self._ended), WELCOME_TIMEOUT_S)
        except TimeoutError:
            if not self._in_view:
                return (
                    f"the hub at {self.socket} does not answer; look whether its process runs "
                    "(it may be stopped), this node tries again",
                    False,
                )
            how = await self._ended
        was_in = self._in_view
        if self._why:
            return self._why, was_in
        return (
            f"the hub at {self.socket} is gone ({how}); start it again with "
            f"`ringfence hub --socket {self.socket}`, this node then joins by itself",
            was_in,
        )

    def _closed(self, how: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(how)

    def _drop_link(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None
        self._in_view = False
        self._out = []

    def _lost(self, reason: str) -> None:
        """One RingLost a loss; a new one while still lost only if the reason is another."""
        if reason != self._told:
            self._told = reason
            self._put(RingLost(reason))

    def _send_waiting(self) -> None:
        waiting, self._out = self._out, []
        self._sending = False
        if self._link is None:
            return
        for run in wire.batches(waiting):
            self._link.send_now(wire.encode(wire.Send(run)))

    # -- what the hub says ---------------------------------------------------------

    def _heard(self, message: FromHub) -> None:
        match message:
            case wire.Deliver(((sender, payload),)) if not self._in:  # nearly always
                self.on_input(Delivered(sender, payload))
            case wire.Deliver(items):
                self._in.extend(Delivered(sender, payload) for sender, payload in items)
                if self._pumping:
                    self._schedule()
                else:
                    self._pump()
            case wire.Ping():
                if self._link is not None:
                    self._link.send(wire.encode(wire.Pong()))
            case wire.View(epoch, members, joined, left, how):
                self._in_view = True
                self._told = ""
                self.seen = max(self.seen, epoch.seq)
                self._put(ViewChanged(epoch, members, joined, left, how))
            case wire.Removed(epoch, why):
                in_epoch = f" in epoch {epoch}" if epoch.seq else ""
                self._why = (
                    f"the hub at {self.socket} removed this node{in_epoch}: {why}; it joins again by itself"
                )
            case wire.Refusal(what, next):
                self._why = f"the hub at {self.socket} refuses this node: {what}; {next or 'see its log'}"
            case _:
                pass  # Welcome: the view follows

    def _put(self, fact: RingInput) -> None:
        self._in.append(fact)
        self._schedule()

    def _schedule(self) -> None:
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)
        if len(self._in) > BACKLOG_HIGH and self._link is not None:
            self._link.pause()

    def _pump(self) -> None:
        """Hand over what waits, for one slice; the event loop's other work comes in between."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SLICE_S
        self._pumping = False
        try:
            while self._in and loop.time() < until:
                self.on_input(self._in.popleft())
        finally:
            if self._in and not self._pumping:
                self._pumping = True
                loop.call_soon(self._pump)
            if len(self._in) < BACKLOG_LOW and self._link is not None:
                self._link.resume()
