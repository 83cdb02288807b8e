"""What 100,000 locks cost: purge, hand-over to a joiner, barrier, memory; and the longest single step.

    python bench/scale.py [--locks N] [--waiters W] [--memory N] [--only NAME] [--json]

Real engines in one process, over a ring that is a list: what is measured is what the daemon's event loop
would be held for, step by step, in CPU time of this thread.  A step is one `Node.step`, with the frame
that it leaves.  `purge`: a node holds N locks, two others keep a tenth as many between them and wait for
W of the first's; it loses power, a person confirms it, its bound passes.  `joiner`: a node that had left
comes back and takes the state of N locks.  `memory`: bytes a lock, by the growth of the process, for
each level of the table: the
ordered state, a node's locks, a client's.

Goals (issue 3): purge <= 0.3 s and no step over 20 ms; joiner <= 1 s; memory <= 600 bytes a level."""

import argparse
import functools
import gc
import json
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Timing
from ringfence.core.evidence import Power
from ringfence.core.ids import Epoch, Life, Token
from ringfence.core.modes import Mode
from ringfence.engine import effects, inputs
from ringfence.engine.client_locks import ClientLocks
from ringfence.engine.context import Context, Phase
from ringfence.engine.inputs import DiskState, Input
from ringfence.engine.locker import Locker
from ringfence.engine.node import Node
from ringfence.engine.spaces import lock_request
from ringfence.engine.state import ClusterState
from ringfence.locks.lockspace import Lockspace
from ringfence.locks.node_locks import AskCluster, NodeLocks
from ringfence.locks.resource import EMPTY_LVB
from ringfence.wire import client as calls
from ringfence.wire import entries
from ringfence.wire.client import Reply, Request

MS = 1_000_000
SPACE = "apps"
SAME_MS = 100
"""Locks that are taken at one time of the wall clock, which the daemon reads once a second."""
TOKEN = Token(1, 1, 1)
TIMING = Timing(
    heartbeat_ms=100, token_ms=500, grant_ms=700, silent_ms=60_000, write_ms=2500, hold_ms=30_000,
    grace_ms=4000, post_join_delay_ms=4000, agent_timeout_ms=5000, backoff_ms=500,
)  # fmt: skip


class Host:
    def __init__(self, cluster: "Cluster", id: int) -> None:
        self.cluster, self.id, self.boots = cluster, id, 0
        self.node: Node | None = None
        self.disk = DiskState()
        self.replies: dict[str, Reply] = {}
        self.answered = 0
        self.steps_s: list[float] = []
        """How long each step took, since `watch`."""
        self.worst_s, self.longest = 0.0, ""

    def start(self) -> None:
        self.boots += 1
        self.node = Node()
        boot = f"boot-{self.id}-{self.boots}"
        config = self.cluster.config
        self.feed(inputs.Started(config, self.id, f"machine-{self.id}", boot, self.disk, True))

    def watch(self) -> None:
        self.steps_s, self.longest = [], ""

    def feed(self, fact: Input) -> None:
        if self.node is None:
            return
        began_s = time.thread_time()
        todo = self.node.step(self.cluster.now_ns, fact)
        took_s = time.thread_time() - began_s
        if not self.steps_s or (took_s > max(self.steps_s[-1:], default=0) and took_s > self.worst_s):
            self.longest = type(fact).__name__
        self.worst_s = max(took_s, self.worst_s) if self.steps_s else took_s
        self.steps_s.append(took_s)
        for effect in todo:
            match effect:
                case effects.Multicast():
                    self.cluster.queue.append((self.id, effect.payload))
                    self.cluster.payload_bytes = max(self.cluster.payload_bytes, len(effect.payload))
                case effects.CallAgain():
                    self.later(inputs.CalledAgain())
                case effects.Keep():
                    self.disk = effect.disk
                case effects.Answer():
                    self.answered += 1
                    self.replies[effect.reply.id] = effect.reply
                case effects.RunAgent():
                    self.later(inputs.AgentExited(effect.run, Power.UNKNOWN, "no", 1, answered=False))
                case effects.DropPaths():
                    self.later(inputs.PathsDropped(effect.generation))
                case effects.DoOrder():
                    self.later(inputs.OrderDone(effect.order, answer=()))
                case effects.Ended():
                    self.node = None

    def later(self, fact: Input) -> None:
        self.cluster.later.append(functools.partial(self.feed, fact))

    def ask(self, call: Any, client: int = 1) -> str:
        self.cluster.asked += 1
        id = f"r{self.cluster.asked}"
        self.feed(inputs.Asked(client, Request(id, call), "bench"))
        return id

    @property
    def state(self) -> ClusterState | None:
        return self.node.context.running if self.node and self.node.context else None


