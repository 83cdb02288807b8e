"""`exchange.c`: the one grant that it reads is read as `Link` reads it, and all else is left to `Link`.

The tests of locks (test_client_locks.py) run with it and without."""

import contextlib
import gc
import random
import resource
import signal
import socket
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from client_scripted import Daemon, LockTable

from ringfence.client import Lockspace, exchange, link
from ringfence.client.link import Answer
from ringfence.client.messages import Grant, Lines, grant_of
from ringfence.core import errors
from ringfence.core.modes import EX
from ringfence.wire import client as calls
from ringfence.wire.client import Reply, decode_reply, encode

TOLD = {
    "lock": 7, "mode": "EX", "token": "31.1.992", "lvb": calls.NO_VALUE, "lvb_valid": True,
    "demoted": False, "altmode": False,
}  # fmt: skip
LINE = b"{}\n"
CASES = 20_000
ODD = (*b'\0\n"{}:,.0129-+ eEUNL', 0x80, 0xFF)


class Holder:
    pass


class End:
    """A link's way whose other end is ours."""

    def __init__(self) -> None:
        self.mine, self.other = socket.socketpair()
        self.lines = Lines()
        self.holders: dict[int, object] = {}
        self.sending, self.reading = threading.Lock(), threading.RLock()
        self.holder = Holder()
        self.answer = Answer(self.holder)  # type: ignore[arg-type]

    @property
    def way(self) -> exchange.Way:
        return self.mine, self.sending, self.reading, self.lines, self.holders

    def say(self, line: bytes = LINE) -> bool:
        assert exchange.say is not None, "it was not built"
        return exchange.say(self.way, line)

    def hear(self, reply: bytes, id: str = "12", limit_ms: int = 5000) -> Grant | None:
        assert exchange.hear is not None, "it was not built"
        if reply:
            self.other.sendall(reply)
        return exchange.hear(self.way, id, self.answer, limit_ms)

    def peek(self) -> bool:
        assert exchange.peek is not None, "it was not built"
        return exchange.peek(self.way)

    def left(self) -> bytes:
        return b"".join(chunk for _, chunk in self.lines.chunks)

    def forget(self) -> None:
        self.lines.chunks, self.lines.undigested = [], False

    def nobody_reads(self) -> bool:
        """Whether the reader's lock is free, for any thread."""
        free = []
        asks = threading.Thread(target=lambda: free.append(self.reading.acquire(blocking=False)))
        asks.start()
        asks.join()
        return free == [True]


@pytest.fixture
def end() -> Iterator[End]:
    one = End()
    with one.mine, one.other:
        yield one


# -- what is read ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told", [TOLD, TOLD | {"mode": "PR"}, TOLD | {"lock": 10**18 - 1, "token": f"{10**18 - 1}.0.0"}]
)
def test_a_grant_is_read_as_the_link_reads_it(end: End, told: dict[str, object]) -> None:
    assert end.hear(encode(Reply("12", told))) == grant_of(told)
    assert end.holders == {told["lock"]: end.holder}
    assert (end.left(), end.lines.undigested) == (b"", False)
    assert end.nobody_reads()


OTHERS = (
    Reply("13", TOLD), Reply("1", TOLD), Reply("12", error={"code": "held"}),
    Reply("", error={"code": "bad"}), Reply("012", TOLD),
    Reply("12", TOLD, final=False), Reply("12", {"blocking": "EX", "lock": 7}),
    Reply("12", TOLD | {"lvb": "QUFB"}), Reply("12", TOLD | {"lvb": None, "lvb_valid": False}),
    Reply("12", TOLD | {"lvb_valid": False}), Reply("12", TOLD | {"demoted": True}),
    Reply("12", TOLD | {"mode": "UN"}), Reply("12", TOLD | {"mode": "EXX"}), Reply("12", TOLD | {"mode": ""}),
    Reply("12", TOLD | {"token": "31.1"}), Reply("12", TOLD | {"token": "31.1.-2"}),
    Reply("12", TOLD | {"lock": 10**18}), Reply("12", TOLD | {"lock": -7}),
    Reply("12", TOLD | {"incarnation": 3}), Reply("12", {key: TOLD[key] for key in list(TOLD)[:5]}),
)  # fmt: skip


