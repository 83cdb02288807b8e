"""A ring of real processes for the contract tests: members that can be frozen, thawed and killed.

Each member is a forked process that runs one ring client, writes every input it gets to a socket
pair, and obeys orders from it.  `HubWorld` is the hub's; another ring engine brings a class with
the same methods, and the contract suite runs on it unchanged."""

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringfence.core.ids import Epoch
from ringfence.engine.inputs import Delivered, QuorumSaid, RingLost, RingRemarked, ViewChanged
from ringfence.ring.admin import HubAdmin
from ringfence.ring.hostlink import HostLink
from ringfence.ring.hub import serve
from ringfence.ring.hub_client import HubRing
from ringfence.ring.port import Ring, RingInput

TOKEN_MS = 400
PATIENCE_S = 60.0
"""For what must happen at all; what must happen in time is asserted apart."""
LATE_S = 10.0
"""So late real processes on a busy machine may be."""

NO_EPOCH = Epoch()
Event = tuple[Any, ...]


def fork(main: Callable[[], None], log: Path) -> int:
    """Run `main` in a child process.  Returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        main()
        code = 0
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def reap(pid: int) -> int:
    """End a child for certain, whatever state it is in.  Returns its wait status."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        os.kill(pid, signal.SIGCONT)
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, 0)[1]
    return 0


class Watched:
    """What one node's ring told it, and how to wait for it."""

    survives_its_host = True
    """Its host's end leaves the daemon running, where both are processes."""

    def __init__(self, node: int) -> None:
        self.node = node
        self.events: list[Event] = []

    def poll(self, timeout_s: float = 0.0) -> None:
        """Let `events` grow, for up to this long."""
        raise NotImplementedError

    @property
    def now_s(self) -> float:
        """The clock that the ring's times are told by."""
        return time.monotonic()

    def wait(self, seen: Callable[[list[Event]], Any], what: str = "") -> Any:
        """Poll until `seen(events)` is true; returns its value."""
        until = self.now_s + PATIENCE_S
        while not (value := seen(self.events)):
            assert self.now_s < until, f"node {self.node} never saw {what}: {self.events[-5:]}"
            self.poll(0.05)
        return value

    def wait_view(self, *members: int, after: Epoch = NO_EPOCH) -> Event:
        """The first view of exactly these members with an epoch greater than `after`."""
        return self.wait(
            lambda events: next(
                (e for e in events if e[0] == "view" and e[2] == members and e[1] > after), None
            ),
            f"a view of {members}",
        )

    def wait_payload(self, text: str) -> None:
        self.wait(lambda events: any(e[0] == "got" and e[2] == text for e in events), text)

    def wait_count(self, sender: int, count: int) -> None:
        self.wait(
            lambda events: sum(e[0] == "got" and e[1] == sender for e in events) >= count,
            f"{count} payloads of {sender}",
        )

    def wait_lost(self, count: int = 1) -> str:
        return self.wait(
            lambda events: [e[1] for e in events if e[0] == "lost"][count - 1 : count], "RingLost"
        )[0]

    @property
    def views(self) -> list[Event]:
        return [event for event in self.events if event[0] == "view"]

    @property
    def epoch(self) -> Epoch:
        return self.views[-1][1]

    def since(self, epoch: Epoch) -> list[Event]:
        """Views and payloads from the view with `epoch` on, in order, without what is relative to
        the receiver."""
        start = next(i for i, e in enumerate(self.events) if e[0] == "view" and e[1] == epoch)
        return [e[:3] if e[0] == "view" else e for e in self.events[start:] if e[0] in ("view", "got")]


