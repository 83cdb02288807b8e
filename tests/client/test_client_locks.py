"""Locks of the blocking client against the real client socket with scripted answers."""

import base64
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from client_scripted import IN_PYTHON, Daemon, LockTable, daemon

import ringfence
from ringfence.client import Lock, Lockspace, exchange
from ringfence.client import link as links
from ringfence.core import errors
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.locks.flags import Flag
from ringfence.wire import client as calls
from ringfence.wire.client import Reply, Request


@pytest.fixture(params=["C", "C that knows no grant", "Python"], autouse=True)
def spoken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All holds whoever reads the grants.  Returns: the same for a child process, as its first line."""
    assert exchange.hear is not None, "exchange.c was not built"
    if request.param == "C":
        monkeypatch.setattr(LockTable, "lvb", calls.NO_VALUE)
    if request.param != "Python":
        return ""
    for name in ("say", "hear", "peek"):
        monkeypatch.setattr(links, name, None)
    return IN_PYTHON


def asked(peer: Daemon) -> tuple[int, Request]:
    """The newest request for a lock, and who sent it."""
    with peer.changed:
        return next(one for one in reversed(peer.asked) if isinstance(one[1].call, calls.Lock))


def say(peer: Daemon, what: dict[str, object]) -> None:
    """A word about the newest lock."""
    client, request = asked(peer)
    peer.say(client, Reply(request.id, what, final=False))


# -- one lock ----------------------------------------------------------------------


def test_a_lock_s_life(peer: Daemon, space: Lockspace) -> None:
    value = base64.b64decode(LockTable.lvb)
    with space.try_lock("chess", "EX") as lock:
        assert (lock.mode, lock.token, lock.lvb, lock.held) == (Mode.EX, Token(3, 1, 1), value, True)
        assert lock.convert(Mode.PR, lvb=b"b" * 32) == Token(3, 1, 1)
        assert lock.mode is Mode.PR
    assert (lock.held, lock.mode) == (False, Mode.UN)
    lock.unlock()  # a second unlock does nothing
    with pytest.raises(errors.BadInput, match="has been released"):
        lock.convert("EX")
    peer.until(lambda: len(peer.asked) == 4)
    assert [request.call for _, request in peer.asked[1:]] == [
        calls.Lock("games", "chess", "EX", 0, thread=peer.calls(calls.Lock)[0].thread),
        calls.Convert(1, "PR", lvb=b"b" * 32),
        calls.Unlock(1, quiet=True),
    ]
    with pytest.raises(errors.BadInput, match="no lock mode"):
        space.lock("chess", "XX")


def test_who_gave_its_mode_up_for_a_conversion_that_failed_knows(space: Lockspace) -> None:
    with space.lock("chess", "PR") as lock:
        with pytest.raises(errors.TimedOut):
            lock.convert("EX", wait_ms=1000, flags=Flag.CONVDEADLK)
        assert (lock.held, lock.mode) == (True, Mode.NL)


def test_a_value_block_is_written_before_unlock_returns(peer: Daemon, space: Lockspace) -> None:
    lock = space.lock("chess")
    with pytest.raises(errors.BadInput, match="32 bytes"):
        lock.unlock(lvb=b"short")
    assert lock.held
    lock.unlock(lvb=b"v" * 32)
    assert peer.calls(calls.Unlock) == [calls.Unlock(1, lvb=b"v" * 32)]
    space.lock("chess").unlock(wait=True)
    assert peer.calls(calls.Unlock)[1:] == [calls.Unlock(2)]


@pytest.mark.parametrize("value", [b"short", "v" * 32, 5])
def test_what_is_no_value_block_leaves_the_lock_held(peer: Daemon, space: Lockspace, value: object) -> None:
    lock = space.lock("chess")
    with pytest.raises(errors.BadInput, match="a value block"):
        lock.unlock(lvb=value)  # type: ignore[arg-type]
    with pytest.raises(errors.BadInput, match="a value block"):
        lock.convert("NL", lvb=value)  # type: ignore[arg-type]
    assert lock.held
    lock.unlock(wait=True)
    assert peer.calls(calls.Unlock) == [calls.Unlock(1)]


@pytest.mark.parametrize("name", [["chess"], {"a": 1}, None, 5])
def test_what_is_no_name(peer: Daemon, space: Lockspace, name: Any) -> None:
    with pytest.raises(errors.BadInput, match="is no name; give str or bytes"):
        space.lock(name)
    with pytest.raises(errors.BadInput, match="is no lock mode"):
        space.lock("chess", name)
    assert peer.calls(calls.Lock) == []


def test_a_lock_that_is_none_is_found_out_here(peer: Daemon, space: Lockspace) -> None:
    with pytest.raises(errors.BadInput, match="is no lock mode"):
        space.lock("chess", Mode.UN)
    assert peer.calls(calls.Lock) == []


def test_a_wait_as_long_as_can_be_written(peer: Daemon, space: Lockspace) -> None:
    with space.lock("chess", wait_ms=sys.maxsize) as lock:
        assert lock.held


def test_what_cannot_be_called_is_found_out_at_once(peer: Daemon, space: Lockspace) -> None:
    nothing: Any = 1
    for callbacks in ({"on_blocking": nothing}, {"on_lost": nothing}):
        with pytest.raises(errors.BadInput, match="1 cannot be called"):
            space.lock("chess", **callbacks)
    assert peer.calls(calls.Lock) == []


def test_an_unlock_that_the_daemon_cannot_read_leaves_the_lock_held(
    peer: Daemon, space: Lockspace
) -> None:
    table = peer.script

    def script(one: Daemon, client: int, request: Request) -> None:
        if isinstance(request.call, calls.Unlock) and len(peer.calls(calls.Unlock)) == 1:
            one.reply(client, Reply(request.id, error=errors.BadInput("unknown request").as_dict()))
        else:
            table(one, client, request)

    peer.script = script
    told = threading.Event()
    lock = space.lock("chess", on_lost=told.set)
    with pytest.raises(errors.BadInput, match="unknown request"):
        lock.unlock(wait=True)
    assert lock.held
    say(peer, {"lost": True, "lock": 1})
    assert told.wait(60)


@pytest.mark.parametrize("wait_ms", [1.5, float("nan"), "5", True])
def test_a_wait_that_is_no_number_of_milliseconds_asks_nothing(
    peer: Daemon, space: Lockspace, wait_ms: object
) -> None:
    lock = space.lock("chess", "PR")
    with pytest.raises(errors.BadInput, match="whole milliseconds"):
        space.lock("chess", wait_ms=wait_ms)  # type: ignore[arg-type]
    with pytest.raises(errors.BadInput, match="whole milliseconds"):
        lock.convert("EX", wait_ms=wait_ms)  # type: ignore[arg-type]
    assert lock.held
    assert len(peer.asked) == 2


@pytest.mark.parametrize("name", [None, 5])
def test_names_and_modes_of_another_type(peer: Daemon, space: Lockspace, name: object) -> None:
    with pytest.raises(errors.BadInput, match="is no name"):
        space.lock(name)  # type: ignore[arg-type]
    with pytest.raises(errors.BadInput, match="is no lock mode"):
        space.lock("chess", name and 7)  # type: ignore[arg-type]
    assert len(peer.asked) == 1


def test_many_locks_share_one_connection(peer: Daemon, space: Lockspace) -> None:
    locks = [space.lock(f"r{number}") for number in range(50)]
    for lock in locks:
        lock.unlock()
    peer.until(lambda: len(peer.calls(calls.Unlock)) == 50)
    assert len({client for client, _ in peer.asked}) == 1
    assert peer.gone == []


def test_a_refused_lock_leaves_nothing_behind() -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        if isinstance(request.call, calls.Lock):
            one.reply(client, Reply(request.id, error=errors.LockHeld("held by b").as_dict()))
        else:
            one.reply(client, Reply(request.id, {}))

    with daemon(script) as one, ringfence.connect(one.path) as ring:
        for _ in range(3):
            with pytest.raises(errors.LockHeld):
                ring.lockspace("games").try_lock("chess")
        assert one.gone == []


# -- losses ------------------------------------------------------------------------


def test_the_end_of_the_connection_ends_its_locks(peer: Daemon) -> None:
    with ringfence.connect(peer.path) as ring:
        lock = ring.lockspace("games").lock("chess")
    peer.until(lambda: len(peer.gone) == 1)
    assert not lock.held


class Restarted(LockTable):
    """A daemon that is in a lockspace only once it was told so since `restart`."""

    def __init__(self) -> None:
        super().__init__()
        self.joined: set[str] = set()

    def __call__(self, daemon: Daemon, client: int, request: Request) -> None:
        call = request.call
        if isinstance(call, calls.JoinSpace):
            self.joined.add(call.lockspace)
        elif isinstance(call, calls.LeaveSpace):
            self.joined.discard(call.lockspace)
        elif isinstance(call, calls.Lock) and call.lockspace not in self.joined:
            daemon.reply(client, Reply(request.id, error=errors.NotFound("not in it").as_dict()))
            return
        super().__call__(daemon, client, request)

    def restart(self, peer: Daemon) -> None:
        self.joined.clear()
        for client in {client for client, _ in peer.asked}.difference(peer.gone):
            peer.end(client)


def test_a_wait_that_another_thread_s_close_ends_does_not_blame_the_daemon(peer: Daemon) -> None:
    ring = ringfence.connect(peer.path)
    space = ring.lockspace("games")
    said: list[errors.RingfenceError] = []

    def wait() -> None:
        with pytest.raises(errors.LocksLost) as caught:
            space.lock("busy")
        said.append(caught.value)

    waiting = threading.Thread(target=wait)
    waiting.start()
    peer.until(lambda: len(peer.calls(calls.Lock)) == 1)
    ring.close()
    waiting.join(60)
    (error,) = said
    assert str(error) == "the connection was closed here while games/busy was asked for; connect anew"
    assert not error.retry


@pytest.mark.parametrize("cached", [False, True])
def test_a_lockspace_is_joined_anew_after_a_restart_of_the_daemon(cached: bool) -> None:
    table = Restarted()
    with daemon(table) as one, ringfence.connect(one.path, retry_ms=60_000) as ring:
        space = ring.lockspace("games")
        table.restart(one)
        space.lock("chess", cached=cached).unlock()
        space.lock("go", wait_ms=5000).unlock()
        assert one.calls(calls.JoinSpace) == [calls.JoinSpace("games")] * 2
        table.restart(one)
        space.lock("chess", cached=cached, wait_ms=5000).unlock()
        assert one.calls(calls.JoinSpace)[2:] == [calls.JoinSpace("games", 5000)]


def test_a_thread_that_slept_through_the_restart_does_not_hide_it() -> None:
    table = Restarted()
    with daemon(table) as one, ringfence.connect(one.path) as ring:
        space = ring.lockspace("games")  # on this thread's link, which hears of nothing until it asks
        table.restart(one)
        other = threading.Thread(target=lambda: space.lock("chess").unlock())
        other.start()
        other.join(60)
        assert len(one.calls(calls.JoinSpace)) == 2


def test_a_lockspace_that_was_left_stays_left() -> None:
    table = Restarted()
    with daemon(table) as one, ringfence.connect(one.path) as ring:
        space, same = ring.lockspace("games"), ring.lockspace("games")
        space.leave()
        for it in (space, same):
            with pytest.raises(errors.NotFound, match="not in it"):
                it.lock("chess")
        table.restart(one)
        with pytest.raises(errors.NotFound, match="not in it"):
            space.lock("chess")
        assert len(one.calls(calls.JoinSpace)) == 2


@pytest.mark.parametrize("how", ["connection", "node"])
@pytest.mark.parametrize("listening", [False, True])
def test_a_lost_lock(peer: Daemon, space: Lockspace, listening: bool, how: str) -> None:
    told = threading.Event()
    lock = space.lock("chess", on_lost=told.set if listening else None)
    other = space.lock("go")
    if how == "connection":
        client, _ = peer.asked[1]
        peer.end(client)
    else:
        client, request = peer.asked[1]
        peer.say(client, Reply(request.id, {"lost": True, "lock": 1}))
    if listening:
        assert told.wait(60)
    else:
        eventually(lambda: not lock.held)
    with pytest.raises(errors.LocksLost, match="games/chess is lost"):
        lock.convert("PR")
    with pytest.raises(errors.LocksLost):
        lock.token  # noqa: B018
    with pytest.raises(errors.LocksLost):
        lock.unlock()
    lock.unlock()  # told once
    assert other.held is (listening or how == "node")
    assert space.lock("chess").held  # on a new connection, if need be
    assert peer.calls(calls.Convert) == []


def test_a_loss_that_the_daemon_has_told_is_no_quiet_unlock(peer: Daemon, space: Lockspace) -> None:
    lock = space.lock("chess")
    say(peer, {"lost": True, "lock": 1})
    space.lock("go").unlock(wait=True)  # its answer came after that word
    with pytest.raises(errors.LocksLost):
        lock.unlock()
    assert len(peer.calls(calls.Unlock)) == 1


def test_an_unlock_hears_of_the_loss_that_was_told_before_it(peer: Daemon, space: Lockspace) -> None:
    lock = space.lock("chess")
    say(peer, {"lost": True, "lock": 1})
    assert select.select([lock.fileno()], [], [], 60)[0]  # nobody has read it
    with pytest.raises(errors.LocksLost, match="games/chess is lost"):
        lock.unlock()
    assert not lock.held


def test_a_daemon_that_knows_the_lock_no_more() -> None:
    table = LockTable()

    def script(one: Daemon, client: int, request: Request) -> None:
        if isinstance(request.call, calls.Convert | calls.Unlock):
            one.reply(client, Reply(request.id, error=errors.NotFound("no such lock").as_dict()))
        else:
            table(one, client, request)

    with daemon(script) as one, ringfence.connect(one.path) as ring:
        space = ring.lockspace("games")
        with pytest.raises(errors.LocksLost):
            space.lock("chess").convert("PR")
        with pytest.raises(errors.LocksLost):
            space.lock("chess").unlock(wait=True)


def test_a_body_s_error_is_the_one_that_is_told(peer: Daemon, space: Lockspace) -> None:
    def fail() -> None:
        with space.lock("chess"):
            peer.end(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_a_frozen_daemon_does_not_hold_a_timed_wait_for_ever(
    peer: Daemon, space: Lockspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.client.messages.PATIENCE_MS", 50)
    other = space.lock("chess")
    with pytest.raises(errors.Unavailable, match="does not answer about games/busy"):
        space.lock("busy", wait_ms=10)
    peer.until(lambda: len(peer.calls(calls.Cancel)) == 1)
    assert other.held


# -- notices -----------------------------------------------------------------------


def test_a_notice_may_convert_and_unlock(peer: Daemon, space: Lockspace) -> None:
    heard: list[Mode] = []
    done = threading.Event()
    held: list[Lock] = []

    def on_blocking(wants: Mode) -> None:
        heard.append(wants)
        if wants is Mode.PR:
            held[0].convert("PR")
        else:
            held[0].unlock()
            done.set()

    held.append(space.lock("chess", on_blocking=on_blocking))
    say(peer, {"blocking": "PR", "lock": 1})
    say(peer, {"blocking": "EX", "lock": 1})
    assert done.wait(60)
    assert heard == [Mode.PR, Mode.EX]
    assert peer.calls(calls.Convert) == [calls.Convert(1, "PR")]
    assert peer.calls(calls.Unlock) == [calls.Unlock(1)]  # not quiet: what comes next comes after it


@pytest.mark.parametrize("error", [ValueError("planted"), SystemExit(3)])
def test_a_callback_that_fails_does_not_silence_the_next(
    peer: Daemon, space: Lockspace, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(wants: Mode) -> None:
        raise error

    failed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    lost = threading.Event()
    space.lock("chess", on_blocking=fails, on_lost=lost.set)
    say(peer, {"blocking": "PR", "lock": 1})
    say(peer, {"lost": True, "lock": 1})
    assert lost.wait(60)
    assert len(failed) == 1


def test_a_word_that_comes_with_the_grant_is_heard(peer: Daemon, space: Lockspace) -> None:
    """Grant and notice in one read: the lock is known by the time that the second is looked at."""
    table = peer.script

    def script(one: Daemon, client: int, request: Request) -> None:
        table(one, client, request)
        if isinstance(request.call, calls.Lock):
            one.reply(client, Reply(request.id, {"blocking": "EX", "lock": 1}, final=False))

    peer.script = script
    heard = threading.Event()
    lock = space.lock("chess", on_blocking=lambda wants: heard.set())
    assert heard.wait(60)
    assert lock.held


# -- threads, interrupts, children ---------------------------------------------------


@pytest.fixture
def shared(space: Lockspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads on one connection."""
    link = space._connection.link()
    monkeypatch.setattr(space._connection, "link_for", lambda lockspace, resource: link)


