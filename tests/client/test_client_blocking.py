"""The blocking client against the real client socket with scripted answers."""

import asyncio
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Any

import pytest
from client_scripted import Daemon, daemon

import ringfence
from ringfence.client import aio
from ringfence.client.messages import REPLY_BYTES, Lines
from ringfence.core import errors
from ringfence.wire import client as calls
from ringfence.wire.client import Reply, Request, encode


def silent(one: Daemon, client: int, request: Request) -> None:
    pass


# -- reaching it -----------------------------------------------------------------


def test_nobody_listens() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rf") as where:
        with pytest.raises(errors.Unavailable, match=r"no ringfence daemon listens .*; start it") as caught:
            ringfence.connect(f"{where}/socket")
        assert caught.value.retry
        left = socket.socket(socket.AF_UNIX)
        left.bind(f"{where}/left")
        left.close()
        with pytest.raises(errors.Unavailable, match="no ringfence daemon listens"):
            ringfence.connect(f"{where}/left")


@pytest.mark.parametrize("path", ["", "/" + "x" * 107, "a\0b"])
def test_impossible_path(path: str) -> None:
    with pytest.raises(errors.BadInput, match="cannot be a Unix socket's path"):
        ringfence.connect(path)


@pytest.mark.parametrize("path", [1, ["s"], 1.5])
def test_what_is_no_path(path: Any) -> None:
    with pytest.raises(errors.BadInput, match="is no path; give the path"):
        ringfence.connect(path)


@pytest.mark.parametrize("limit", ["5", -1, 0.5, float("nan"), True])
def test_what_is_no_number_of_milliseconds(peer: Daemon, limit: Any) -> None:
    with pytest.raises(errors.BadInput, match=r"retry_ms is .*; give whole milliseconds"):
        ringfence.connect(peer.path, retry_ms=limit)
    with pytest.raises(errors.BadInput, match=r"retry_ms is .*; give whole milliseconds"):
        asyncio.run(aio.connect(peer.path, retry_ms=limit))
    said = r"timeout_ms is .*; give whole milliseconds"
    with ringfence.connect(peer.path) as ring, pytest.raises(errors.BadInput, match=said):
        ring.call(calls.Status(), timeout_ms=limit)
    assert peer.asked == []


def test_a_path_of_bytes(peer: Daemon) -> None:
    with ringfence.connect(str(peer.path).encode()) as ring:  # type: ignore[arg-type]
        assert ring.status() == {"call": "Status"}


