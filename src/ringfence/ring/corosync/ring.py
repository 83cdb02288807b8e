"""This node in corosync's process group: `port.Ring` over CPG.

The thin part: it moves facts and bytes between `session` (the libraries) and `exchange` (what makes a view),
`pieces` (what makes a message).  It connects, and connects again, for ever; a loss is one `RingLost`.

Nothing that corosync may keep waiting runs in the event loop.  Connecting and leaving have threads of
their own, daemon threads, for one that hangs in a stopped corosync must not keep this process from ending.

At most IN_FLIGHT own messages are on their way: with corosync stopped more would spin inside its library, and
corosync itself holds nobody back.  Each comes back to its sender, in order, so counting deliveries is enough.

What corosync says of quorum comes beside the order, up to 10 ms after the change that it is about."""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable

from ringfence.core.cluster import Timing
from ringfence.core.errors import BadInput, RingfenceError
from ringfence.engine.inputs import Delivered, QuorumSaid, RingLost, RingRemarked, ViewChanged
from ringfence.host.clock import boottime_ns
from ringfence.ring.corosync.exchange import Confchg, Exchange, RingFormed
from ringfence.ring.corosync.pieces import Rejoiner, messages
from ringfence.ring.corosync.pulse import Pulse
from ringfence.ring.corosync.session import Gone, Session
from ringfence.ring.corosync.times import compare, unsafe
from ringfence.ring.port import OnInput, RingInput
from ringfence.wire.corosync import Batch, Hello, LeaveOut, NotOurs, Piece, Process, decode, encode

FIRST_RETRY_S = 0.02
LONGEST_RETRY_S = 1.0
ANSWER_S = 2.0
"""After this long corosync is said not to answer; it is waited for none the less."""
EXCHANGE_S = 1.0
"""After this long without a view those who have not said hello are named."""
RESTLESS = 3
"""So many rings, and no view: the ring itself is at fault, not one who does not answer."""
DOUBT_S = 0.05
"""How long a daemon's end may turn out to be its host's (`Exchange.doubtful`)."""
LEAVE_TIMEOUT_S = 2.0
SLICE_S = 0.005
"""How long one turn of the event loop may be spent in `on_input`."""
IN_FLIGHT = 128
FULL_RETRY_S = 0.002
"""When corosync had no room."""
MAX_PAYLOAD_BYTES = 16 << 20
UNSENT_LIMIT_BYTES = 32 << 20