@pytest.mark.parametrize(
    "reply", [*(encode(one) for one in OTHERS), encode(Reply("12", TOLD)) * 2, b"\n", b"\0" * 16384]
)
def test_what_is_something_else_is_left_to_the_link(end: End, reply: bytes) -> None:
    assert end.hear(reply) is None
    assert end.left() == reply
    assert end.lines.undigested
    assert not end.holders
    assert end.nobody_reads()


def test_whatever_bytes_come_no_other_grant_is_read_and_none_is_lost(end: End) -> None:
    """Each piece of a grant, then grants with bytes changed, taken out, put in and cut, and mere noise."""
    whole = encode(Reply("12", TOLD))
    chance = random.Random(3)
    found = 0
    for number in range(CASES):
        reply = bytearray(whole)
        if number < len(whole):
            del reply[number or 1 :]
        for _ in range(chance.randrange(1, 4) if number >= len(whole) else 0):
            at, odd = chance.randrange(len(reply)), chance.choice(ODD)
            kind = chance.randrange(5)
            if kind == 0:
                reply[at] = odd
            elif kind == 1:
                reply.insert(at, odd)
            elif kind == 2:
                del reply[at]
            elif kind == 3:
                reply[at:] = chance.randbytes(chance.randrange(1, 300))
            else:
                reply += whole[: chance.randrange(len(whole))]
            reply = reply or bytearray(b"\n")
        heard = end.hear(bytes(reply))
        if heard is None:
            assert end.left() == reply
            end.forget()
        else:
            found += 1
            assert end.left() == b""
            one = decode_reply(bytes(reply))
            assert (one.id, one.error, one.final) == ("12", None, True)
            assert heard == grant_of(one.result)
    assert 0 < found < CASES // 2
    assert end.nobody_reads()


@pytest.mark.parametrize("reply", [LINE, encode(Reply("12", TOLD))])
def test_a_finalizer_that_uses_the_link_does_not_get_in_between(end: End, reply: bytes) -> None:
    """Python 3.11 collects garbage at any allocation, those between arrival and registration among them."""

    class Ring:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            end.other.send(b"second\n")
            peek(way)

    hear, peek = exchange.hear, exchange.peek
    assert hear is not None
    assert peek is not None
    way, before = end.way, gc.get_threshold()
    end.other.send(reply)
    gc.collect()
    gc.disable()
    try:
        Ring()
        gc.set_threshold(1)
        gc.enable()
        found = hear(way, "12", end.answer, 5000)
    finally:
        gc.enable()
        gc.set_threshold(*before)
    gc.collect()
    assert (found is None) == (reply == LINE)
    end.mine.setblocking(False)
    with contextlib.suppress(BlockingIOError):  # it was left to who reads what came first
        end.lines.feed(end.mine.recv(100))
    said = b"".join(chunk for _, chunk in sorted(end.lines.chunks))
    assert said == (b"second\n" if found else LINE + b"second\n") == end.left()


def test_nothing_is_kept_of_what_was_heard(end: End) -> None:
    """No reference is left behind, whatever came."""
    for reply in (encode(Reply("12", TOLD)), b"noise\n"):
        for _ in range(3):
            end.hear(reply)
            end.peek()
            end.say()
            end.forget()
            end.holders.clear()
    kept = weakref.ref(end.holder)
    end.answer = Answer(None)
    end.holder = Holder()
    gc.collect()
    assert kept() is None


# -- whose turn it is -----------------------------------------------------------------------


