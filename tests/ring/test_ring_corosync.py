"""What only corosync does, over real ones (root, network namespaces); and what its ring must never do."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cffi
import pytest
from corosync_world import CorosyncMember, CorosyncWorld
from ring_world import PATIENCE_S, TOKEN_MS, fork, reap

from ringfence.core.cluster import Timing
from ringfence.core.errors import BadInput, ConfigError, Unavailable
from ringfence.core.ids import Epoch
from ringfence.engine.inputs import Delivered, RingLost, ViewChanged
from ringfence.lab.namespaces import enter
from ringfence.ring.corosync import CorosyncRing, times
from ringfence.ring.corosync import ring as corosync_ring
from ringfence.ring.corosync.library import _opened, library
from ringfence.ring.corosync.session import Session
from ringfence.wire import corosync as wire
from ringfence.wire.corosync import Hello, RingId

LAG_MS = 700
"""Whatever blocks in corosync's libraries does so for as long as corosync is stopped, here for a second and
more; less is the load of a busy machine."""


@pytest.fixture
def ring() -> Iterator[CorosyncWorld]:
    world = CorosyncWorld()
    yield world
    world.close()


@pytest.fixture
def strangers() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        reap(pid)


def stranger(world: CorosyncWorld, node: int, says: list[bytes], pids: list[int]) -> int:
    """A program that joins the group on a node's corosync and says things, none of them a hello that fits."""
    path = world.network.hosts[node].path

    def main() -> None:
        enter(path)
        session = Session()
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(Unavailable):
                session.open(os.getpid(), lambda one: None, lambda: False)
                break
            assert time.monotonic() < until
            time.sleep(0.01)
        for message in says:
            while not session.mcast(message):
                time.sleep(0.01)
        while True:
            session.dispatch()
            session.facts.clear()
            time.sleep(0.005)

    pids.append(fork(main, world.log))
    return pids[-1]