class CorosyncRing:
    """Fulfils `port.Ring`.

    Args:
        node: this node's configured id; it must be corosync's nodeid, too.
        timing: to compare with corosync's own token.
        on_input: may be set later, but before `start`.
        seen: the highest epoch sequence on this node's disk."""

    def __init__(
        self, node: int, timing: Timing, on_input: OnInput = lambda fact: None, seen: int = 0
    ) -> None:
        self.on_input = on_input
        self.node = node
        self.seen = seen
        self.dropped = 0
        """Payloads that were not sent: no view, or too much waits already."""
        self.foreign = 0
        """Messages in the group that were not ours."""
        self._timing = timing
        self._pulse = Pulse(timing.token_ms // 2, boottime_ns())
        self._beating: asyncio.TimerHandle | None = None
        self._session: Session | None = None
        self._exchange: Exchange | None = None
        self._rejoiner = Rejoiner()
        self._out: list[bytes] = []
        """Payloads of the present view."""
        self._out_bytes = 0
        self._messages: deque[bytes] = deque()
        """Encoded, and next to be sent."""
        self._in_flight = 0
        self._sending = False
        self._in: deque[RingInput] = deque()
        self._turning = False
        self._timers: list[asyncio.TimerHandle] = []
        """Of the present change."""
        self._overdue: asyncio.TimerHandle | None = None
        """Runs from the end of the last view on, whatever changes meanwhile."""
        self._quiet_s = 0.0
        """When the last change came, or the last hello, by the loop's clock."""
        self._formed = 0
        """How often corosync's ring has formed since."""
        self._ended: asyncio.Future[str] | None = None
        self._told = ""
        """The last RingLost's reason; "" while in a view."""
        self._remarked = ""
        self._quorate: bool | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        assert self._task is None, "started twice"
        self._beat()
        self._task = asyncio.create_task(self._keep_connected(), name=f"corosync ring of node {self.node}")

    def multicast(self, payload: bytes) -> None:
        """Send to all members.  Dropped while there is no view, or while corosync takes nothing.

        Raises BadInput if the payload is larger than the ring carries."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise BadInput(
                f"a message of {len(payload)} bytes is over the ring's limit of {MAX_PAYLOAD_BYTES}"
            )
        if not self._in_view or self._out_bytes > UNSENT_LIMIT_BYTES:
            self.dropped += 1
            return
        self._out.append(payload)
        self._out_bytes += len(payload)
        self._send_soon()

    async def leave(self) -> None:
        """Leave the group, wait until that was ordered (2 s at most), and stop."""
        session, ended = self._session, self._ended
        self._send()
        self._stopping = True
        if session is not None and ended is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_TIMEOUT_S):
                    await _in_thread(lambda: session.leave(lambda: self._session is None))
                    await asyncio.shield(ended)
        await self.stop()

    async def stop(self) -> None:
        """End the connection without a word; no further input comes."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._beating is not None:
            self._beating.cancel()
        self._drop()
        self._in.clear()

    # -- the connection ----------------------------------------------------------------

    async def _keep_connected(self) -> None:
        pause_s = FIRST_RETRY_S
        while not self._stopping:
            try:
                session = await self._connected()
            except RingfenceError as error:
                reason, was_in = str(error), False
            else:
                reason, was_in = await self._until_ended(session)
            if self._stopping:
                return
            self._lost(reason)
            if was_in:
                pause_s = FIRST_RETRY_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_RETRY_S)

    async def _connected(self) -> Session:
        """Raises RingfenceError: why not."""
        session = Session()
        waiting = True

        def work() -> None:
            session.open(os.getpid(), self._check, lambda: not waiting)
            if not waiting:
                session.close()

        opening = asyncio.ensure_future(_in_thread(work))
        try:
            done, _ = await asyncio.wait([opening], timeout=ANSWER_S)
            if not done:
                self._lost(
                    "corosync does not answer on this host; is its process stopped? (`systemctl restart "
                    "corosync`); this node then joins by itself"
                )
            await opening
        finally:
            waiting = False
        return session

    def _check(self, session: Session) -> None:
        """In the connecting thread, before the join.  Raises RingfenceError."""
        if session.me.node != self.node:
            raise BadInput(
                f"corosync calls this host node {session.me.node}, ringfence.toml calls it node {self.node}",
                next="make `nodeid` in corosync.conf and `id` in ringfence.toml the same on all hosts",
            )
        unsafe(self._timing, session.token_ms, session.consensus_ms)

    async def _until_ended(self, session: Session) -> tuple[str, bool]:
        """Live in the group.  Returns why that ended, and whether there was a view."""
        loop = asyncio.get_running_loop()
        self._session, self._ended, self._in_flight = session, loop.create_future(), 0
        self._exchange = Exchange(session.me, self.seen)
        before = self.seen
        self._remark(compare(self._timing, session.token_ms, session.consensus_ms))
        self._say_quorum()
        try:
            loop.add_reader(session.fd, self._turn)
            if session.quorum_fd >= 0:
                loop.add_reader(session.quorum_fd, self._hear_quorum)
            return await self._ended, self.seen > before
        finally:
            self._drop()

    def _end(self, why: str) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(why)

    def _gone(self, error: Gone) -> None:
        self._end(
            f"corosync on this host is gone ({error}); start it again with `systemctl start corosync`, "
            "this node then joins by itself"
        )

    def _drop(self) -> None:
        self._change_over()
        self._view_came()
        self._clear_out()
        session, self._session, self._exchange = self._session, None, None
        if session is None:
            return
        loop = asyncio.get_running_loop()
        for fd in (session.fd, session.quorum_fd):
            if fd >= 0:
                loop.remove_reader(fd)
        _thread(session.close)

    def _lost(self, reason: str) -> None:
        """One RingLost a loss; a new one while still lost only if the reason is another."""
        if reason != self._told:
            self._told = reason
            self._put(RingLost(reason))

    # -- what comes ----------------------------------------------------------------------

    def _turn(self) -> None:
        """Hand over what waits, then take more in, for one slice; the loop's other work comes in between.

        What waits keeps more from being taken in: it is then corosync's to hold."""
        loop = asyncio.get_running_loop()
        until = loop.time() + SLICE_S
        self._turning = False
        try:
            while True:
                if self._in:
                    self.on_input(self._in.popleft())
                elif not self._take_one():
                    return
                if loop.time() >= until:
                    return
        except Gone as error:
            self._gone(error)
        finally:
            self._look_at_change()
            if self._in:
                self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _put(self, fact: RingInput) -> None:
        self._in.append(fact)
        self._turn_soon()

    def _take_one(self) -> bool:
        """Returns whether there may be more."""
        session, exchange = self._session, self._exchange
        if session is None or exchange is None:
            return False
        if not session.dispatch():
            return False
        facts, session.facts = session.facts, []
        for fact in facts:
            if isinstance(fact, Confchg):
                self._confchg(exchange, fact)
            elif isinstance(fact, RingFormed):
                exchange.ring_formed(fact)
                self._formed += 1
                self._view_over()
            else:
                self._message(exchange, *fact)
        return True

    def _confchg(self, exchange: Exchange, change: Confchg) -> None:
        exchange.confchg(change)
        self._view_over()
        if exchange.out:
            self._end("this node has left corosync's group")
        elif exchange.twins and exchange.me in change.joined:  # the second comes and goes: the first stays
            pid = exchange.twins[0].pid
            self._end(
                f"another daemon of node {self.node} is in corosync's group (process {pid} on this host); "
                "stop it, this node then joins by itself"
            )

    def _message(self, exchange: Exchange, sender: Process, data: bytes) -> None:
        if sender == exchange.me:
            self._in_flight -= 1
            if self._out or self._messages:
                self._send_soon()
        try:
            message = decode(data)
        except NotOurs:
            self.foreign += 1
            return
        if isinstance(message, Hello):
            self._quiet_s = asyncio.get_running_loop().time()
            view = exchange.heard(sender, message)
            if view is not None:
                self._enter(view)
            return
        if isinstance(message, LeaveOut):
            view = exchange.told_to_leave_out(sender, message)
            if view is not None:
                self._enter(view)
            elif exchange.left_out:
                self._end("the other daemons went on without this one, which did not answer; it joins anew")
            return
        if exchange.view is None:
            return  # of a view that is over
        if isinstance(message, Batch):
            self._in.extend(Delivered(sender.node, payload) for payload in message.payloads)
        elif isinstance(message, Piece) and (payload := self._rejoiner.add(sender, message)) is not None:
            self._in.append(Delivered(sender.node, payload))

    # -- changes and views -----------------------------------------------------------------

    @property
    def _in_view(self) -> bool:
        return self._exchange is not None and self._exchange.view is not None

    def _view_over(self) -> None:
        """What waits was meant for a view that is over; the engine says it again."""
        self._quiet_s = asyncio.get_running_loop().time()
        self._change_over()
        self._clear_out()
        self._rejoiner.forget()

    def _clear_out(self) -> None:
        self._out, self._out_bytes = [], 0
        self._messages.clear()

    def _change_over(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers = []

    def _view_came(self) -> None:
        self._formed = 0
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _look_at_change(self) -> None:
        """What had come is taken in: answer the change that is the last of it."""
        exchange = self._exchange
        if exchange is None or exchange.view is not None or not exchange.members or self._timers:
            return
        loop, patience_s = asyncio.get_running_loop(), self._patience_s(exchange)
        self._timers = [loop.call_later(patience_s, self._say_hello, exchange)]
        if self._overdue is None:
            self._overdue = loop.call_later(patience_s + EXCHANGE_S, self._name_who_is_missing, exchange)

    def _patience_s(self, exchange: Exchange) -> float:
        """How long the change may turn out to be another than it looks."""
        detection_ms = self._timing.detection_ms
        if exchange.alone and self._pulse.stood_still(boottime_ns(), detection_ms):
            return detection_ms / 1000
        return DOUBT_S if exchange.doubtful else 0

    def _beat(self) -> None:
        self._pulse.beat(boottime_ns())
        loop = asyncio.get_running_loop()
        self._beating = loop.call_later(self._timing.token_ms / 8000, self._beat)

    def _say_hello(self, exchange: Exchange) -> None:
        hello = exchange.hello()
        if hello is not None:
            self._messages.append(encode(hello))
            self._send()

    def _name_who_is_missing(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        self._overdue = loop.call_later(EXCHANGE_S, self._name_who_is_missing, exchange)
        if self._formed >= RESTLESS:
            self._lost(
                "corosync's ring forms anew again and again, and nothing passes in it; look whether every "
                "node reaches every other, in both directions (`corosync-cfgtool -n` on each)"
            )
            return
        self._leave_out(exchange)
        missing = exchange.waiting_for
        mine = exchange.me in missing
        names = " and ".join(f"node {one.node} (process {one.pid})" for one in missing if one != exchange.me)
        if mine:
            self._lost(
                "corosync does not deliver this node's own words; look at the network between the nodes "
                "(`corosync-cfgtool -s`) and whether corosync runs"
            )
        elif missing:
            self._lost(
                f"the ringfence daemon of {names} does not answer in corosync's group; look whether it is "
                "stopped, or something else has joined the group"
            )

    def _leave_out(self, exchange: Exchange) -> None:
        """Have those left out who have not answered for long.  The first who has says so, then the next.

        Not by one who stood still just now: what the others have said meanwhile may wait to be taken in."""
        word = exchange.leave_out()
        if word is None or self._pulse.stood_still(boottime_ns(), self._timing.detection_ms):
            return
        rank = exchange.answered.index(exchange.me)
        if asyncio.get_running_loop().time() - self._quiet_s >= self._timing.left_out_ms(rank) / 1000:
            self._messages.append(encode(word))
            self._send()

    def _enter(self, view: ViewChanged) -> None:
        self._change_over()
        self._view_came()
        self._told = ""
        self.seen = view.epoch.seq
        self._in.append(view)

    # -- what goes ---------------------------------------------------------------------------

    def _send_soon(self) -> None:
        if not self._sending:
            self._sending = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        """Send what waits, in as few messages as can be, as far as corosync takes them.

        Not beside a leave, which writes into the same buffer of the library in a thread of its own."""
        self._sending = False
        session = self._session
        if session is None or self._stopping:
            return
        try:
            while self._in_flight < IN_FLIGHT:
                if not self._messages and self._out:
                    waiting, self._out, self._out_bytes = self._out, [], 0
                    self._messages.extend(messages(waiting))
                if not self._messages:
                    return
                if not session.mcast(self._messages[0]):
                    self._sending = True
                    asyncio.get_running_loop().call_later(FULL_RETRY_S, self._send)
                    return
                self._messages.popleft()
                self._in_flight += 1
        except Gone as error:
            self._gone(error)

    # -- beside the order ----------------------------------------------------------------------

    def _hear_quorum(self) -> None:
        assert self._session is not None
        try:
            self._session.dispatch_quorum()
        except Gone as error:
            self._gone(error)
        else:
            self._say_quorum()

    def _say_quorum(self) -> None:
        assert self._session is not None
        quorate = self._session.quorate is not False
        if quorate != self._quorate:
            self._quorate = quorate
            self._put(QuorumSaid(quorate))

    def _remark(self, what: str) -> None:
        if what != self._remarked:
            self._remarked = what
            self._put(RingRemarked(what))


async def _in_thread(work: Callable[[], None]) -> None:
    """Wait for work in a thread that nothing waits for at the process's end.  Raises what it raises."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failed: BaseException | None = None
        try:
            work()
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, failed)

    _thread(run)
    await done


def _thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="corosync", daemon=True).start()
