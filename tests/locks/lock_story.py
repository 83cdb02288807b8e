"""Replays scenario files: commands, what came of each, and what then is true.

A block is one command or more, `----`, one line for each thing that happened, and one for the state.
Lines with `#` are for people.  REWRITE=1 records the second half anew; read the difference before you
commit it.  Invariants are checked after every command, and words that the harness does not know are
errors.

scenarios/resource: one frozen or running lockspace, holders named by letters.

    request a EX [FLAG ...] [lvb=WORD]     a new lock of resource r
    convert a PR [FLAG ...] [lvb=WORD]     unlock a [FLAG ...] [lvb=WORD]     cancel a     busy a
    freeze        operations are deferred       resume        replay them
    purge a b     lost nodes (frozen only)     spare a       lost, but for what it holds (frozen only)

scenarios/nodes: nodes n1, n2, n3 under one lockspace, clients named by letters.

    request n1 a EX [FLAG ...] [keep=no] [cached=yes]
    convert, unlock, cancel, drop    as above, by client        busy a    a caches its lock and uses it
    end a         its client ends             adopt n1 b EX [FLAG ...]     an orphan, if there is one
    hold 20       minimum hold times are 20 from now on                    wait 5    time passes
    ahead n1 EX   n1 asks for it before any of its clients does
    lost n1       that life is stale          give_back n1     it is about to leave
    purge n1      frozen, purged, resumed     restore a      its node's next life goes on with it alone
    slow          messages wait until told    order n1         its next operation is ordered
    tell n1       its next answer arrives     overtake n1      a notice arrives before a grant does
                                              fast             all are delivered, now and from now on

State: granted, `+`: asked for ahead and not known to be used, `>`: converting, `?`: waiting; the value
block where it is not zeros; for nodes, their cluster lock, `kept` if it is more than clients need, and their
clients."""

import errno
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Protocol

from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.locks.flags import FLAGS, LVB_BYTES, Flag
from ringfence.locks.lockspace import Lockspace, Op, OpKind, check_space
from ringfence.locks.node_locks import (
    AskCluster,
    AskMany,
    ClientBlocking,
    ClientCancelled,
    ClientGranted,
    ClientLost,
    ClientRefused,
    ClientReleased,
    NodeLocks,
    Out,
)
from ringfence.locks.resource import (
    EMPTY_LVB,
    Blocking,
    Cancelled,
    Effect,
    Granted,
    Queued,
    Refused,
    Released,
    Resource,
)

NAME = "r"
NOTHING = Resource(NAME)


def run_out(work: Iterator[None]) -> None:
    """What may go on little by little is done at once."""
    for _ in work:
        pass


def all_of(work: Iterator[list[tuple[str, Effect]]]) -> list[tuple[str, Effect]]:
    return list(chain.from_iterable(work))


class BadCommand(Exception):
    pass


def to_lvb(word: str) -> bytes:
    return word.encode().ljust(LVB_BYTES, b"\0")


def lvb_word(value: bytes) -> str:
    return value.rstrip(b"\0").decode() or "zeros"


class Words:
    """A command's words after its name: MODE, FLAGs and key=value."""

    def __init__(self, words: list[str], keys: tuple[str, ...] = ("lvb",)) -> None:
        self.mode: Mode | None = None
        self.flags = 0
        self.values: dict[str, str] = {}
        for word in words:
            key, equals, value = word.partition("=")
            if equals and key in keys and value:
                self.values[key] = value
            elif word in Mode.__members__ and self.mode is None and word != "UN":
                self.mode = Mode[word]
            elif word in FLAGS:
                self.flags |= FLAGS[word]
            else:
                raise BadCommand(f"what is {word!r}?")

    @property
    def lvb(self) -> bytes | None:
        word = self.values.get("lvb")
        return None if word is None else to_lvb(word)


def value_of(lvb: bytes | None, valid: bool) -> str:
    if not valid:
        return " lvb not valid"
    return "" if lvb is None or lvb == EMPTY_LVB else f" lvb={lvb_word(lvb)}"


def error_name(number: int) -> str:
    return "EDEADLK" if number == errno.EDEADLK else errno.errorcode[number]  # it has two names


def flags_of(flags: int) -> str:
    return " ".join(name for name, flag in FLAGS.items() if flags & flag)


def marks_of(grant: Granted | ClientGranted) -> str:
    return f"{' demoted' if grant.demoted else ''}{' altmode' if grant.altmode else ''}"


def joined(*words: str) -> str:
    return " ".join(word for word in words if word)