class Cluster:
    def __init__(self, count: int) -> None:
        nodes = tuple(NodeConfig(id, f"n{id}", levels=(Level((f"bmc{id}",)),)) for id in range(1, count + 1))
        devices = tuple(DeviceConfig(f"bmc{n.id}", "fence_lab_bmc", Confirms.HOST_OFF) for n in nodes)
        self.config = ClusterConfig("bench", timing=TIMING, nodes=nodes, devices=devices)
        self.now_ns = 1_000_000 * MS
        self.queue: deque[tuple[int, bytes]] = deque()
        self.later: deque[Callable[[], None]] = deque()
        self.asked = self.seq = self.payload_bytes = 0
        self.members: tuple[int, ...] = ()
        self.hosts = {node.id: Host(self, node.id) for node in nodes}
        for host in self.hosts.values():
            host.start()
        self.view(*self.hosts)
        self.run()
        for host in self.hosts.values():
            host.ask(calls.JoinSpace(SPACE))
        self.pass_ms(500)

    def view(self, *members: int) -> None:
        self.seq += 1
        left = tuple(sorted(set(self.members) - set(members)))
        joined = tuple(sorted(set(members) - set(self.members)))
        self.members = members
        self.queue.clear()
        how = dict.fromkeys(left, "nodedown")
        for id in members:
            self.hosts[id].feed(inputs.ViewChanged(Epoch(self.seq, min(members)), members, joined, left, how))

    def run(self) -> None:
        while self.queue or self.later:
            if self.queue:
                sender, payload = self.queue.popleft()
                if sender in self.members:
                    for id in self.members:
                        self.hosts[id].feed(inputs.Delivered(sender, payload))
            else:
                for _ in range(len(self.later)):
                    self.later.popleft()()

    def pass_ms(self, time_ms: int) -> None:
        for _ in range(time_ms // 50):
            self.now_ns += 50 * MS
            for host in self.hosts.values():
                host.feed(inputs.Tick())
            self.run()

    def take(self, host: Host, names: list[str], mode: str = "EX") -> list[str]:
        """Lock all of these at a host; some at a time, as many clients would."""
        asked = []
        for number, name in enumerate(names):
            asked.append(host.ask(calls.Lock(SPACE, name, mode)))
            if number % 100 == 99:
                self.run()
            if number % 20_000 == 19_999:
                self.pass_ms(100)
        self.run()
        return asked

    def watch(self) -> None:
        self.payload_bytes = 0
        for host in self.hosts.values():
            host.watch()

    def costs(self, *ids: int) -> dict[str, Any]:
        """Of the dearest of these hosts: all its steps together, and the longest one."""
        hosts = [self.hosts[id] for id in ids]
        longest = max(hosts, key=lambda host: max(host.steps_s))
        return {
            "seconds": max(sum(host.steps_s) for host in hosts),
            "steps": max(len(host.steps_s) for host in hosts),
            "longest_step_ms": max(longest.steps_s) * 1000,
            "longest_was": longest.longest,
        }


def names(count: int, first: str = "r") -> list[str]:
    return [f"{first}-{number:08}" for number in range(count)]


def purge(locks: int, waiters: int) -> dict[str, Any]:
    """A node with `locks` locks is lost and confirmed; the others wait for `waiters` of them."""
    cluster = Cluster(3)
    one, two, three = cluster.hosts.values()
    held = names(locks)
    cluster.take(one, held)
    kept = cluster.take(two, names(locks // 20, "kept2")) + cluster.take(three, names(locks // 20, "kept3"))
    assert all(id in {**two.replies, **three.replies} for id in kept)
    asked = {
        two.id: cluster.take(two, held[: waiters // 2]),
        three.id: cluster.take(three, held[waiters // 2 : waiters]),
    }
    tokens = _tokens(cluster, ("kept2", "kept3"))
    cluster.pass_ms(500)
    one.node = None
    cluster.watch()
    cluster.view(2, 3)
    cluster.run()
    loss = cluster.costs(2, 3)
    cluster.pass_ms(1000)
    two.ask(calls.FenceConfirm("n1", "bench", "off", cluster.now_ns))
    cluster.run()
    two.answered = three.answered = 0
    waited_ms = 0
    while not (two.answered or three.answered):
        cluster.watch()
        cluster.pass_ms(50)
        waited_ms += 50
        assert waited_ms < 20_000, "never purged"
    result = cluster.costs(2, 3)
    for host in (two, three):
        assert all(host.replies[id].error is None for id in asked[host.id]), "not all were granted"
    assert _tokens(cluster, ("kept2", "kept3")) == tokens, "kept locks were disturbed"
    return {"locks": locks, "waiters": waiters, **result, "loss_longest_step_ms": loss["longest_step_ms"]}


def _tokens(cluster: Cluster, prefixes: tuple[str, ...]) -> dict[str, Any]:
    state = cluster.hosts[2].state
    assert state is not None
    return {
        name: resource.granted[0].token
        for name, resource in state.lockspaces[SPACE].resources.items()
        if name.startswith(prefixes)
    }


def joiner(locks: int) -> dict[str, Any]:
    """A node comes back and takes the state of `locks` locks."""
    cluster = Cluster(3)
    one, two, three = cluster.hosts.values()
    cluster.take(one, names(locks // 2, "one"))
    cluster.take(two, names(locks - locks // 2, "two"))
    three.ask(calls.Leave())
    cluster.pass_ms(200)
    assert three.node is None, "it did not leave"
    cluster.view(1, 2)
    cluster.run()
    cluster.pass_ms(200)
    three.start()
    cluster.watch()
    began_s = time.thread_time()
    cluster.view(1, 2, 3)
    cluster.run()
    cluster.pass_ms(50)
    assert three.state is not None
    assert len(three.state.lockspaces[SPACE].resources) == locks
    sender, taker = cluster.costs(1), cluster.costs(3)
    return {
        "locks": locks,
        "seconds": sender["seconds"] + taker["seconds"],
        "all_three_s": time.thread_time() - began_s,
        "sender": sender,
        "joiner": taker,
        "largest_payload_bytes": cluster.payload_bytes,
    }


def stale(locks: int) -> dict[str, Any]:
    """A node with `locks` locks of its own learns that the cluster has gone on without it."""
    cluster = Cluster(3)
    one, two, three = cluster.hosts.values()
    cluster.take(one, names(locks))
    cluster.members = (2, 3)
    cluster.seq += 1
    for host in (two, three):
        host.feed(inputs.ViewChanged(Epoch(cluster.seq, 2), (2, 3), (), (1,), {1: "nodedown"}))
    cluster.run()
    cluster.watch()
    cluster.view(1, 2, 3)
    cluster.run()
    return {"locks": locks, **cluster.costs(1)}


def client_end(locks: int) -> dict[str, Any]:
    """A client that holds `locks` locks ends."""
    cluster = Cluster(2)
    one, _ = cluster.hosts.values()
    cluster.take(one, names(locks), "PR")
    cluster.watch()
    one.feed(inputs.ClientGone(1))
    cluster.run()
    return {"locks": locks, **cluster.costs(1)}


def step(locks: int) -> dict[str, Any]:
    """Microseconds of engine for lock and unlock: under a kept lock, and through the ring, beside others."""
    cluster = Cluster(2)
    one, _ = cluster.hosts.values()
    cluster.take(one, names(locks, "others"))
    found: dict[str, list[float]] = {"kept": [], "ring": []}
    for number in range(2000):
        for what, name in (("kept", "hot"), ("ring", f"cold-{number}")):
            cluster.watch()
            id = one.ask(calls.Lock(SPACE, name, "EX"), 2)
            cluster.run()
            reply = one.replies[id]
            one.ask(calls.Unlock(reply.result["lock"]), 2)
            cluster.run()
            if number > 100:
                found[what].append(sum(one.steps_s) * 1e6)
        if number % 200 == 0:
            cluster.pass_ms(100)
    return {"locks": locks, **{f"{what}_us": statistics.median(took) for what, took in found.items()}}


# -- memory ------------------------------------------------------------------------------


def ordered(count: int) -> Any:
    """The ordered state with `count` locks."""
    config = ClusterConfig("bench", nodes=(NodeConfig(1, "n1"), NodeConfig(2, "n2")))
    life = Life(1, "m", "b", 1)
    state = ClusterState(config, epoch=Epoch(1, 1), lives={1: life}, wall_ms=1_700_000_000_000)
    state.lockspaces[SPACE] = Lockspace(SPACE, members=[1])
    for number in range(count):
        state.wall_ms += number % SAME_MS == 0
        state.position += 1
        lock_request(state, life, entries.LockRequest(SPACE, f"r-{number:08}", Mode.EX))
    return state


def node_level(count: int) -> Any:
    """A node's locks, each with one holding client.  Tokens are those of the ordered state."""
    locks = NodeLocks()
    now_ms = 1_700_000_000_000
    for number in range(count):
        name = f"r-{number:08}"
        now_ms += number % SAME_MS == 0
        (ask,) = locks.request(number + 1, SPACE, name, Mode.EX, now_ms=now_ms)
        assert isinstance(ask, AskCluster)
        locks.on_granted(SPACE, name, Mode.EX, TOKEN, EMPTY_LVB, True)
    return locks


def client_level(count: int) -> Any:
    """What is known of clients' uses of `count` locks; less the node's locks under them."""
    config = ClusterConfig("bench", nodes=(NodeConfig(1, "n1"), NodeConfig(2, "n2")), naive=True)
    context = Context(config, 1, Life(1, "m", "b", 1), DiskState())
    context.state, context.phase = ClusterState(config, epoch=Epoch(1, 1)), Phase.RUNNING
    locker = Locker(context)
    owned = ClientLocks(context, locker)
    for number in range(count):
        name = f"r-{number:08}"
        owned.lock(number % 100, f"{number}", calls.Lock(SPACE, name, "EX"), "bench")
        context.outbox.applied(number + 1)
        locker.take(locker.node_locks.on_granted(SPACE, name, Mode.EX, TOKEN, EMPTY_LVB, True))
        context.effects.clear()
    return locker, owned


LEVELS = {"ordered": ordered, "node": node_level, "client": client_level}


def memory(count: int) -> dict[str, Any]:
    """Bytes a lock of each level, each measured in a process of its own."""
    grown = {
        level: float(
            subprocess.run(
                [sys.executable, __file__, "--grow", level, "--memory", str(count)],
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for level in LEVELS
    }  # fmt: skip
    grown["client"] -= grown["node"]
    return {"locks": count, **{f"{level}_bytes": size for level, size in grown.items()}}


def grow(level: str, count: int) -> float:
    LEVELS[level](1000)
    gc.collect()
    before = _resident_bytes()
    made = LEVELS[level](count)
    gc.collect()
    grown = (_resident_bytes() - before) / count
    del made
    return grown


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "step": lambda asked: step(asked.locks // 10),
    "purge": lambda asked: purge(asked.locks, asked.waiters),
    "joiner": lambda asked: joiner(asked.locks),
    "stale": lambda asked: stale(asked.locks),
    "client_end": lambda asked: client_end(asked.locks),
    "memory": lambda asked: memory(asked.memory),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--locks", type=int, default=100_000, help="default 100000")
    parser.add_argument("--waiters", type=int, default=1_000, help="default 1000")
    parser.add_argument("--memory", type=int, default=1_000_000, help="locks whose memory is measured")
    parser.add_argument("--only", choices=sorted(MEASURES), action="append", help="measure this (repeat)")
    parser.add_argument("--grow", choices=sorted(LEVELS), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    if asked.grow:
        print(grow(asked.grow, asked.memory))
        return 0
    report = {name: MEASURES[name](asked) for name in asked.only or MEASURES}
    if asked.json:
        print(json.dumps({"version": 1, **report}, indent=2))
    else:
        for name, found in report.items():
            print(f"{name}: " + ", ".join(f"{key} {_short(value)}" for key, value in found.items()))
    return 0


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_short(one)}" for key, one in value.items()) + ")"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