def test_path_from_the_environment(peer: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGFENCE_SOCKET", str(peer.path))
    with ringfence.connect() as ring:
        assert ring.status() == {"call": "Status"}
    with pytest.raises(errors.Unavailable):
        ringfence.connect("/tmp/rf-none")  # the argument goes before the environment


def test_importing_the_package_drags_in_no_sockets() -> None:
    code = "import sys, ringfence.core.ids; sys.exit('ringfence.client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- calls -----------------------------------------------------------------------


def test_calls_and_their_short_forms(peer: Daemon) -> None:
    with ringfence.connect(peer.path) as ring:
        ring.call(calls.LvCreate("vg0", "vm1", size_bytes=1 << 20))
        ring.why("vg0/vm1")
        ring.locks("vg")
        ring.lockspace("games").leave()
    assert [request.call for _, request in peer.asked] == [
        calls.LvCreate("vg0", "vm1", size_bytes=1 << 20),
        calls.Why("vg0/vm1"),
        calls.Locks("vg"),
        calls.JoinSpace("games"),
        calls.LeaveSpace("games"),
    ]
    assert len({request.id for _, request in peer.asked}) == 5
    with pytest.raises(errors.BadInput, match="closed"):
        ring.status()


def test_a_join_waits_no_longer_than_it_may() -> None:
    def mute(peer: Daemon, client: int, request: Request) -> None:
        pass

    late = pytest.raises(errors.TimedOut, match="lockspace games was not joined within 50 ms")
    with daemon(mute) as peer, ringfence.connect(peer.path) as ring, late:
        ring.lockspace("games", wait_ms=50)


def test_errors_keep_their_kind() -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        held = errors.LockHeld("vg0/vm1 is held by an-a01n01", node="an-a01n01", next="wait", retry=True)
        one.reply(client, Reply(request.id, error=held.as_dict()))

    with daemon(script) as one, ringfence.connect(one.path) as ring:
        with pytest.raises(errors.LockHeld, match="held by an-a01n01; wait") as caught:
            ring.call(calls.LvChange("vg0", "vm1", "ey"))
        assert (caught.value.node, caught.value.retry) == ("an-a01n01", True)


def test_what_a_call_cannot_carry(peer: Daemon) -> None:
    with ringfence.connect(peer.path) as ring:
        for call in (calls.Lock("a", "b"), calls.Unlock(1), calls.Events(follow=True)):
            with pytest.raises(errors.BadInput):
                ring.call(call)
    assert peer.asked == []


def test_a_lost_reply_is_asked_for_again_under_the_same_id() -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        if len(one.asked) < 3:
            one.drop(client)
        else:
            one.reply(client, Reply(request.id, "done"))

    with daemon(script) as one, ringfence.connect(one.path) as ring:
        assert ring.call(calls.LvCreate("vg0", "vm1", extents=1)) == "done"
        assert len({request.id for _, request in one.asked}) == 1
        assert len({client for client, _ in one.asked}) == 3


def test_half_a_reply_is_no_reply() -> None:
    """A server that vanishes in the middle of a line, and one that answers after it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rf") as where:
        path = f"{where}/socket"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            ids: list[str] = []

            def serve() -> None:
                for last in (False, True):
                    peer, _ = listener.accept()
                    with peer, peer.makefile("rb") as lines:
                        request = calls.decode_request(lines.readline())
                        ids.append(request.id)
                        line = encode(Reply(request.id, {"n": 1}))
                        peer.sendall(line if last else line[:-5])

            thread = threading.Thread(target=serve)
            thread.start()
            with ringfence.connect(path) as ring:
                assert ring.call(calls.Status()) == {"n": 1}
            thread.join(60)
        assert ids[0] == ids[1]


def test_a_daemon_that_stays_away(peer: Daemon) -> None:
    from ringfence.client import connect

    def script(one: Daemon, client: int, request: Request) -> None:
        one.drop(client)

    with daemon(script) as one, connect(one.path, retry_ms=500) as ring:
        with pytest.raises(errors.Unavailable, match="closed the connection before it answered"):
            ring.status()
        assert len(one.asked) >= 2


def test_a_giant_reply() -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        one.reply(client, Reply(request.id, "x" * (5 << 20)))

    with daemon(script) as one, ringfence.connect(one.path) as ring:
        assert len(ring.call(calls.Lvs())) == 5 << 20


def test_an_endless_reply_and_a_foreign_language_are_refused() -> None:
    lines = Lines()
    for _ in range(REPLY_BYTES >> 20):
        lines.feed(b"x" * (1 << 20))
        assert lines.next() is None
    lines.feed(b"x")
    with pytest.raises(errors.Unavailable, match="longer than 64 MiB"):
        lines.next()
    foreign = Lines()
    foreign.feed(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(errors.Unavailable, match="not in ringfence's language"):
        foreign.next()


def test_lines_come_in_pieces_of_any_size() -> None:
    replies = [Reply(str(number), {"x": "y" * (number % 7)}) for number in range(40)]
    stream = b"".join(encode(reply) for reply in replies)
    for size in (1, 2, 3, 17, 64, 1000, len(stream)):
        lines, found = Lines(), []
        for start in range(0, len(stream), size):
            lines.feed(stream[start : start + size])
            while (reply := lines.next()) is not None:
                assert lines.next() == reply  # until it is seen
                lines.seen()
                found.append(reply)
        assert found == replies


def test_too_long_a_request_is_told_not_repeated(peer: Daemon) -> None:
    with ringfence.connect(peer.path) as ring, pytest.raises(errors.BadInput, match="longer than"):
        ring.call(calls.Why("x" * (2 << 20)))


def test_a_timeout_leaves_no_answer_behind() -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        if not isinstance(request.call, calls.Vgs):
            one.reply(client, Reply(request.id, "status"))

    with daemon(script) as one, ringfence.connect(one.path) as ring:
        with pytest.raises(errors.TimedOut, match="no answer to Vgs within 50 ms; it may still be"):
            ring.call(calls.Vgs(), timeout_ms=50, id="mine")
        first, request = one.asked[0]
        assert request.id == "mine"
        one.say(first, Reply("mine", "late"))
        assert ring.call(calls.Status()) == "status"


def test_threads_share_a_connection() -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        assert isinstance(request.call, calls.Why)
        one.reply(client, Reply(request.id, request.call.target))

    with daemon(script) as one, ringfence.connect(one.path) as ring:
        wrong: list[str] = []

        def ask(name: str) -> None:
            wrong.extend(name for _ in range(50) if ring.why(name) != name)

        threads = [threading.Thread(target=ask, args=(f"t{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert len(one.asked) == 200


# -- events --------------------------------------------------------------------------


def test_recorded_events() -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        assert request.call == calls.Events(since=4, limit=10)
        one.reply(client, Reply(request.id, {"events": [{"seq": 5}, {"seq": 6}]}))

    with daemon(script) as one, ringfence.connect(one.path) as ring:
        assert [event["seq"] for event in ring.events(since=4, limit=10)] == [5, 6]


def test_followed_events_go_on_where_they_broke_off() -> None:
    def script(one: Daemon, client: int, request: Request) -> None:
        assert isinstance(request.call, calls.Events)
        since = request.call.since
        for seq in (since + 1, since + 2):
            one.reply(client, Reply(request.id, {"event": {"seq": seq}}, final=False))
        if since == 0:  # after what was sent is out
            one._loop.call_later(0.05, one.drop, client)

    with daemon(script) as one, ringfence.connect(one.path) as ring:
        events = ring.events(follow=True)
        assert [next(events)["seq"] for _ in range(4)] == [1, 2, 3, 4]
        events.close()  # type: ignore[attr-defined]
        one.until(lambda: len(one.gone) == 2)