@pytest.mark.parametrize("why", ["sending", "full", "long", "closed"])
def test_nothing_is_said_where_it_cannot_be_at_once(end: End, why: str) -> None:
    line = LINE
    if why == "sending":
        end.sending.acquire()
    elif why == "full":
        end.mine.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while end.mine.send(LINE * 100):
                pass
    elif why == "long":
        line = b"x" * 5000
    else:
        end.mine.close()
    assert end.say(line) is False
    if why in ("sending", "long"):
        end.other.setblocking(False)
        with pytest.raises(BlockingIOError):
            end.other.recv(1)


def test_what_is_said_to_nobody_is_not_said(end: End) -> None:
    end.other.close()
    assert end.say() is False


@pytest.mark.parametrize("why", ["reading", "unread", "half", "undigested", "answered", "closed"])
def test_nothing_is_heard_by_whose_turn_it_is_not(end: End, why: str) -> None:
    busy = threading.Thread(target=end.reading.acquire)
    if why == "reading":
        busy.start()
        busy.join()
    elif why == "unread":
        end.lines.feed(b"{")
    elif why == "half":
        end.lines._state = (b"a\nb", 2, 1)
    elif why == "undigested":
        end.lines.undigested = True
    elif why == "answered":
        end.answer.replies.append(Reply("12"))
    else:
        end.mine.close()
    before = end.left()
    assert end.hear(encode(Reply("12", TOLD)) if why != "closed" else b"") is None
    if why != "answered":
        assert end.peek() is (why != "reading")
    assert (end.left(), end.holders) == (before, {})
    if why != "closed":
        assert end.mine.recv(100)


def test_a_time_that_is_over_and_the_end(end: End) -> None:
    assert end.hear(b"", limit_ms=20) is None
    assert (end.left(), end.lines.undigested) == (b"", False)
    end.other.close()
    assert end.hear(b"") is None
    assert end.lines.over
    assert end.lines.undigested


def test_a_word_is_heard_without_waiting(end: End) -> None:
    assert end.peek() is False
    end.other.sendall(b"word")
    assert end.peek() is True
    assert (end.left(), end.lines.undigested) == (b"word", True)
    end.forget()
    end.other.close()
    assert end.peek() is True
    assert end.lines.over


