"""Replays scenarios about rings of waiting clients (tests/locks/deadlocks), in the format of lock_story.

Nodes n1, n2, n3; resources a, b, ... of one lockspace; everything is delivered at once.

    request n1 p a EX [FLAG ...]    owner p asks on n1 for a; on another node, p is the same owner
    convert p a EX [FLAG ...]       unlock p a      cancel p a
    ask p a                         this wait is rather refused than left in a ring
    picture                         what the nodes tell now is the first picture
    rings                           of the picture as it is now alone
    confirm                         of what stands in both

State: each client's lock, a waiting one with what its node tells of its place."""

from collections import deque
from typing import Any

import msgspec
from lock_story import BadCommand, Words

from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.locks.deadlock import Link, Ring, Seen, links, rings, served_before, unchanged, victim
from ringfence.locks.lockspace import Lockspace, Op
from ringfence.locks.node_locks import AskCluster, NodeLocks, Out
from ringfence.locks.resource import Blocking, Cancelled, Effect, Granted, Queued, Refused, Released
from ringfence.wire.entries import ClientLock

SPACE = "space"


class Client(msgspec.Struct):
    node: int
    owner: str
    resource: str
    lock: int
    asks: bool = False
    since: int = 0


class DeadlockStory:
    def __init__(self) -> None:
        self.nodes = {1: NodeLocks(), 2: NodeLocks(), 3: NodeLocks()}
        self.space = Lockspace(name=SPACE, members=[1, 2, 3])
        self.clients: dict[tuple[str, str], Client] = {}
        self.queue: deque[tuple[int, AskCluster]] = deque()
        self.first: list[Link] = []
        self.moment = 0

    # -- commands -----------------------------------------------------------------------

    def do(self, line: str) -> list[str]:
        name, *words = line.split()
        self.moment += 1
        if name in ("picture", "rings", "confirm") and not words:
            return getattr(self, f"do_{name}")()  # type: ignore[no-any-return]
        if name == "request" and len(words) >= 4:
            self.request(words)
        elif name in ("convert", "unlock", "cancel", "ask") and len(words) >= 2:
            client = self.clients.get((words[0], words[1]))
            if client is None:
                raise BadCommand(f"who is {words[:2]}?")
            self.change(name, client, Words(words[2:]))
        else:
            raise BadCommand(f"what is {line!r}?")
        while self.queue:
            self.order(*self.queue.popleft())
        return []

    def request(self, words: list[str]) -> None:
        node, owner, resource, *more = words
        if node not in ("n1", "n2", "n3") or (owner, resource) in self.clients:
            raise BadCommand(f"request {words}")
        what = Words(more)
        if what.mode is None:
            raise BadCommand(f"request {words}")
        client = Client(int(node[1:]), owner, resource, len(self.clients) + 1, since=self.moment)
        self.clients[owner, resource] = client
        locks = self.nodes[client.node]
        self.carry(client.node, locks.request(client.lock, SPACE, resource, what.mode, flags=what.flags))

    def change(self, name: str, client: Client, what: Words) -> None:
        locks = self.nodes[client.node]
        if name == "ask":
            client.asks = True
            return
        if name == "convert" and what.mode is not None:
            outs = locks.convert(client.lock, what.mode, flags=what.flags)
        elif name == "cancel":
            outs = locks.cancel(client.lock)
        else:
            outs = locks.unlock(client.lock)
        client.since = self.moment
        self.carry(client.node, outs)
        if locks.find(client.lock) is None:
            del self.clients[client.owner, client.resource]

    def do_picture(self) -> list[str]:
        self.first = links(self.picture())
        return [self.say_link(link) for link in self.first]

    def do_rings(self) -> list[str]:
        return self.say_rings(rings(links(self.picture())))

    def do_confirm(self) -> list[str]:
        return self.say_rings(rings(unchanged(self.first, links(self.picture()))))

    # -- the cluster ----------------------------------------------------------------------

    def carry(self, node: int, outs: list[Out]) -> None:
        self.queue.extend((node, out) for out in outs if isinstance(out, AskCluster))

    def order(self, node: int, ask: AskCluster) -> None:
        for name, effect in self.space.apply(Op(ask.kind, ask.resource, node, ask.mode, ask.flags, ask.lvb)):
            self.carry(effect.owner, self.tell(name, effect))

    def tell(self, resource: str, effect: Effect) -> list[Out]:
        locks, where = self.nodes[effect.owner], (SPACE, resource)
        match effect:
            case Granted():
                return locks.on_granted(*where, effect.mode, Token(1, 1, self.moment), None, True)
            case Refused():
                return locks.on_refused(*where, effect.errno, effect.blockers)
            case Released():
                return locks.on_released(*where)
            case Cancelled():
                return locks.on_cancelled(*where, effect.held)
            case Blocking():
                return locks.on_blocking(*where, effect.wants, effect.tries)
            case Queued():
                locks.on_queued(*where)
        return []

    # -- pictures ----------------------------------------------------------------------------

    def picture(self) -> dict[int, list[ClientLock]]:
        told: dict[int, list[ClientLock]] = {1: [], 2: [], 3: []}
        for client in self.clients.values():
            told[client.node].append(self.seen(client))
        return told

    def seen(self, client: Client) -> ClientLock:
        locks = self.nodes[client.node]
        lock = locks.find(client.lock)
        assert lock is not None
        more: dict[str, Any] = {}
        if lock.wanted is not Mode.UN:
            place = locks.place(client.lock)
            after = served_before(self.space.resources.get(client.resource), client.node, place)
            more = {"heads": place.heads, "behind": place.behind, "after": after}
        return ClientLock(
            SPACE, client.resource, client.lock, client.since, client.owner, True, client.owner,
            lock.held, lock.wanted, client.since, client.asks, **more,
        )  # fmt: skip

    # -- words -----------------------------------------------------------------------------

    def say_rings(self, found: list[Ring]) -> list[str]:
        lines = []
        for ring in found:
            lines.append("ring: " + ", ".join(self.say_link(link) for link in ring))
            lost = victim(ring)
            lines.append(f"victim {self.say_seen(lost)}" if lost else "nobody asked")
        return lines or ["no ring"]

    def say_link(self, link: Link) -> str:
        return f"{self.say_seen(link.waiter)} -> {self.say_seen(link.blocker)}"

    def say_seen(self, seen: Seen) -> str:
        held = "" if seen.lock.held is Mode.UN else f":{seen.lock.held.name}"
        wanted = "" if seen.lock.wanted is Mode.UN else f"?{seen.lock.wanted.name}"
        return f"{seen.lock.owner}.{seen.lock.resource}{held}{wanted}"

    def state(self) -> list[str]:
        names = {client.lock: client.owner for client in self.clients.values()}
        lines = []
        for client in self.clients.values():
            one = self.seen(client)
            words = [f"n{client.node}", self.say_seen(Seen(client.node, one))]
            if one.wanted is not Mode.UN:
                words += ["heads"] if one.heads else []
                words += [f"behind={names[other]}" for other in one.behind]
                words += [f"after=n{node}" for node in one.after]
            lines.append(" ".join(words))
        return lines
