"""The hub's own promises: links, slow members, garbage, its memory, its end."""

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ring_world import TOKEN_MS, HubWorld, command

from ringfence.core.errors import BadInput, Damaged, Unavailable
from ringfence.core.ids import Epoch
from ringfence.engine.inputs import Delivered, RingLost
from ringfence.ring.admin import HubAdmin
from ringfence.ring.broker import HIGH_WATER_BYTES, Broker
from ringfence.ring.epochs import Epochs
from ringfence.ring.hostlink import HostLink
from ringfence.ring.hub_client import HubRing
from ringfence.ring.link import Link
from ringfence.wire import hub as wire
from ringfence.wire.hub import Role


class Raw:
    """A link by hand, for what a good client never does."""

    def __init__(self, world: HubWorld, hello: wire.ToHub | None = None) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(world.socket))
        self.frames = wire.from_hub_frames()
        self.waiting: list[wire.FromHub] = []
        if hello is not None:
            self.say(hello)

    def say(self, message: wire.ToHub) -> None:
        self.sock.sendall(wire.encode(message))

    def hear(self) -> wire.FromHub | None:
        """The next message that is no ping; None at the end."""
        while True:
            while self.waiting:
                message = self.waiting.pop(0)
                if not isinstance(message, wire.Ping):
                    return message
            try:
                chunk = self.sock.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not chunk:
                return None
            self.waiting += self.frames.feed(chunk)

    def hear_end(self) -> list[wire.FromHub]:
        heard = []
        while (message := self.hear()) is not None:
            heard.append(message)
        return heard


@pytest.fixture
def raws() -> Iterator[list[Raw]]:
    made: list[Raw] = []
    yield made
    for raw in made:
        raw.sock.close()


@pytest.fixture
def dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
    yield path
    shutil.rmtree(path)


def test_frames_sent_on_a_removed_link_are_never_delivered(hub: HubWorld, raws: list[Raw]) -> None:
    (one,) = hub.ring(1)
    silent = Raw(hub, wire.Hello(Role.DAEMON, 2))
    raws.append(silent)
    one.wait_view(1, 2)
    one.wait_view(1, after=one.epoch)  # it answered no ping
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the hub may be about to close it
        silent.say(wire.Send((b"stale",)))
    last = silent.hear_end()[-1]
    assert isinstance(last, wire.Removed)
    assert last.epoch == one.epoch
    assert "no answer for" in last.why
    one.send("after")
    one.wait_payload("after")
    assert not any(event[0] == "got" and event[2] == "stale" for event in one.events)


def test_what_arrives_before_a_removed_link_is_closed_is_not_read(dir: Path) -> None:
    """It stays open until its last word is out, for which there may be no room yet."""

    async def run() -> tuple[list[wire.FromHub], list[wire.FromHub]]:
        (ours, one), (theirs, silent) = socket.socketpair(), socket.socketpair()
        with Epochs(dir / "e") as epochs, one, silent:
            broker, link = Broker(epochs, 1000, lambda line: None), Link(theirs, wire.to_hub_frames())
            broker.join(1, Link(ours, wire.to_hub_frames()), 0)
            broker.join(2, link, 0)
            link.send(wire.encode(wire.Deliver(((1, bytes(4 << 20)),))))
            while len(broker.status().partitions[0].members) == 2:
                one.sendall(wire.encode(wire.Pong()))
                await asyncio.sleep(0)
                broker.tick(broker.tick_ms)
            silent.sendall(wire.encode(wire.Send((b"stale",))))
            for _ in range(5):
                await asyncio.sleep(0)
            told_it = await _all_of(silent)
            broker.close()
            return await _all_of(one), told_it

    told_one, told_it = asyncio.run(run())
    assert isinstance(told_it[-1], wire.Removed)
    assert [told.members for told in told_one if isinstance(told, wire.View)] == [(1,), (1, 2), (1,)]
    assert not any(isinstance(told, wire.Deliver) for told in told_one)