def while_s(members: list[CorosyncMember], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        members[0].poll(0.05)


def wait_told(member: CorosyncMember, text: str) -> None:
    """Until a RingLost says so; while corosync starts there may have been others."""
    member.wait(lambda events: any(e[0] == "lost" and text in e[1] for e in events), text)


# -- the group -----------------------------------------------------------------------------


def test_garbage_in_the_group_harms_nobody_and_a_foreign_member_is_named(
    ring: CorosyncWorld, strangers: list[int]
) -> None:
    one, two = ring.ring(1, 2)
    ring.corosyncs[3].start()
    head = wire.encode(Hello(RingId(), (), 0))[:4]
    says = [
        b"\0",
        b"GET / HTTP/1.0",
        wire.MAGIC,
        wire.MAGIC + b"\x09" + b"later",
        head + b"\xff\xff",
        wire.encode(Hello(RingId(), (), 1 << 60)),
        wire.encode(Hello(RingId(1, 1), (wire.Process(1, 1),), 5)),
        wire.encode(wire.Batch((b"forged",))),
        wire.encode(wire.Piece(7, True, b"forged")),
        bytes(900_000),
    ]
    pid = stranger(ring, 3, says, strangers)
    for member in (one, two):
        wait_told(member, f"node 3 (process {pid})")
    before = max(one.epoch, two.epoch)
    reap(pid)
    for member in (one, two):
        member.wait_view(1, 2, after=before)
    for member in (one, two):
        member.send("fine")
    one.wait_count(2, 1)
    assert not any(event[0] == "got" and "forged" in event[2] for event in one.events)
    assert ring.log.read_text() == ""


def test_second_daemon_of_a_node_stays_out_and_the_first_goes_on(ring: CorosyncWorld) -> None:
    (one,) = ring.ring(1)
    begun = len(one.events)
    twin = ring.member(1)
    wait_told(twin, f"process {one.pid} on this host")
    twin.kill()
    one.wait_view(1, after=one.views[0][1])
    one.send("fine")
    one.wait_payload("fine")
    assert not [event for event in one.events[begun:] if event[0] == "lost"], "whoever comes second has to go"


def test_node_id_that_is_not_corosyncs_is_said(ring: CorosyncWorld) -> None:
    ring.corosyncs[1].start()
    ring.network.hosts[2], ring.network.hosts[1] = ring.network.hosts[1], ring.network.hosts[2]
    ring.corosyncs[2].pid = ring.corosyncs[1].pid  # its "host" is the other's corosync
    two = ring.member(2)
    wait_told(two, "corosync calls this host node 1")
    ring.corosyncs[2].pid = 0


def test_daemon_that_stands_still_in_a_change_is_named_and_waited_for(ring: CorosyncWorld) -> None:
    one, two, three = ring.ring(1, 2, 3)
    before = one.epoch
    three.freeze(host_too=False)
    two.leave()
    wait_told(one, f"node 3 (process {three.pid}) does not answer")
    one.send("into the void")
    three.thaw()
    for member in (one, three):
        assert member.wait_view(1, 3, after=before)[5] == {2: "leave"}
    one.send("on we go")
    three.wait_payload("on we go")
    assert not any(event[0] == "got" and event[2] == "into the void" for event in three.events)


# -- ends -------------------------------------------------------------------------------------


def test_corosync_that_is_stopped_in_good_order_is_a_node_that_is_down() -> None:
    world = CorosyncWorld(transport="knet")  # with it the view is often quicker than the ring's change
    try:
        one, two, three = world.ring(1, 2, 3)
        for _ in range(3):
            before = one.epoch
            three.events.clear()
            three.corosync.stop(signal.SIGTERM)  # it reports its processes' end ("procdown") first
            for member in (one, two):
                assert member.wait_view(1, 2, after=before)[5] == {3: "nodedown"}
            wait_told(three, "corosync on this host is gone")
            three.corosync.start()
            for member in (one, two, three):
                member.wait_view(1, 2, 3, after=before)
            assert len([event for event in three.events if event[0] == "lost"]) <= 3, "one a loss, not a try"
    finally:
        world.close()


def test_daemons_end_is_told_when_its_host_could_have_been_lost_with_it(
    ring: CorosyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert corosync_ring.DOUBT_S > 0.03, "a corosync that ends takes up to 13 ms to leave the ring"
    monkeypatch.setattr(corosync_ring, "DOUBT_S", 1.5)
    one, _two, three = ring.ring(1, 2, 3)
    killed = time.monotonic()
    three.kill()
    assert one.wait_view(1, 2, after=one.epoch)[5] == {3: "procdown"}
    assert time.monotonic() - killed > 1.4


def test_corosync_without_its_memory_goes_on_above_what_the_nodes_saw(ring: CorosyncWorld) -> None:
    one, two = ring.ring(1, 2)
    for _ in range(3):
        three = ring.member(3)
        three.wait_view(1, 2, 3)
        three.leave()
        two.wait_view(1, 2, after=three.epoch)
    seq = two.epoch.seq
    ring.lose()
    for member in (one, two):
        member.wait_lost()
    one.kill()
    for corosync in ring.corosyncs.values():
        shutil.rmtree(corosync.files.state)
        corosync.files.state.mkdir()
    ring.seen[1] = seq
    again = ring.member(1)
    assert again.wait_view(1)[1].seq > seq, "what its disk knew counts"
    ring.restore()
    for member in (again, two):
        assert member.wait_view(1, 2, after=Epoch(seq, 99))[1].seq > seq


# -- a corosync that stands still ------------------------------------------------------------


def test_corosync_that_stands_still_holds_no_loop_however_much_is_sent() -> None:
    world = CorosyncWorld(token_ms=5000, nodes=1)
    try:
        (one,) = world.ring(1)
        one.longest_lag_ms()
        one.corosync.send(signal.SIGSTOP)
        one.trickle(600)
        while_s([one], 1.5)
        assert one.longest_lag_ms() < LAG_MS
        one.corosync.send(signal.SIGCONT)
        one.wait_count(1, 600)
        own = [event[2] for event in one.events if event[0] == "got"]
        assert own == [f"1:{number}" for number in range(600)]
    finally:
        world.close()


def test_corosync_that_does_not_answer_is_said_and_waited_for_beside_the_loop(ring: CorosyncWorld) -> None:
    ring.corosyncs[1].start()
    log = ring.corosyncs[1].files.log
    until = time.monotonic() + PATIENCE_S
    while not (log.exists() and "ready to provide service" in log.read_text()):
        assert time.monotonic() < until
        time.sleep(0.01)
    ring.corosyncs[1].send(signal.SIGSTOP)
    one = ring.member(1)
    wait_told(one, "does not answer on this host")
    assert one.longest_lag_ms() < LAG_MS
    leaving = time.monotonic()
    one.leave()
    assert time.monotonic() - leaving < 30, "what hangs in corosync keeps a daemon from ending"
    ring.corosyncs[1].send(signal.SIGCONT)
    ring.member(1).wait_view(1)


def test_what_a_removed_member_had_sent_is_dropped_wherever_it_comes_out(ring: CorosyncWorld) -> None:
    one, two, three = ring.ring(1, 2, 3)
    old = one.epoch
    three.corosync.send(signal.SIGSTOP)
    three.trickle(120)
    three.wait(lambda events: ("trickled",) in events)  # it has given them to its corosync
    three.freeze(host_too=False)
    alone = one.wait_view(1, 2, after=old)[1]
    three.thaw()
    for member in (one, two, three):
        member.wait_view(1, 2, 3, after=alone)
    for member in (one, two, three):
        member.send("new")
    for member in (one, two, three):
        for sender in (1, 2, 3):
            member.wait(lambda events, sender=sender: ("got", sender, "new") in events)
    for member in (one, two, three):
        at = next(i for i, e in enumerate(member.events) if e[0] == "view" and e[1] > old)
        assert not any(e[0] == "got" and e[2].startswith("3:") for e in member.events[at:])
    for member in (one, two):
        assert not any(e[0] == "got" and e[2].startswith("3:") for e in member.events)


@pytest.fixture
def pair() -> Iterator[CorosyncWorld]:
    """Whose links take their time to come back."""
    world = CorosyncWorld(nodes=2, transport="knet", token_ms=500)
    yield world
    world.close()


def test_host_that_stood_still_does_not_take_itself_for_the_last_one(pair: CorosyncWorld) -> None:
    """One of two would be primary so, and a stranger to the other, who went on."""
    one, two = pair.ring(1, 2)
    old = two.epoch
    two.freeze()
    alone = one.wait_view(1, after=old)[1]
    while_s([one], 2.5)  # until its links are down, too
    two.thaw()
    for member in (one, two):
        member.wait_view(1, 2, after=alone)
    assert [view[2] for view in two.views if view[1] > old] == [(1, 2)]


def test_host_that_is_alone_in_earnest_hears_so_a_detection_time_after_it_stood_still(
    pair: CorosyncWorld,
) -> None:
    one, two = pair.ring(1, 2)
    old = two.epoch
    two.freeze()
    while_s([one], 2.5)  # until its links are down, too
    one.power_off()
    two.thaw()
    began_s = time.monotonic()
    two.wait_view(2, after=old)
    assert time.monotonic() - began_s < 4 * pair.detection_s + 10, "a busy machine may be late"


# -- quorum ------------------------------------------------------------------------------------


def test_quorum_is_told_beside_the_order_and_taken_back(ring: CorosyncWorld) -> None:
    one, two, three = ring.ring(1, 2, 3)
    for member in (one, two, three):
        member.wait(lambda events: ("quorum", True) in events)
        member.events.clear()
    ring.cut((1,), (2, 3))
    one.wait(lambda events: ("quorum", False) in events)
    two.wait_view(2, 3)
    ring.heal()
    one.wait(lambda events: [e[1] for e in events if e[0] == "quorum"] == [False, True])
    for member in (two, three):
        member.wait_view(1, 2, 3)
        assert not any(event[0] == "quorum" for event in member.events)


def test_wait_for_all_is_a_veto_before_the_first_view() -> None:
    world = CorosyncWorld(nodes=2, two_node=True)
    try:
        one = world.member(1)
        one.wait_view(1)
        assert [event for event in one.events if event[0] == "quorum"] == [("quorum", False)]
        assert one.events.index(("quorum", False)) < one.events.index(one.views[0])
        two = world.member(2)
        for member in (one, two):
            member.wait_view(1, 2)
            member.wait(lambda events: ("quorum", True) in events)
        two.power_off()
        one.wait_view(1, after=one.epoch)
        while_s([one], 0.1)
        assert one.events[-1] != ("quorum", False), "with two_node one of two stays quorate"
    finally:
        world.close()


# -- times, rights, libraries --------------------------------------------------------------------


def test_token_that_is_not_the_files_is_remarked_and_one_that_is_unsafe_keeps_out(
    ring: CorosyncWorld,
) -> None:
    other = ring.member(1, timing=Timing(token_ms=1000, grant_ms=400))
    other.wait_view(1)
    (remark,) = [event[1] for event in other.events if event[0] == "remark"]
    assert f"corosync's token is {TOKEN_MS} ms" in remark
    unsafe = ring.member(2, timing=Timing(token_ms=1000, grant_ms=1500))
    wait_told(unsafe, "grant_ms = 1500 is not below")
    while_s([other], 0.3)
    assert {view[2] for view in other.views} == {(1,)}


@pytest.mark.parametrize(
    ("token_ms", "consensus_ms", "safe", "alike"),
    [(1000, 1200, True, True), (3000, 3600, True, False), (600, 720, False, False), (0, 0, True, True)],
)
def test_which_differences_of_times_matter(token_ms: int, consensus_ms: int, safe: bool, alike: bool) -> None:
    timing = Timing()
    assert (times.compare(timing, token_ms, consensus_ms) == "") == alike
    with contextlib.nullcontext() if safe else pytest.raises(ConfigError, match="stays out"):
        times.unsafe(timing, token_ms, consensus_ms)


def in_host(world: CorosyncWorld, node: int, log: Path, main: Callable[[], None]) -> str:
    """Run `main` in a process on a node's host.  Returns what it printed."""
    path = world.network.hosts[node].path

    def run() -> None:
        enter(path)
        main()

    pid = fork(run, log)
    os.waitpid(pid, 0)
    return log.read_text()


def tell(what: str) -> None:
    os.write(1, what.encode())


async def first_loss(node: int, timing: Timing) -> str:
    told: asyncio.Queue[str] = asyncio.Queue()
    ring = CorosyncRing(node, timing, lambda fact: told.put_nowait(getattr(fact, "reason", "in")))
    await ring.start()
    reason = await asyncio.wait_for(told.get(), PATIENCE_S)
    await ring.stop()
    return reason


def test_user_whom_corosync_does_not_let_in_is_told_how(ring: CorosyncWorld, tmp_path: Path) -> None:
    ring.ring(1)

    def main() -> None:
        library()  # loads cffi's own: that user may not be able to read where this project lies
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        tell(asyncio.run(first_loss(1, ring.timing)))

    said = in_host(ring, 1, tmp_path / "log", main)
    assert "does not let this user in" in said
    assert "uidgid" in said
    assert len(said.splitlines()) == 1


def test_corosync_that_was_never_started_is_said(ring: CorosyncWorld, tmp_path: Path) -> None:
    said = in_host(ring, 1, tmp_path / "log", lambda: tell(asyncio.run(first_loss(1, ring.timing))))
    assert "no corosync answers on this host" in said
    assert "systemctl start corosync" in said


def test_library_that_is_missing_is_one_line_with_its_package() -> None:
    with pytest.raises(Unavailable, match=r"libcpg\.so\.4") as caught:
        _opened(_NoLibrary(), "libcpg.so.4")
    assert "apt-get install corosync libcpg4" in str(caught.value)


class _NoLibrary:
    def dlopen(self, name: str) -> None:
        cffi.FFI().dlopen("libnothing.so.99")


def test_daemon_on_the_hub_needs_neither_cffi_nor_corosync() -> None:
    told = "import sys, ringfence.daemon.assemble, ringfence.cli; print('cffi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# -- load --------------------------------------------------------------------------------------


def test_turn_that_ends_in_the_middle_of_a_change_still_answers_it(
    ring: CorosyncWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corosync_ring, "SLICE_S", 0.0)  # one fact a turn
    _one, two = ring.ring(1, 2)
    two.leave()
    ring.members[0].wait_view(1, after=two.epoch)


def test_payloads_above_what_corosync_carries_at_once_arrive_whole_and_in_order(ring: CorosyncWorld) -> None:
    one, two = ring.ring(1, 2)
    one.burst(3, size_bytes=3 << 20)
    one.send("small")
    two.burst(200)
    for member in (one, two):
        member.wait_payload("small")
        member.wait_count(2, 200)
        assert [e[2] for e in member.events if e[0] == "got" and e[1] == 1] == ["1:0", "1:1", "1:2", "small"]
    assert one.since(one.epoch) == two.since(one.epoch)


def test_nothing_is_sent_while_a_leave_is_asked_for() -> None:
    """Both write into one buffer, which is shared with corosync, and the leave does so in a thread."""

    class Full:
        """corosync has no room."""

        fd = quorum_fd = -1
        leaving = crossed = False

        def mcast(self, message: bytes) -> bool:
            self.crossed |= self.leaving
            return False

        def leave(self, abandoned: Callable[[], bool]) -> None:
            self.leaving = True
            time.sleep(0.05)
            self.leaving = False
            loop.call_soon_threadsafe(ended.set_result, "left")

        def close(self) -> None:
            pass

    async def leave() -> None:
        nonlocal loop, ended
        loop = asyncio.get_running_loop()
        member._session = session
        member._ended = ended = loop.create_future()
        member._messages.append(b"waits")
        await member.leave()

    loop: asyncio.AbstractEventLoop
    ended: asyncio.Future[str]
    session: Any = Full()
    member = CorosyncRing(1, Timing())
    asyncio.run(leave())
    assert not session.crossed


def test_too_large_a_payload_is_the_callers_error() -> None:
    with pytest.raises(BadInput, match="limit"):
        CorosyncRing(1, Timing()).multicast(bytes((16 << 20) + 1))


def test_ring_gives_the_loop_back_between_slices(ring: CorosyncWorld, tmp_path: Path) -> None:
    """400 inputs of a millisecond each must not hold the event loop in one piece."""
    ring.ring(1)
    ring.members[0].leave()

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
            elif isinstance(fact, ViewChanged):
                for _ in range(400):
                    one.multicast(b"x")
            else:
                assert not isinstance(fact, RingLost)

        async def spin() -> None:
            nonlocal turns
            while not came.is_set():
                if done > 0:
                    turns += 1
                await asyncio.sleep(0)

        one = CorosyncRing(1, ring.timing, slow)
        await one.start()
        await asyncio.wait_for(spin(), 60)
        await one.stop()
        return turns, done

    said = in_host(ring, 1, tmp_path / "log", lambda: tell("{} {}".format(*asyncio.run(run()))))
    turns, done = map(int, said.split())
    assert done == 400
    assert turns > 40