class ResourceStory:
    def __init__(self) -> None:
        self.space = Lockspace(name="space", members=list(range(1, 27)))
        self.frozen = False

    def do(self, line: str) -> list[str]:
        name, *words = line.split()
        if name in ("freeze", "resume", "purge", "spare"):
            return self.rare(name, words)
        if name not in ("request", "convert", "unlock", "cancel", "busy") or not words:
            raise BadCommand(f"what is {line!r}?")
        more = Words(words[1:])
        op = Op(OpKind(name), NAME, self.number(words[0]), more.mode, more.flags, more.lvb)
        told = self.space.defer(op) if self.frozen else self.space.apply(op)
        return [self.say(effect) for _, effect in told]

    def rare(self, name: str, words: list[str]) -> list[str]:
        if name in ("purge", "spare"):
            if not self.frozen:
                raise BadCommand("purge a frozen lockspace")
            for word in words:
                run_out(self.space.purge(self.number(word), [NAME] if name == "spare" else []))
            return []
        if words:
            raise BadCommand(f"{name} stands alone")
        self.frozen = name == "freeze"
        return [] if self.frozen else [self.say(effect) for _, effect in all_of(self.space.resume())]

    def number(self, name: str) -> int:
        if len(name) != 1 or not name.islower():
            raise BadCommand(f"who is {name!r}?")
        return ord(name) - ord("a") + 1

    def name(self, owner: int) -> str:
        return chr(ord("a") + owner - 1)

    def say(self, effect: Effect) -> str:
        who = self.name(effect.owner)
        match effect:
            case Granted():
                value = value_of(effect.lvb, effect.lvb_valid)
                return f"{who} granted {effect.mode.name}{value}{marks_of(effect)}"
            case Queued():
                return joined(f"{who} queued behind", *map(self.name, effect.blockers))
            case Refused():
                behind = [f"{self.name(one)}:{mode.name}" for one, mode in effect.blockers]
                return joined(f"{who} refused {error_name(effect.errno)}", *behind)
            case Blocking():
                return f"{who} blocking wants={effect.wants.name}{' once' if effect.once else ''}"
            case Released():
                return f"{who} released"
            case Cancelled():
                return f"{who} cancelled holds={effect.held.name}"

    def state(self) -> list[str]:
        check_space(self.space, frozen=self.frozen)
        return [joined("frozen:" if self.frozen else "", state_of(self.resource, self.name), self.deferred())]

    @property
    def resource(self) -> Resource:
        return self.space.resources.get(NAME, NOTHING)

    def deferred(self) -> str:
        ops = [f"{self.name(op.owner)}:{op.kind.value}" for op in self.space.deferred.values()]
        return joined("| deferred", *ops) if ops else ""


def state_of(resource: Resource, name: object) -> str:
    assert callable(name)
    ahead = {one.owner: "+" if one.flags & Flag.AHEAD else "" for one in resource.granted}
    words = [f"{name(one.owner)}:{one.held.name}{ahead[one.owner]}" for one in resource.granted]
    words += [f"{name(one.owner)}:{one.held.name}>{one.wanted.name}" for one in resource.converting]
    words += [f"{name(one.owner)}?{one.wanted.name}" for one in resource.waiting]
    value = value_of(resource.lvb, resource.lvb_valid)
    return (" ".join(words) or "free") + (f" |{value}" if value else "")