async def _all_of(sock: socket.socket) -> list[wire.FromHub]:
    """All that was said on it, once its other end is closed."""
    sock.setblocking(False)
    frames, heard = wire.from_hub_frames(), []
    frames.limit_bytes = wire.MAX_FRAME_BYTES
    with contextlib.suppress(ConnectionResetError):  # by an end that had not read all
        while chunk := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
            heard += frames.feed(chunk)
    return heard


def test_what_a_thawed_host_had_queued_for_its_old_link_is_dropped(hub: HubWorld) -> None:
    one, two = hub.ring(1, 2, host=True)
    old = one.epoch.seq
    two.freeze()
    for _ in range(50):
        two.send("sent in EPOCH")  # waits in front of the frozen daemon
    one.wait_view(1, after=one.epoch)
    two.thaw()
    two.wait_view(1, 2, after=one.epoch)
    two.send("new")
    one.wait_payload("new")
    assert not any(event[0] == "got" and event[2] == f"sent in {old}" for event in one.events)


def test_daemon_without_host_link_is_its_own_host(hub: HubWorld) -> None:
    one, two = hub.ring(1, 2)
    two.kill()
    assert one.wait_view(1, after=one.epoch)[5] == {2: "nodedown"}


def test_daemon_frozen_alone_stays_in_and_stops_nobody(hub: HubWorld) -> None:
    one, two, three = hub.ring(1, 2, 3, host=True)
    view = one.epoch
    three.freeze(host_too=False)
    started = time.monotonic()
    one.burst(300, size_bytes=50_000)  # 15 MB: far above the high-water mark
    two.wait_count(1, 300)
    took_s = time.monotonic() - started
    assert took_s < TOKEN_MS / 1000 + 30, "the others wait for as long as it does not read"
    until = time.monotonic() + hub.detection_s * 1.5
    while time.monotonic() < until:  # its host answers, so no detection time ends its membership
        one.poll(0.05)
    one.send("still here")
    two.wait_payload("still here")
    assert one.epoch == view
    three.thaw()
    three.wait_payload("still here")
    two.wait_count(1, 300)
    assert three.since(view) == two.since(view)


def test_sender_waits_for_a_slow_member_for_a_token_time() -> None:
    world = HubWorld(token_ms=3000)
    try:
        one, two = world.ring(1, 2, host=True)
        two.freeze(host_too=False)
        one.burst(40, size_bytes=1 << 20)
        world.until_status(lambda status: status.nodes[1].buffered_bytes > HIGH_WATER_BYTES)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            one.poll(0.05)
        with HubAdmin(world.socket) as admin:
            assert admin.status().nodes[1].buffered_bytes < 2 * HIGH_WATER_BYTES
        two.thaw()
        for member in (one, two):
            member.wait_count(1, 40)
        assert len(two.views) == 1
    finally:
        world.close()


def test_daemon_that_never_reads_is_removed_in_the_end(hub: HubWorld) -> None:
    one, two = hub.ring(1, 2, host=True)
    before = one.epoch
    two.freeze(host_too=False)
    one.burst(75, size_bytes=1 << 20)
    assert one.wait_view(1, after=before)[5] == {2: "procdown"}
    one.wait_count(1, 75)
    two.thaw()
    assert "MiB unread" in two.wait_lost()
    two.wait_view(1, 2, after=before)