def test_a_thread_that_waits_keeps_nobody_from_asking(peer: Daemon, space: Lockspace, shared: None) -> None:
    """It leads, and hands out what the others are told; when it is done another one leads."""
    outcome: list[BaseException] = []

    def wait_long() -> None:
        try:
            space.lock("busy")
        except errors.Refused as error:
            outcome.append(error)

    waits = threading.Thread(target=wait_long)
    waits.start()
    peer.until(lambda: len(peer.calls(calls.Lock)) == 1)
    client, request = asked(peer)
    in_threads(4, lambda: [space.lock("chess").convert("PR") for _ in range(50)])
    assert space.lock("chess").held
    peer.say(client, Reply(request.id, error=errors.Refused("no").as_dict()))
    waits.join(60)
    assert len(outcome) == 1
    in_threads(4, lambda: [space.lock("chess").unlock(wait=True) for _ in range(50)])


def test_the_leader_s_end_wakes_another(peer: Daemon, space: Lockspace, shared: None) -> None:
    """Two wait, nobody else asks: when the leader has its answer the other one reads."""
    results: list[str] = []

    def ask(resource: str) -> None:
        try:
            space.lock(resource, wait_ms=60_000)
        except errors.Refused as error:
            results.append(error.message)

    threads = [threading.Thread(target=ask, args=("busy",)) for _ in range(3)]
    for number, thread in enumerate(threads):
        thread.start()
        peer.until(lambda number=number: len(peer.calls(calls.Lock)) == number + 1)
    waiting = [one for one in peer.asked if isinstance(one[1].call, calls.Lock)]
    for count, (client, request) in enumerate(waiting, 1):
        peer.say(client, Reply(request.id, error=errors.Refused(request.id).as_dict()))
        eventually(lambda count=count: len(results) == count)
    for thread in threads:
        thread.join(60)
    assert results == [request.id for _, request in waiting]