def test_a_wait_that_cannot_begin_is_left_to_the_link(end: End) -> None:
    """poll(2) fails while it may look at no descriptor: that is no end of the connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert end.hear(b"") is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert end.nobody_reads()
    assert (end.lines.chunks, end.lines.undigested) == ([], False)


def test_what_is_no_way_is_refused(end: End) -> None:
    assert exchange.say is not None
    assert exchange.hear is not None
    assert exchange.peek is not None
    for way in ((), (1,), None, [1] * 5):
        with pytest.raises(TypeError):
            exchange.say(way, LINE)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            exchange.hear(way, "1", end.answer, -1)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            exchange.peek(way)  # type: ignore[arg-type]
    answer = end.answer
    for words in ((1, answer, -1), ("1", answer, "1"), ("1", None, -1), ("1", answer, 1 << 70), ()):
        with pytest.raises((TypeError, AttributeError, OverflowError)):
            exchange.hear(end.way, *words)  # type: ignore[arg-type, call-arg]
    assert end.nobody_reads()
    assert (end.left(), end.holders) == (b"", {})


# -- in a link --------------------------------------------------------------------------------


@pytest.fixture
def peer(peer: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """Its grants are those that are read in C."""
    monkeypatch.setattr(LockTable, "lvb", calls.NO_VALUE)
    return peer


def wrapped(monkeypatch: pytest.MonkeyPatch, name: str, before: Any = None, after: Any = None) -> list[Any]:
    """What a call of that name returned, with something done before and after each."""
    kept = getattr(link, name)
    assert kept is not None, "it was not built"
    found: list[Any] = []

    def call(*words: Any) -> Any:
        if before is not None:
            before()
        found.append(kept(*words))
        if after is not None:
            after()
        return found[-1]

    monkeypatch.setattr(link, name, call)
    return found


def test_it_is_in_use(space: Lockspace, peer: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    said, heard, peeked = (wrapped(monkeypatch, name) for name in ("say", "hear", "peek"))
    for number in range(1, 4):
        with space.lock("chess") as lock:
            assert (lock.mode, str(lock.token), lock.lvb) == (EX, f"3.1.{number}", bytes(32))
    peer.until(lambda: len(peer.calls(calls.Unlock)) == 3)
    assert said == [True] * 6
    assert all(isinstance(one, Grant) for one in heard)
    assert (len(heard), peeked) == (3, [False] * 3)


@pytest.mark.parametrize(
    ("name", "when"), [("say", "before"), ("say", "after"), ("hear", "before"), ("hear", "after")]
)
def test_an_interrupt_between_the_calls_takes_the_request_back(
    space: Lockspace, peer: Daemon, monkeypatch: pytest.MonkeyPatch, name: str, when: str
) -> None:
    """From before a request is sent until its grant is known here."""
    strikes = [signal.SIGINT]
    with monkeypatch.context() as patched:
        wrapped(patched, name, **{when: lambda: [signal.raise_signal(strikes.pop()) for _ in strikes[:]]})
        with pytest.raises(KeyboardInterrupt):
            space.lock("chess")
    sent = not (name == "say" and when == "before")
    peer.until(lambda: len(peer.calls(calls.Lock)) == sent)
    asked = [one.id for _, one in peer.asked if isinstance(one.call, calls.Lock)]
    used = space._connection.link()
    assert not used.holders
    assert not used._answers
    with space.lock("go") as lock:
        assert lock.held
    assert peer.gone == []
    assert [one.request for one in peer.calls(calls.Cancel)] == (asked[:1] if sent else ["1"])


def test_an_interrupt_while_it_waits(space: Lockspace, peer: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is caught in recv(2)."""
    heard = wrapped(monkeypatch, "hear")

    def strike() -> None:
        peer.until(lambda: len(peer.calls(calls.Lock)) == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    strikes = threading.Thread(target=strike)
    strikes.start()
    with pytest.raises(KeyboardInterrupt):
        space.lock("busy")
    strikes.join()
    peer.until(lambda: len(peer.calls(calls.Cancel)) == 1)
    assert peer.calls(calls.Cancel) == [calls.Cancel(peer.asked[1][1].id)]
    assert heard in ([], [None])
    with space.lock("go"):
        pass


def test_a_signal_s_handler_may_use_the_same_link(
    space: Lockspace, peer: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the grant that is waited for, before this is waited for."""
    used = space._connection.link()

    def handler(number: int, frame: object) -> None:
        used.ask(calls.Request(used.new_id(), calls.Status()))

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        heard = wrapped(monkeypatch, "hear", before=lambda: signal.raise_signal(signal.SIGUSR1))
        with space.lock("chess") as lock:
            assert str(lock.token) == "3.1.1"
            assert used.holders == {1: lock}
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [None]


def test_others_lead_when_it_has_heard(
    space: Lockspace, peer: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads on one link: who waits while another one hears is woken when that one has its grant."""
    used = space._connection.link()
    monkeypatch.setattr(space._connection, "link_for", lambda lockspace, resource: used)
    for _ in range(200):
        threads = [threading.Thread(target=lambda: space.lock("chess").unlock()) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert not used._answers


def test_who_follows_sleeps(space: Lockspace, peer: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread reads, the others do not wake one another."""
    used = space._connection.link()
    monkeypatch.setattr(space._connection, "link_for", lambda lockspace, resource: used)
    follows = 0
    kept = link.Link._follow

    def follow(self: link.Link, answer: Answer, deadline_s: float | None) -> None:
        nonlocal follows
        follows += 1
        kept(self, answer, deadline_s)

    monkeypatch.setattr(link.Link, "_follow", follow)

    def wait() -> None:
        with contextlib.suppress(errors.RingfenceError):
            space.lock("busy", wait_ms=60_000)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    peer.until(lambda: len(peer.calls(calls.Lock)) == 3)
    threading.Event().wait(0.2)
    assert follows <= 6
    used.end("enough")
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