def test_second_daemon_of_a_node_is_refused_and_the_first_unharmed(hub: HubWorld, raws: list[Raw]) -> None:
    (one,) = hub.ring(1, host=True)
    for role, what in ((Role.DAEMON, "a daemon"), (Role.HOST, "a host link")):
        raw = Raw(hub, wire.Hello(role, 1))
        raws.append(raw)
        refusal = raw.hear()
        assert isinstance(refusal, wire.Refusal)
        assert f"node 1 already has {what} on this hub (process" in refusal.message
        assert raw.hear() is None
    twin = hub.member(1)
    assert f"process {one.pid}" in twin.wait_lost()
    one.send("fine")
    one.wait_payload("fine")
    assert len(one.views) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x00\x00\x00\x05hello",
        b"\xff\xff\xff\xff",
        b"\x00\x00",
        (10 << 20).to_bytes(4, "big") + bytes(10 << 20),
        wire.encode(wire.Send((b"before hello",))),
        wire.encode(wire.Hello(Role.DAEMON, 0)),
        wire.encode(wire.Hello(Role.DAEMON, 7, seen=1 << 62)),
        wire.encode(wire.Hello(Role.DAEMON, 7, protocol=99)),
    ],
    ids=["http", "no-message", "huge-length", "half", "10MB", "no-hello", "node-0", "epoch", "protocol"],
)
def test_garbage_at_the_door_harms_nobody(hub: HubWorld, raws: list[Raw], garbage: bytes) -> None:
    (one,) = hub.ring(1)
    raw = Raw(hub)
    raws.append(raw)
    try:
        raw.sock.sendall(garbage)
        raw.sock.shutdown(socket.SHUT_WR)
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert all(isinstance(message, wire.Refusal) for message in raw.hear_end())
    one.send("fine")
    one.wait_payload("fine")
    assert len(one.views) == 1


def test_garbage_from_a_member_removes_that_member_only(hub: HubWorld, raws: list[Raw]) -> None:
    (one,) = hub.ring(1)
    raw = Raw(hub, wire.Hello(Role.DAEMON, 2))
    raws.append(raw)
    one.wait_view(1, 2)
    raw.sock.sendall(wire.encode(wire.Send((b"good",))) + b"\x00\x00\x00\x03bad")
    one.wait_view(1, after=one.epoch)
    one.wait_payload("good")
    one.send("fine")
    one.wait_payload("fine")


def test_ten_megabyte_payload_is_carried_and_does_not_get_the_members_removed(hub: HubWorld) -> None:
    one, two = hub.ring(1, 2)
    one.burst(3, size_bytes=10 << 20)
    two.wait_count(1, 3)
    one.wait_count(1, 3)
    assert len(two.views) == 1


def test_too_large_a_payload_is_the_callers_error() -> None:
    ring = HubRing("/nonexistent", 1)
    with pytest.raises(BadInput, match="limit"):
        ring.multicast(bytes(wire.MAX_PAYLOAD_BYTES + 1))


def test_killed_hub_is_lost_once_and_comes_back_with_greater_epochs(hub: HubWorld) -> None:
    one, two = hub.ring(1, 2, host=True)
    before = one.epoch
    hub.kill_hub()
    for member in (one, two):
        reason = member.wait_lost()
        assert str(hub.socket) in reason
        assert "ringfence hub" in reason
    hub.start_hub()
    for member in (one, two):
        assert member.wait_view(1, 2, after=before)[1].seq > before.seq
    # One for the link, one because nobody listened meanwhile: never one for each try.
    assert len([event for event in one.events if event[0] == "lost"]) <= 2


def test_hub_without_its_memory_goes_on_above_what_its_nodes_saw(hub: HubWorld) -> None:
    (one,) = hub.ring(1)
    for _ in range(3):
        two = hub.member(2)
        two.wait_view(1, 2)
        two.leave()
    one.wait(lambda events: sum(e[0] == "view" for e in events) == 7)
    seq = one.epoch.seq
    hub.kill_hub()
    hub.state.unlink()
    hub.start_hub()
    assert one.wait_view(1, after=Epoch(seq, 99))[1].seq > seq


def test_frozen_hub_removes_nobody_when_it_thaws(hub: HubWorld) -> None:
    one, two = hub.ring(1, 2)
    os.kill(hub.hub_pid, signal.SIGSTOP)
    until = time.monotonic() + hub.detection_s * 1.5
    while time.monotonic() < until:
        one.poll(0.05)
    os.kill(hub.hub_pid, signal.SIGCONT)
    one.send("on we go")
    two.wait_payload("on we go")
    assert len(two.views) == 1