def test_what_one_thread_unlocks_another_asks_for_after_it(peer: Daemon, space: Lockspace) -> None:
    """The unlock is not waited for; so that the other's try does not overtake it, it takes the same way."""
    space.lock("chess").unlock()
    first, _ = asked(peer)
    in_threads(1, lambda: space.try_lock("chess").unlock())
    assert asked(peer)[0] == first
    space.lock("other").unlock(wait=True)  # its answer tells that all before was seen
    in_threads(1, lambda: space.try_lock("chess"))
    assert asked(peer)[0] != first


def test_many_unlocks_without_a_question_are_asked_about(
    peer: Daemon, space: Lockspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.client.blocking.UNSEEN", 10)
    locks = [space.lock(f"r{number}") for number in range(30)]
    for lock in locks:
        lock.unlock()
    assert len(peer.calls(calls.Cancel)) == 2
    assert len(peer.calls(calls.Unlock)) >= 22


def test_a_thread_s_connection_goes_to_the_next(peer: Daemon, space: Lockspace) -> None:
    held: list[Lock] = []
    for number in range(5):
        in_threads(1, lambda number=number: held.append(space.lock(f"r{number}")))
    assert len({client for client, _ in peer.asked}) == 2
    assert all(lock.held for lock in held)


def test_one_handle_in_two_threads(peer: Daemon, space: Lockspace) -> None:
    """One operation at a time: whatever the order, it is unlocked once."""
    for number in range(20):
        lock = space.lock("chess")
        in_threads(3, lock.unlock)
        peer.until(lambda number=number: len(peer.calls(calls.Unlock)) == number + 1)


WAITER = """
import ringfence, sys
with ringfence.connect(sys.argv[1]) as ring:
    space = ring.lockspace("games")
    with space.lock("chess") as other:
        try:
            if sys.argv[2] == "lock":
                space.lock("busy")
            else:
                other.convert("CW")
        except KeyboardInterrupt:
            print("given up", other.held, other.mode.name, ring.status()["call"])
"""


@pytest.mark.parametrize("what", ["lock", "convert"])
def test_ctrl_c_takes_one_wait_back_and_nothing_else(peer: Daemon, what: str, spoken: str) -> None:
    waiter = subprocess.Popen(
        [sys.executable, "-c", spoken + WAITER, str(peer.path), what], stdout=subprocess.PIPE, text=True
    )
    try:
        peer.until(lambda: len(peer.asked) == 3)
        waiting = peer.asked[2][1].id
        os.kill(waiter.pid, signal.SIGINT)
        out, _ = waiter.communicate(timeout=60)
    finally:
        waiter.kill()
        waiter.wait()
    assert (out, waiter.returncode) == ("given up True EX Status\n", 0)
    assert peer.calls(calls.Cancel) == [calls.Cancel(waiting)]
    assert len(peer.calls(calls.Unlock)) == 1


STORM = """
import ringfence, signal, sys, threading, time

class Stop(Exception):
    pass

def stop(number, frame):
    # Python has a gap between what a `with` calls and its body (bpo-29988), which no library can close.
    if over:
        return
    if frame.f_code.co_name == "stop":  # on a slow machine each would be struck by the next one
        signal.setitimer(signal.ITIMER_REAL, 0.01)
    elif frame.f_code.co_name in ("<module>", "__enter__", "__exit__"):
        signal.setitimer(signal.ITIMER_REAL, 0.00001)
    else:
        raise Stop

over = False
signal.signal(signal.SIGALRM, stop)
ring = ringfence.connect(sys.argv[1])
space = ring.lockspace("games")
kind = {"on_lost": print} if sys.argv[2] == "listening" else {}
space.lock("first", **kind).unlock()  # threads start undisturbed
other = threading.Thread(target=lambda: None)
if sys.argv[2] == "shared":
    link = ring.link()
    ring.link_for = lambda lockspace, resource: link
    def take():
        while not over:
            space.lock("go").unlock()
    other = threading.Thread(target=take, daemon=True)
other.start()
end = time.monotonic() + 60
struck = 0
while struck < 2000 and time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.00005 + (struck % 40) * 0.00001)
        while True:
            with space.lock("chess", wait_ms=60_000, **kind) as lock:
                pass
    except Stop:
        struck += 1
over = True  # one that is on its way would set the timer again
signal.setitimer(signal.ITIMER_REAL, 0)
other.join(60)
assert not other.is_alive(), "nobody lets the other thread lead"
ring.lockspace("games")
print("struck", struck)
sys.stdin.readline()
"""


@pytest.mark.parametrize("kind", ["plain", "listening", "shared"])
def test_interrupts_at_any_point_leave_no_lock_behind(peer: Daemon, kind: str, spoken: str) -> None:
    """Signals strike all over lock and unlock.  What the daemon granted it is told to release, and the
    connection goes on."""
    storm = subprocess.Popen(
        [sys.executable, "-c", spoken + STORM, str(peer.path), kind],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert storm.stdout is not None
        words = storm.stdout.readline().split()
        assert words[:1] == ["struck"]
        assert int(words[1]) >= 100
        with peer.changed:
            left = left_behind(peer)
        storm.communicate("\n", timeout=60)
    finally:
        storm.kill()
        storm.wait()
    assert left == []
    assert len(peer.gone) <= (2 if kind == "listening" else 1), "a connection did not survive"


def left_behind(peer: Daemon) -> list[str]:
    """Locks of connections that are still there, neither unlocked nor taken back."""
    table = peer.script
    assert isinstance(table, LockTable)
    done = {
        (client, request.call.request)
        for client, request in peer.asked
        if isinstance(request.call, calls.Cancel)
    }
    return [
        f"{client}: {table.requests[lock]}"
        for lock, client in table.clients.items()
        if lock in table.taken and client not in peer.gone and (client, table.requests[lock]) not in done
    ]


def test_a_child_process_keeps_off_its_parent_s_connection(peer: Daemon, space: Lockspace) -> None:
    lock = space.lock("chess")
    kept = space.lock("go", cached=True)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # whatever happens, it must not come back into the tests
        words = [told(lambda: lock.convert("PR")), told(lambda: space.lock("x")), told(lambda: kept.token)]
        os.write(write, "\n".join(words).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        mine, new, _ = pipe.read().split("\n")
    assert "belongs to the parent process" in mine
    assert "made before the fork" in new
    assert "call connect() in the child" in new
    assert lock.convert("PR")
    assert peer.gone == []


def test_a_child_that_lives_on_does_not_keep_its_parent_s_locks(peer: Daemon) -> None:
    code = """
import os, ringfence, sys, time
ring = ringfence.connect(sys.argv[1])
lock = ring.lockspace("games").lock("chess")
if os.fork() == 0:
    sys.stdin.readline()
    os._exit(0)
os._exit(1)
"""
    parent = subprocess.Popen([sys.executable, "-c", code, str(peer.path)], stdin=subprocess.PIPE)
    assert parent.wait(60) == 1
    peer.until(lambda: len(peer.gone) == 1)
    assert parent.stdin is not None
    parent.stdin.close()


def test_sockets_are_closed(peer: Daemon) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with ringfence.connect(peer.path) as ring:
            space = ring.lockspace("games")
            space.lock("chess", on_lost=lambda: None).unlock()
            space.lock("chess", cached=True).unlock()
    peer.until(lambda: len(peer.gone) == 10)
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


def told(work: Callable[[], object]) -> str:
    try:
        work()
    except errors.RingfenceError as error:
        return str(error)
    return "nothing"


def in_threads(count: int, work: Callable[[], object]) -> None:
    failed: list[BaseException] = []

    def do() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=do) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread was left waiting"
    assert failed == []


def eventually(true: Callable[[], bool]) -> None:
    for _ in range(6000):
        if true():
            return
        threading.Event().wait(0.01)
    raise AssertionError


@pytest.mark.parametrize("wait_ms", [30 * 86_400_000, 10**18])
def test_a_wait_may_be_longer_than_the_system_counts(peer: Daemon, space: Lockspace, wait_ms: int) -> None:
    """poll(2) takes milliseconds as an int, threads no more than `threading.TIMEOUT_MAX` seconds."""
    for listening in (None, lambda: None):
        with space.lock("chess", wait_ms=wait_ms, on_lost=listening) as lock:
            assert lock.held


def test_a_wait_that_looks_for_signals_goes_on(peer: Daemon, space: Lockspace) -> None:
    """Once a second; here a hundred times."""
    used = space._connection.link()
    used._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 10_000))
    outcome: list[str] = []
    waits = threading.Thread(target=lambda: outcome.append(told(lambda: space.lock("busy"))))
    space._connection.link_for = lambda lockspace, resource: used  # type: ignore[method-assign]
    waits.start()
    peer.until(lambda: len(peer.calls(calls.Lock)) == 1)
    waits.join(0.2)
    client, request = asked(peer)
    peer.say(client, Reply(request.id, error=errors.Refused("no").as_dict()))
    waits.join(60)
    assert outcome == ["no"]
    assert peer.gone == []