class NodesStory:
    def __init__(self) -> None:
        self.nodes = {f"n{number}": NodeLocks() for number in (1, 2, 3)}
        self.space = Lockspace(name="space", members=[1, 2, 3])
        self.sent: dict[str, deque[AskCluster]] = {node: deque() for node in self.nodes}
        self.answers: dict[str, deque[tuple[Effect, Token | None]]] = {node: deque() for node in self.nodes}
        self.clients: dict[str, tuple[str, int]] = {}
        self.lock_id = 0
        self.position = 0
        self.hold_ms = 0
        self.now_ms = 0
        self.slow = False
        self.lines: list[str] = []

    def do(self, line: str) -> list[str]:
        name, *words = line.split()
        self.lines = []
        if name in ("slow", "fast"):
            self.slow = name == "slow"
        elif name in ("request", "convert", "unlock", "cancel", "drop", "busy", "end"):
            self.client(name, words)
        elif name == "ahead" and len(words) == 2 and words[0] in self.nodes and words[1] in Mode.__members__:
            self.carry(words[0], self.nodes[words[0]].ask_ahead("space", [NAME], Mode[words[1]]))
        elif name == "adopt" and len(words) >= 3:
            self.adopt(*words)
        elif name in ("hold", "wait") and len(words) == 1 and words[0].isdecimal():
            self.time(name, int(words[0]))
        elif name in ("order", "tell", "overtake", "lost", "give_back", "purge") and len(words) == 1:
            node = words[0]
            if node not in self.nodes:
                raise BadCommand(f"what is {node!r}?")
            getattr(self, f"do_{name}")(node)
        elif name == "restore" and len(words) == 1 and words[0] in self.clients:
            self.restore(words[0])
        else:
            raise BadCommand(f"what is {line!r}?")
        if not self.slow:
            self.deliver()
        return self.lines

    def client(self, name: str, words: list[str]) -> None:
        if name == "request":
            node, who, more = words[0], words[1], Words(words[2:], ("keep", "cached"))
            if node not in self.nodes or who in self.clients or more.mode is None:
                raise BadCommand(f"request {words}")
            self.lock_id += 1
            self.clients[who] = node, self.lock_id
            keep = more.values.get("keep", "yes") == "yes"
            outs = self.nodes[node].request(
                self.clients[who][1], "space", NAME, more.mode, flags=more.flags, keep=keep,
                cached=more.values.get("cached") == "yes",
            )  # fmt: skip
            return self.carry(node, outs)
        if not words or words[0] not in self.clients:
            raise BadCommand(f"who is {words}?")
        node, lock_id = self.clients[words[0]]
        locks, more = self.nodes[node], Words(words[1:])
        if name == "convert" and more.mode is not None:
            return self.carry(node, locks.convert(lock_id, more.mode, flags=more.flags, lvb=more.lvb))
        if name == "unlock":
            return self.carry(node, locks.unlock(lock_id, flags=more.flags, lvb=more.lvb))
        if words[1:]:
            raise BadCommand(f"{name} takes one client")
        do = {
            "cancel": locks.cancel,
            "busy": locks.busy,
            "drop": lambda one: locks.drop([one]),
            "end": lambda one: locks.client_ended([one]),
        }[name]
        return self.carry(node, do(lock_id))

    def adopt(self, node: str, who: str, *words: str) -> None:
        more = Words(list(words))
        if node not in self.nodes or who in self.clients or more.mode is None:
            raise BadCommand(f"adopt {node} {who} {words}")
        outs = self.nodes[node].adopt("space", NAME, more.mode, flags=more.flags)
        first = outs[0]
        if isinstance(first, ClientRefused):
            self.lines.append(f"{who} refused {error_name(first.errno)}")
            return
        assert isinstance(first, ClientGranted)
        del self.clients[self.name(first.lock_id)]
        self.clients[who] = node, first.lock_id
        self.carry(node, outs)

    def time(self, name: str, time_ms: int) -> None:
        if name == "hold":
            self.hold_ms = time_ms
            return
        self.now_ms += time_ms
        for locks in self.nodes.values():
            locks.time_passes(self.now_ms)

    # -- messages ----------------------------------------------------------------------

    def carry(self, node: str, outs: list[Out]) -> None:
        for out in outs:
            if isinstance(out, AskMany):
                asked = (out.kind, out.mode, out.flags)
                self.carry(node, [AskCluster(out.lockspace, one, *asked) for one in out.resources])
            elif isinstance(out, AskCluster):
                self.sent[node].append(out)
                value = "" if out.lvb is None else f"lvb={lvb_word(out.lvb)}"
                mode = "" if out.mode is Mode.UN else out.mode.name
                words = joined(out.kind.value, mode, flags_of(out.flags & ~Flag.VALBLK), value)
                self.lines.append(f"{node} asks: {words}")
            else:
                self.lines.append(self.say(out))

    def do_order(self, node: str) -> None:
        if not self.sent[node]:
            raise BadCommand(f"{node} has sent nothing")
        ask = self.sent[node].popleft()
        op = Op(ask.kind, ask.resource, int(node[1:]), ask.mode, ask.flags, ask.lvb)
        self.facts(self.space.apply(op))

    def facts(self, told: list[tuple[str, Effect]]) -> None:
        for _, effect in told:
            token = None
            if isinstance(effect, Granted):
                self.position += 1
                token = Token(1, 1, self.position)
            self.answers[f"n{effect.owner}"].append((effect, token))
        check_space(self.space, frozen=False)

    def do_tell(self, node: str) -> None:
        if not self.answers[node]:
            raise BadCommand(f"nothing is on its way to {node}")
        effect, token = self.answers[node].popleft()
        locks, where = self.nodes[node], ("space", NAME)
        match effect:
            case Granted():
                assert token is not None
                until_ms = self.now_ms + self.hold_ms if self.hold_ms else 0
                outs = locks.on_granted(
                    *where, effect.mode, token, effect.lvb, effect.lvb_valid, hold_until_ms=until_ms
                )
            case Refused():
                outs = locks.on_refused(*where, effect.errno, effect.blockers)
            case Released():
                outs = locks.on_released(*where)
            case Cancelled():
                outs = locks.on_cancelled(*where, effect.held)
            case Blocking():
                outs = locks.on_blocking(*where, effect.wants, effect.tries, effect.once)
            case Queued():
                locks.on_queued(*where)
                return
        self.carry(node, outs)

    def do_overtake(self, node: str) -> None:
        """A grant is told only under authority; notices do not wait for that."""
        late = self.answers[node]
        if len(late) < 2 or not isinstance(late[0][0], Granted) or not isinstance(late[1][0], Blocking):
            raise BadCommand(f"no notice about a grant is on its way to {node}")
        late[0], late[1] = late[1], late[0]
        self.do_tell(node)

    def deliver(self) -> None:
        for _ in range(100):
            busy = False
            for node in self.nodes:
                if self.sent[node]:
                    busy = True
                    self.do_order(node)
                if self.answers[node]:
                    busy = True
                    self.do_tell(node)
            if not busy:
                return
        raise AssertionError("messages never end")

    def do_lost(self, node: str) -> None:
        mine = [lock_id for where, lock_id in self.clients.values() if where == node]
        self.carry(node, self.nodes[node].lost(mine))
        self.nodes[node] = NodeLocks()
        self.sent[node].clear()
        self.answers[node].clear()

    def restore(self, who: str) -> None:
        node, lock_id = self.clients[who]
        rows = [row for row in self.nodes[node].statistics() if row.lock_id == lock_id]
        self.nodes[node] = NodeLocks()
        self.sent[node].clear()
        self.answers[node].clear()
        run_out(self.space.purge(int(node[1:]), [NAME]))
        told = all_of(self.space.resume())
        held = self.space.resources[NAME].find(int(node[1:]))
        assert held is not None
        self.carry(node, self.nodes[node].restore(lock_id, "space", NAME, rows[0].held, held))
        if held.notified is not Mode.UN:
            self.carry(node, self.nodes[node].on_blocking("space", NAME, held.notified))
        self.facts(told)

    def do_give_back(self, node: str) -> None:
        for name in self.nodes[node].resources("space"):
            self.carry(node, self.nodes[node].give_back("space", name))

    def do_purge(self, node: str) -> None:
        run_out(self.space.purge(int(node[1:])))
        self.facts(all_of(self.space.resume()))

    # -- words ---------------------------------------------------------------------------

    def name(self, lock_id: int) -> str:
        return next(name for name, (_, number) in self.clients.items() if number == lock_id)

    def say(self, out: Out) -> str:
        assert not isinstance(out, AskCluster | AskMany)
        who = self.name(out.lock_id)
        match out:
            case ClientGranted():
                value = value_of(out.lvb, out.lvb_valid)
                return f"{who} granted {out.mode.name} token={out.token.position}{value}{marks_of(out)}"
            case ClientRefused():
                behind = [f"n{node}:{mode.name}" for node, mode in out.holders]
                return joined(f"{who} refused {error_name(out.errno)}", *behind)
            case ClientBlocking():
                return f"{who} blocking {'tries' if out.tries else 'wants'}={out.wants.name}"
            case ClientReleased():
                return f"{who} released"
            case ClientCancelled():
                return f"{who} cancelled holds={out.held.name}"
            case ClientLost():
                return f"{who} lost"

    def state(self) -> list[str]:
        resource = self.space.resources.get(NAME, NOTHING)
        lines = ["cluster " + state_of(resource, lambda owner: f"n{owner}")]
        for node, locks in self.nodes.items():
            rows = locks.statistics()
            if not rows:
                continue
            words = [f"{node} {rows[0].cluster_held.name}{' kept' if rows[0].kept else ''}"]
            for row in rows:
                if row.lock_id is not None:
                    held = "" if row.held is Mode.UN else f":{row.held.name}"
                    sign = "?" if row.held is Mode.UN else ">"
                    wanted = "" if row.wanted is Mode.UN else f"{sign}{row.wanted.name}"
                    orphan = " (orphan)" if row.orphan else ""
                    words.append(f"{self.name(row.lock_id)}{held}{wanted}{orphan}")
            lines.append(" ".join(words))
        return lines


KINDS: dict[str, type[ResourceStory] | type[NodesStory]] = {"resource": ResourceStory, "nodes": NodesStory}


class Replayed(Protocol):
    def do(self, line: str) -> list[str]: ...

    def state(self) -> list[str]: ...


def replay(path: Path, story: Replayed | None = None) -> tuple[str, str]:
    """The file as it is, and as it should be."""
    text = path.read_text()
    story = story or KINDS[path.parent.name]()
    blocks = []
    for block in text.strip("\n").split("\n\n"):
        head = block.split("\n----", 1)[0].splitlines()
        lines: list[str] = []
        commands = [line for line in head if line.strip() and not line.startswith("#")]
        for command in commands:
            try:
                lines += story.do(command)
                now = story.state()
            except BadCommand as error:
                raise BadCommand(f"{path.name}: {command}: {error}") from None
        blocks.append("\n".join([*head, "----", *lines, *now]) if commands else "\n".join(head))
    return text, "\n\n".join(blocks) + "\n"