def test_time_in_which_the_broker_did_not_run_is_nobodys_silence(dir: Path) -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        with Epochs(dir / "e") as epochs, theirs:
            broker = Broker(epochs, 1000, lambda line: None)
            broker.join(1, Link(ours, wire.to_hub_frames()), 0)
            broker.tick(1_000_000)
            assert broker.status().partitions[0].members == (1,)
            for _ in range(2200 // broker.tick_ms):
                broker.tick(broker.tick_ms)
            assert broker.status().partitions == ()
            broker.close()

    asyncio.run(run())


def test_view_that_cannot_be_kept_is_not_announced(hub: HubWorld) -> None:
    one, two, three = hub.ring(1, 2, 3, host=True)
    before = one.epoch
    resource.prlimit(hub.hub_pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    four = hub.member(4)
    assert "cannot keep its epoch" in four.wait_lost()
    one.send("the old view goes on")
    two.wait_payload("the old view goes on")
    assert one.epoch == before
    three.kill()
    for member in (one, two):  # somebody is missing now, so the old view must not go on
        reason = member.wait_lost()
        assert "cannot keep its epoch" in reason
        assert "File too large" in reason
        assert member.epoch == before
    with HubAdmin(hub.socket) as admin:
        assert "cannot keep its epoch" in admin.status().trouble
    resource.prlimit(hub.hub_pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for member in (one, two, four):
        assert member.wait_view(1, 2, 4, after=before)[1].seq > before.seq
    with HubAdmin(hub.socket) as admin:
        assert admin.status().trouble == ""


def test_cut_delivers_nothing_until_the_loss_is_detected(hub: HubWorld) -> None:
    one, two = hub.ring(1, 2)
    view = two.epoch
    cut_at = time.monotonic()
    hub.cut((1,), (2,))
    two.send("to myself")
    two.wait_payload("to myself")
    assert time.monotonic() - cut_at > hub.detection_s * 0.8
    assert [event[0] for event in two.since(view)] == ["view", "view", "got"]
    one.wait_view(1, after=view)


def test_heal_before_detection_reforms_the_same_ring(hub: HubWorld) -> None:
    one, two = hub.ring(1, 2)
    before = two.epoch
    hub.cut((1,), (2,))
    two.send("held back")
    hub.heal()
    for member in (one, two):
        view = member.wait_view(1, 2, after=before)
        assert view[3:] == ((), (), {})
        member.wait_payload("held back")


def test_node_that_joins_during_a_cut_comes_to_its_side(hub: HubWorld) -> None:
    one, two = hub.ring(1, 2)
    hub.cut((1,), (2, 3))
    one.wait_view(1, after=one.epoch)
    three = hub.member(3)
    three.wait_view(2, 3)
    hub.heal()
    for member in (one, two, three):
        member.wait_view(1, 2, 3)


def test_admin_orders_are_checked(hub: HubWorld) -> None:
    with HubAdmin(hub.socket) as admin:
        with pytest.raises(BadInput, match="two groups"):
            admin.cut([(1, 2), (2, 3)])
        assert admin.status().groups == ()
    with pytest.raises(Unavailable, match="no hub answers on /tmp/rf-none"):
        HubAdmin("/tmp/rf-none")


def test_status_tells_the_links(hub: HubWorld) -> None:
    one, _two = hub.ring(1, 2, host=True)
    with HubAdmin(hub.socket) as admin:
        status = admin.status()
    assert [part.members for part in status.partitions] == [(1, 2)]
    assert status.partitions[0].epoch == one.epoch
    assert [(node.node, node.daemon, node.host, node.in_view) for node in status.nodes] == [
        (1, True, True, True),
        (2, True, True, True),
    ]
    assert status.nodes[0].daemon_pid == one.pid


def test_host_link_thread_stops_and_reconnects(hub: HubWorld) -> None:
    link = HostLink(hub.socket, 5)
    link.start()
    try:
        hub.until_status(lambda status: any(one.node == 5 and one.host for one in status.nodes))
        hub.kill_hub()
        hub.start_hub()
        hub.until_status(lambda status: any(one.node == 5 and one.host for one in status.nodes))
        hub.until_status(lambda status: link.trouble == "")  # said to us behind what it says of us
    finally:
        link.stop()
    hub.until_status(lambda status: not any(one.host for one in status.nodes))


def test_socket_is_for_its_user_alone(hub: HubWorld) -> None:
    assert hub.socket.stat().st_mode & 0o777 == 0o600


def test_client_gives_the_loop_back_between_slices(hub: HubWorld) -> None:
    """400 inputs of a millisecond each must not hold the event loop in one piece."""

    async def run() -> tuple[int, int]:
        turns = done = 0
        came = asyncio.Event()

        def slow(fact: object) -> None:
            nonlocal done
            if isinstance(fact, Delivered):
                until = time.perf_counter() + 0.001
                while time.perf_counter() < until:
                    pass
                done += 1
                if done == 400:
                    came.set()
            elif not isinstance(fact, RingLost):
                for _ in range(400):
                    ring.multicast(b"x")

        async def spin() -> None:
            nonlocal turns
            while not came.is_set():
                if done > 0:
                    turns += 1
                await asyncio.sleep(0)

        ring = HubRing(hub.socket, 1, slow)
        await ring.start()
        await asyncio.wait_for(spin(), 60)
        await ring.stop()
        return turns, done

    turns, done = asyncio.run(run())
    assert done == 400
    assert turns > 40


# -- the command and its memory --------------------------------------------------


def _hub(*words: str) -> "tuple[int, str]":
    done = command(sys.executable, "-c", "from ringfence.ring.commands import hub; hub()", *words)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "content", [b"", b"junk", b'{"version":1,"seq":5,"crc":1}', b'{"version":9,"seq":5,"crc":1}', b"\xff\xfe"]
)
def test_damaged_memory_refuses_to_start(dir: Path, content: bytes) -> None:
    state = dir / "state"
    state.write_bytes(content)
    with pytest.raises(Damaged, match="is damaged"):
        Epochs(state)
    assert state.read_bytes() == content


def test_command_says_in_one_line_why_it_cannot_start(hub: HubWorld, dir: Path) -> None:
    (dir / "bad").write_bytes(b"junk")
    socket_path, state = str(dir / "s"), str(dir / "e")
    cases = {
        ("--socket", socket_path, "--state", str(dir / "bad")): "is damaged",
        ("--socket", socket_path, "--state", str(hub.state)): "another hub uses the state file",
        ("--socket", str(hub.socket), "--state", state): "a hub already listens on",
        ("--socket", "/tmp/" + "x" * 110, "--state", state): "over 107 bytes",
        ("--socket", str(dir / "none" / "s"), "--state", state): "cannot listen on",
        ("--socket", socket_path, "--state", state, "--token-ms", "0"): "out of range",
    }
    for words, expected in cases.items():
        code, text = _hub(*words)
        assert expected in text
        assert len(text.splitlines()) == 1, text
        assert code == 5
    with HubAdmin(hub.socket) as admin:
        admin.status()


def test_memory_counts_on(dir: Path) -> None:
    with Epochs(dir / "e") as epochs:
        assert [epochs.next(), epochs.next()] == [1, 2]
        with pytest.raises(Unavailable, match="another hub"):
            Epochs(dir / "e")
    with Epochs(dir / "e") as epochs:
        epochs.above(40)
        assert epochs.next() == 41
    assert json.loads((dir / "e").read_text())["seq"] == 41