class Member(Watched):
    """One node's daemon, a process; and its host, if that is one."""

    def __init__(
        self, make_ring: Callable[[], Ring], node: int, log: Path, host_pid: int, family: "list[Member]"
    ) -> None:
        super().__init__(node)
        self._family = family
        self.host_pid = host_pid
        self._ours, theirs = socket.socketpair()
        self._partial = b""
        self.pid = fork(lambda: asyncio.run(_member_main(make_ring(), theirs)), log)
        theirs.close()

    # -- orders

    def order(self, *words: Any) -> None:
        self._ours.sendall(json.dumps(words).encode() + b"\n")

    def send(self, text: str) -> None:
        self.order("send", text)

    def burst(self, count: int, size_bytes: int = 10) -> None:
        """Payloads "NODE:0" .. "NODE:count-1", padded."""
        self.order("burst", count, size_bytes)

    def trickle(self, count: int) -> None:
        """The same, each in a turn of the loop of its own, so that no two can share a message; an event
        "trickled" follows the last."""
        self.order("trickle", count)

    def longest_lag_ms(self) -> float:
        """For how long its event loop stood still, at most, since this was asked last."""
        asked = sum(event[0] == "lag" for event in self.events)
        self.order("lag")
        return self.wait(lambda events: [e for e in events if e[0] == "lag"][asked:], "its lag")[0][1]

    def leave(self) -> None:
        self.order("leave")
        os.waitpid(self.pid, 0)

    def freeze(self, host_too: bool = True) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        if self.host_pid and host_too:
            os.kill(self.host_pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        if self.host_pid:
            os.kill(self.host_pid, signal.SIGCONT)

    def kill(self) -> None:
        reap(self.pid)

    def kill_host(self) -> None:
        reap(self.host_pid)

    def power_off(self) -> None:
        """The worst order: the daemon's end is told first.  Nothing is waited for in between."""
        for pid in (self.pid, self.host_pid):
            os.kill(pid, signal.SIGKILL)
        self.kill()
        self.kill_host()

    # -- what it saw

    def poll(self, timeout_s: float = 0.0) -> None:
        """Read what any member has to tell: one that is not read blocks, and looks frozen."""
        by_socket = {member._ours: member for member in self._family}
        ready, _, _ = select.select(list(by_socket), [], [], timeout_s)
        for one in ready:
            by_socket[one]._read()

    def _read(self) -> None:
        try:
            chunk = self._ours.recv(1 << 20)
        except ConnectionResetError:  # killed before it had read its last order
            chunk = b""
        if not chunk:
            self._family.remove(self)
        self._partial += chunk
        *lines, self._partial = self._partial.split(b"\n")
        self.events += [_event(json.loads(line)) for line in lines]

    def close(self) -> None:
        reap(self.pid)
        if self.host_pid:
            reap(self.host_pid)
        self._ours.close()


def _event(line: list[Any]) -> Event:
    if line[0] == "view":
        _, epoch, members, joined, left, how = line
        how = {int(node): word for node, word in how.items()}
        return ("view", Epoch(*epoch), tuple(members), tuple(joined), tuple(left), how)
    return tuple(line)


def _starved_s() -> float:
    """How long this thread could have run and had no CPU: a busy machine's fault, and no lag of the loop's.

    Source: Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat"."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


async def _member_main(ring: Ring, pipe: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    epoch = 0
    pipe.setblocking(True)

    def on_input(fact: RingInput) -> None:
        nonlocal epoch
        match fact:
            case ViewChanged(number, members, joined, left, how):
                epoch = number.seq
                line: list[Any] = ["view", [number.seq, number.rep], members, joined, left, how]
            case Delivered(sender, payload):
                line = ["got", sender, payload[:40].decode().strip(".")]
            case RingLost(reason):
                line = ["lost", reason]
            case QuorumSaid(quorate):
                line = ["quorum", quorate]
            case RingRemarked(what):
                line = ["remark", what]
        pipe.sendall(json.dumps(line).encode() + b"\n")

    async def leave() -> None:
        await ring.leave()
        ended.set()

    async def trickle(count: int) -> None:
        for number in range(count):
            ring.multicast(f"{node}:{number}".encode())
            await asyncio.sleep(0.0005)
        pipe.sendall(b'["trickled"]\n')

    async def watch() -> None:
        while True:
            before, starved = loop.time(), _starved_s()
            await asyncio.sleep(0.005)
            stood_s = loop.time() - before - (_starved_s() - starved)
            longest[:] = [max([*longest, stood_s * 1000 - 5])]

    def obey() -> None:
        for line in pipe.recv(65536).splitlines():
            match json.loads(line):
                case ["send", text]:
                    ring.multicast(text.replace("EPOCH", str(epoch)).encode())
                case ["burst", count, size]:
                    for number in range(count):
                        ring.multicast(f"{node}:{number}".encode().ljust(size, b"."))
                case ["trickle", count]:
                    tasks.append(asyncio.create_task(trickle(count)))
                case ["lag"]:
                    pipe.sendall(json.dumps(["lag", longest.pop() if longest else 0.0]).encode() + b"\n")
                case ["leave"]:
                    tasks.append(asyncio.create_task(leave()))

    node = getattr(ring, "node", 0)
    longest: list[float] = []
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(watch())]
    ring.on_input = on_input
    loop.add_reader(pipe, obey)
    await ring.start()
    await ended.wait()


class HubWorld:
    late_s = LATE_S

    def __init__(self, token_ms: int = TOKEN_MS) -> None:
        self.dir = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
        self.socket, self.state = self.dir / "hub", self.dir / "state"
        self.log = self.dir / "log"
        self.token_ms = token_ms
        self.members: list[Member] = []
        self._speaking: list[Member] = []
        self.hub_pid = 0
        self._strays: list[int] = []
        self.start_hub()

    @property
    def now_s(self) -> float:
        return time.monotonic()

    @property
    def detection_s(self) -> float:
        return self.token_ms * 2.2 / 1000

    def start_hub(self) -> None:
        socket_path, state, token_ms = self.socket, self.state, self.token_ms
        self.hub_pid = fork(lambda: asyncio.run(serve(socket_path, state, token_ms)), self.log)
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(Exception), HubAdmin(self.socket):
                return
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.005)

    def kill_hub(self) -> None:
        reap(self.hub_pid)

    lose, restore = kill_hub, start_hub
    """The whole ring goes, without a word; and comes back, with its memory."""

    def member(self, node: int, host: bool = False) -> Member:
        """Start a node.  With a host, the host's link is up before the daemon is started."""
        socket_path = self.socket
        host_pid = 0
        if host:
            host_pid = fork(lambda: HostLink(socket_path, node).run(), self.log)
            self._strays.append(host_pid)
            self.until_status(lambda status: any(one.node == node and one.host for one in status.nodes))
        member = Member(lambda: HubRing(socket_path, node), node, self.log, host_pid, self._speaking)
        self.members.append(member)
        self._speaking.append(member)
        return member

    def ring(self, *nodes: int, host: bool = False) -> list[Member]:
        """Start nodes one after the other; returns once all have seen the view of all."""
        members: list[Member] = []
        for node in nodes:
            members.append(self.member(node, host))
            members[-1].wait_view(*nodes[: len(members)])
        for member in members:
            member.wait_view(*nodes)
        return members

    def until_status(self, good: Callable[[Any], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        with HubAdmin(self.socket) as admin:
            while not good(admin.status()):
                assert time.monotonic() < until, admin.status()
                time.sleep(0.005)

    def cut(self, *groups: tuple[int, ...]) -> None:
        with HubAdmin(self.socket) as admin:
            admin.cut(groups)

    def heal(self) -> None:
        with HubAdmin(self.socket) as admin:
            admin.heal()

    def close(self) -> None:
        for member in self.members:
            member.close()
        for pid in self._strays:
            reap(pid)
        reap(self.hub_pid)
        shutil.rmtree(self.dir, ignore_errors=True)


def command(*words: str, timeout_s: float = PATIENCE_S) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