def test_a_thread_s_locks_bear_its_name_on_any_connection(peer: Daemon, space: Lockspace) -> None:
    def take(name: str) -> None:
        space.lock(name, "PR")
        space.lock(name, "PR", on_lost=lambda: None)
        space.try_lock(name, "PR", on_blocking=lambda wants: None)

    take("main")
    for name in ("first", "second"):  # the second has the connection of the first, and is not the first
        other = threading.Thread(target=take, args=(name,))
        other.start()
        other.join()
    take("main")
    with ringfence.connect(peer.path) as another:
        another.lockspace("games").lock("another")
    names = {name: [call.thread for call in peer.calls(calls.Lock) if call.resource == name]
             for name in ("main", "first", "second", "another")}  # fmt: skip
    assert {name: len(set(found)) for name, found in names.items()} == dict.fromkeys(names, 1)
    assert len({found[0] for found in names.values()}) == 4
    assert all(0 < len(found[0]) <= 64 for found in names.values())
    with peer.changed:
        used = {client for client, request in peer.asked if getattr(request.call, "resource", "") == "main"}
    assert len(used) == 2, "the thread's own connection, and the one that is listened to"


def test_a_thread_s_name_stays_when_the_unlock_of_another_leads_the_request(
    peer: Daemon, space: Lockspace
) -> None:
    """The request goes where the unlock went: over the other thread's connection, in the own name."""
    space.lock("warm up").unlock()
    other = threading.Thread(target=lambda: space.lock("chess").unlock())
    other.start()
    other.join()
    space.lock("chess")
    first, second, third = peer.calls(calls.Lock)
    assert first.thread == third.thread != second.thread


def test_an_owner_that_is_named(peer: Daemon, space: Lockspace) -> None:
    space.lock("chess", owner="job 7")
    space.lock("go", owner="job 7", cached=True)
    assert [call.owner for call in peer.calls(calls.Lock)] == ["job 7", "job 7"]


def test_an_owner_that_is_no_text(peer: Daemon, space: Lockspace) -> None:
    with pytest.raises(errors.BadInput, match="is no text"):
        space.lock("chess", owner="\udcff")
    space.lock("chess").unlock()
