"""Simulated clients: they ask for locks, convert them, count in value blocks, believe what they are told,
and write.

A client that was told of a grant acts on it until it gives it back, or until a look at the
authority page says that all is lost.  It writes whenever the page lets it; a write is checked, is
in flight for a moment, lands, and is checked again, as in `block.nbd`.  While a conversion is under
way it believes only what both modes allow.

Some are lazy: they hold until they are told that somebody waits (a blocking notice)."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ringfence.core.errors import NotFound, from_dict
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.engine import inputs
from ringfence.locks.flags import Flag
from ringfence.sim.counters import Counters, Write
from ringfence.sim.grips import Grip, weaker
from ringfence.sim.host import Host
from ringfence.sim.safety import SafetyViolation
from ringfence.sim.scheduler import MS, Scheduler
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Reply, Request

SPACES = {"lvm_vg0": ("vm1", "vm2"), "app": ("leader", "count", "count")}
COUNTERS = (("app", "count"),)
SURE_MS = 3000
"""Nobody had to do with a resource for so long: then no word of theirs about it is on its way any more."""
MODES = {Mode.EX: 6, Mode.PR: 3, Mode.PW: 1, Mode.CR: 1, Mode.CW: 1, Mode.NL: 1}
Landed = Callable[[Grip, bool], None]


@dataclass(eq=False)
class Question:
    """A request that has not been answered."""

    call: Call
    asked_ns: int
    then: Callable[[Reply], None]
    where: tuple[str, str] | None = None
    """The (lockspace, resource) of the lock that it asks for or converts."""


@dataclass(eq=False)
class Client:
    """One connection's worth of client on a host."""

    number: int
    host: Host
    idle: "Callable[[Client], None]"
    """What it does next when it has nothing to wait for."""
    joined: list[str] = field(default_factory=list)
    questions: dict[str, Question] = field(default_factory=dict)
    grip: Grip | None = None
    persistent: bool = False
    """If it ends without a word, its lock stays."""
    uses: tuple[str, str] | None = None
    """The (lockspace, resource) that it asked a lock of, and has or awaits."""
    used_ns: dict[tuple[str, str], int] = field(default_factory=dict)
    """When it last ceased to use others."""
    lazy: str = ""
    """The request whose notices it waits for before it gives its lock back."""
    in_flight: int = 0
    probed: bool = False
    generation: int = 0
    """Grows when everything it knew is void: what was planned before does not happen."""


class Workload:
    """All clients of a world.

    Args:
        landed: told of every write that reaches the disk, and whether its host froze on the way.
        viewed_ns: when the ring's last view began."""

    def __init__(
        self,
        scheduler: Scheduler,
        hosts: list[Host],
        per_host: int,
        landed: Landed,
        viewed_ns: Callable[[], int],
    ) -> None:
        self._scheduler = scheduler
        self._landed = landed
        self._viewed_ns = viewed_ns
        self._orphans: list[Grip] = []
        """Locks whose clients have ended, and which hold all the same."""
        self._littered: list[Host] = []
        """Hosts whose daemons may have orphans, known or not."""
        self._orphaned_ns: dict[tuple[str, str], int] = {}
        """When an orphan of this resource was last seen."""
        self.adopted = 0
        self._requests = 0
        self._sessions = 0
        self.counters = Counters()
        self.told_writer: Callable[[int], None] = lambda node: None
        """Told the node where a client has got a lock under which it may write a value that is followed."""
        self.clients: list[Client] = []
        self._numbered: dict[int, Client] = {}
        self.granted = self.refused = self.written = self.held_back = self.converted = self.deadlocks = 0
        self.busy = True
        """False: nobody asks for anything new."""
        for host in hosts:
            for _ in range(per_host):
                self.add(host, self._next)

    def add(self, host: Host, idle: Callable[[Client], None]) -> Client:
        """One more client; `idle` is called whenever it has nothing to do."""
        client = Client(0, host, idle)
        self._number(client)
        self.clients.append(client)
        self.rest(client, 30)
        return client

    def _number(self, client: Client) -> None:
        """A connection of its own."""
        self._numbered.pop(client.number, None)
        client.number = client.number + 1000 if client.number else 100 + len(self.clients)
        self._numbered[client.number] = client

    def rest(self, client: Client, worst_ms: float = 300) -> None:
        if client.uses is not None:
            client.used_ns[client.uses] = self._scheduler.now_ns
            client.uses = None
        self._soon(client, client.idle, worst_ms)

    @property
    def grips(self) -> list[Grip]:
        return [client.grip for client in self.clients if client.grip is not None] + self._orphans

    def unanswered(self) -> list[tuple[Client, Question]]:
        return [(client, one) for client in self.clients for one in client.questions.values()]

    def lock_of(self, number: int, request: str) -> tuple[str, str] | None:
        """(lockspace, resource) that an unanswered request asks a lock of."""
        client = self._numbered.get(number)
        question = client.questions.get(request) if client is not None else None
        return question.where if question is not None else None

    def joining(self, number: int, request: str) -> str | None:
        """The lockspace that an unanswered request asks to join."""
        client = self._numbered.get(number)
        question = client.questions.get(request) if client is not None else None
        call = question.call if question is not None else None
        return call.lockspace if isinstance(call, calls.JoinSpace) else None

    # -- asking --------------------------------------------------------------------

    def ask(
        self,
        client: Client,
        call: Call,
        then: Callable[[Reply], None],
        where: tuple[str, str] | None = None,
    ) -> None:
        """Send a request, if there is a daemon to take it.  `then` may be called before this returns."""
        daemon = client.host.daemon
        if daemon is None:
            self.rest(client)
            return
        self._requests += 1
        request = Request(f"q{self._requests}", call)
        client.questions[request.id] = Question(call, self._scheduler.now_ns, then, where)
        if isinstance(call, calls.Lock):
            client.lazy = request.id if call.notices else ""
        host = client.host
        host.awake(lambda: host.feed(daemon, inputs.Asked(client.number, request, "sim")))

    def answered(self, host: Host, number: int, reply: Reply) -> None:
        client = self._numbered.get(number)
        if client is None:
            return
        question = client.questions.pop(reply.id, None)
        if question is not None:
            question.then(reply)
        elif reply.id == client.lazy and isinstance(reply.result, dict) and "blocking" in reply.result:
            client.lazy = ""
            self._give_back_soon(client, 100)

    def ended(self, host: Host) -> None:
        """The host's daemon is gone: what was asked is void, what is held is still believed."""
        for client in self.clients:
            if client.host is host:
                client.questions.clear()
                client.joined = []
                client.lazy = ""
                if client.grip is None:
                    self._start_over(client)
                else:
                    self._give_back_soon(client, 3000)
        self.orphans_end(host)

    def reaped(self, host: Host) -> None:
        """Nothing is held there any more.  Who holds nothing waits on for a daemon that runs on: a command
        that was asked for in a stale life may wait for the next one, and change the disks in it."""
        self.orphans_end(host)
        for client in self.clients:
            if client.host is host:
                waits = host.daemon is not None and client.grip is None and client.questions
                self._abandon(client)
                if not waits:
                    client.questions.clear()
                    self._start_over(client)

    def _abandon(self, client: Client) -> None:
        """It holds nothing any more, and has not given it back."""
        if client.grip is not None:
            if (client.grip.lockspace, client.grip.resource) in COUNTERS:
                self.counters.lost(client.grip)
            client.grip = None
        client.joined = []
        client.lazy = ""

    def _start_over(self, client: Client) -> None:
        client.generation += 1
        client.in_flight = 0
        self.rest(client)

    def _soon(self, client: Client, what: Callable[[Client], None], worst_ms: float = 30) -> None:
        generation = client.generation

        def wake() -> None:
            if client.generation == generation:
                what(client)

        self._scheduler.after(
            self._scheduler.between(1, worst_ms), lambda: self._awake_or_later(client, wake)
        )

    def _awake_or_later(self, client: Client, wake: Callable[[], None]) -> None:
        if client.host.up:
            client.host.awake(wake)

    # -- the life of a client ------------------------------------------------------------

    def _next(self, client: Client) -> None:
        """Idle: join a lockspace, or ask for a lock."""
        if client.grip is not None:
            return
        if not self.busy:
            if self.litters(client.host):
                self.sweep(client)
            else:
                self.rest(client, 400)
            return
        rng = self._scheduler.rng
        space = rng.choice(sorted(SPACES))
        if space not in client.joined:
            self.ask(client, calls.JoinSpace(space), lambda reply: self._after_join(client, space, reply))
            return
        orphan = next((one for one in self._orphans if one.host is client.host), None)
        if orphan is not None and self._scheduler.chance(0.5):
            self._adopt(client, orphan)
            return
        if client.host in self._littered and self._scheduler.chance(0.1):
            self.sweep(client)
            return
        mode = rng.choices(list(MODES), list(MODES.values()))[0]
        where = space, rng.choice(SPACES[space])
        flags = Flag.EXPEDITE if mode is Mode.NL else rng.choice([0, 0, 0, Flag.HEADQUE, Flag.NOORDER])
        flags |= rng.choice([0, 0, 0, 0, Flag.ALTPR, Flag.ALTCW])
        client.persistent = self._scheduler.chance(0.2)
        if client.persistent:
            flags |= Flag.PERSISTENT
        client.uses = where
        lazy = self._scheduler.chance(0.1)
        wait_ms = None if flags & Flag.EXPEDITE else rng.choice([None, None, 0, rng.randrange(100, 4000)])
        asked_ns = self._scheduler.now_ns
        call = calls.Lock(*where, mode.name, wait_ms, int(flags), notices=lazy)
        self.ask(client, call, lambda reply: self._after_lock(client, where, asked_ns, reply), where)

    def _adopt(self, client: Client, orphan: Grip) -> None:
        """Take over what a client of this host has left behind."""
        self._orphans.remove(orphan)
        client.grip, client.persistent = orphan, True
        client.uses = where = orphan.lockspace, orphan.resource
        orphan.client = client.number

        def then(reply: Reply) -> None:
            if client.grip is not orphan:
                return
            if reply.error is None:
                orphan.lock = int(reply.result["lock"])
                self.adopted += 1
                self._plan_write(client)
                self._give_back_soon(client, 300)
                return
            if reply.error["code"] in ("not-found", "lock-held"):
                what = f"{client.host.name} has lost {'/'.join(where)}: {reply.error['message']}"
                raise SafetyViolation(f"orphan: {what}")
            client.grip = None
            self._orphans.append(orphan)
            self.rest(client)

        call = calls.Lock(*where, orphan.mode.name, 0, int(Flag.ORPHAN | Flag.PERSISTENT))
        self.ask(client, call, then)

    def litters(self, host: Host) -> bool:
        """Whether its daemon may have orphans."""
        return host in self._littered

    def sweep(self, client: Client) -> None:
        """Purge what clients of the host have left behind."""
        host, left = client.host, sorted(SPACES)

        def purge() -> None:
            space = left.pop()
            self.orphans_end(host, space)
            self.ask(client, calls.PurgeOrphans(space), then)

        def then(reply: Reply) -> None:
            # A cluster that has begun afresh may not know the lockspace: then nothing is left in it either.
            swept = reply.error is None or isinstance(from_dict(reply.error), NotFound)
            if swept and left:
                purge()
                return
            here = any(one.host is host for one in self._orphans)
            if swept and self.litters(host) and not here:
                self._littered.remove(host)
            self.rest(client)

        purge()

    def orphans_end(self, host: Host, space: str = "") -> None:
        """Nobody relies any more on what clients of this host have left behind ("": in any lockspace)."""
        for one in [one for one in self._orphans if one.host is host and space in ("", one.lockspace)]:
            self._orphans.remove(one)
            where = one.lockspace, one.resource
            self._orphaned_ns[where] = self._scheduler.now_ns
            if where in COUNTERS:
                self.counters.lost(one)

    def _fair(self, client: Client, where: tuple[str, str], reply: Reply) -> None:
        """A try may fail for somebody's sake, and not because a node keeps a lock that nobody uses."""
        assert reply.error is not None
        sure_ns = self._scheduler.now_ns - SURE_MS * MS
        # (Who has just gone on answers from what it knew before it stood still.)
        known_ns = max(self._viewed_ns(), self._orphaned_ns.get(where, 0), client.host.thawed_ns)
        if reply.error["code"] != "lock-held" or known_ns > sure_ns:
            return
        for other in self.clients:
            if other is not client and (other.uses == where or other.used_ns.get(where, 0) > sure_ns):
                return
        if all((one.lockspace, one.resource) != where for one in self._orphans):
            what = f"{client.host.name} is refused {'/'.join(where)}: {reply.error['message']}"
            raise SafetyViolation(f"try: {what}, though nobody uses it")

    def _after_join(self, client: Client, space: str, reply: Reply) -> None:
        if reply.error is None:
            client.joined.append(space)
        self.rest(client, 30)

    def _after_lock(self, client: Client, where: tuple[str, str], asked_ns: int, reply: Reply) -> None:
        if reply.error is not None:
            self.refused += 1
            self._fair(client, where, reply)
            client.lazy = ""
            if reply.error.get("code") in ("not-found", "locks-lost"):
                client.joined = []
            self.rest(client, 500)
            return
        self.granted += 1
        daemon = client.host.daemon
        assert daemon is not None
        result = reply.result
        self._sessions += 1
        grip = client.grip = Grip(
            client.host, daemon.incarnation, client.number, int(result["lock"]), *where,
            Mode[result["mode"]], Token.parse(result["token"]), self._sessions,
        )  # fmt: skip
        self._told(grip, Mode.UN, asked_ns, result)
        self._plan_write(client)
        if not client.lazy:
            self._give_back_soon(client, 300)
        elif not self.busy:
            self._patience(client)

    def _told(self, grip: Grip, before: Mode, asked_ns: int, result: Any) -> None:
        name = f"{grip.lockspace}/{grip.resource}"
        self._scheduler.note(f"{grip.host.name} {name} {grip.mode.name} {grip.token}")
        writes = before >= Mode.PW and grip.mode <= before
        counts = (grip.lockspace, grip.resource) in COUNTERS
        if counts and grip.mode >= Mode.PW:
            self.told_writer(grip.host.node)
        if counts and grip.mode >= before and not writes:
            lvb = base64.b64decode(result["lvb"]) if result["lvb"] is not None else None
            self.counters.read(grip, grip.mode, asked_ns, self._scheduler.now_ns, lvb)

    def _give_back_soon(self, client: Client, typical_ms: float) -> None:
        generation = client.generation
        delay_ms = self._scheduler.delay_ms(typical_ms, 8000)
        self._scheduler.after(delay_ms, lambda: client.host.awake(lambda: self._done(client, generation)))

    def _patience(self, client: Client) -> None:
        """The lazy hold for ever, if nobody waits for them; but the story must end."""
        if client.lazy and client.grip is not None:
            client.lazy = ""
            self._give_back_soon(client, 300)

    def let_go(self) -> None:
        """Nobody waits for anything: who was lazy gives back by itself."""
        for client in self.clients:
            self._patience(client)

    def _done(self, client: Client, generation: int) -> None:
        """It has held the lock for long enough: convert it, vanish, or give it back."""
        grip = client.grip
        if client.generation != generation or grip is None or client.questions:
            return
        if client.host.daemon is None or client.in_flight:  # paths flush before a lock is given up
            self._give_back_soon(client, 50)
            return
        if self.busy and self._scheduler.chance(0.3):
            self._convert(client, grip)
        elif self._scheduler.chance(0.05):
            self._vanish(client)
        else:
            self._unlock(client, grip)

    def _unlock(self, client: Client, grip: Grip) -> None:
        flags, lvb, write = self._count(grip, Mode.UN)
        client.grip = None  # no belief from here on, whatever becomes of the request

        def then(reply: Reply) -> None:
            if reply.error is not None:
                client.joined = []
            elif write is not None:
                self.counters.done(write, self._scheduler.now_ns)
            self.rest(client)

        self.ask(client, calls.Unlock(grip.lock, flags, lvb), then)

    def _count(self, grip: Grip, wanted: Mode) -> tuple[int, bytes | None, Write | None]:
        """Write the value block where this operation can: flags, block, and the write."""
        writes = grip.mode >= Mode.PW and wanted <= grip.mode
        if (grip.lockspace, grip.resource) not in COUNTERS or not writes or self._scheduler.chance(0.2):
            return 0, None, None
        if self._scheduler.chance(0.05):
            write, _ = self.counters.begin(grip, self._scheduler.now_ns, spoil=True)
            return int(Flag.IVVALBLK), None, write
        write, lvb = self.counters.begin(grip, self._scheduler.now_ns)
        return int(Flag.VALBLK), lvb, write

    def _convert(self, client: Client, grip: Grip) -> None:
        rng = self._scheduler.rng
        before, wanted = (
            grip.mode,
            rng.choice([Mode.NL, Mode.CR, Mode.CW, Mode.PR, Mode.PW, Mode.EX, Mode.EX]),
        )
        flags, lvb, write = self._count(grip, wanted)
        wait_ms = rng.choice([None, None, 0, rng.randrange(100, 4000)])
        if wait_ms is None and wanted > before and self._scheduler.chance(0.2):
            flags |= Flag.CONVDEADLK
        if client.persistent:
            flags |= Flag.PERSISTENT
        grip.mode = Mode.NL if flags & Flag.CONVDEADLK else weaker(before, wanted)
        if before < Mode.PW and self._scheduler.chance(0.1):
            flag, instead = rng.choice([(Flag.ALTPR, Mode.PR), (Flag.ALTCW, Mode.CW)])
            flags |= flag
            grip.mode = weaker(grip.mode, instead)
        asked_ns = self._scheduler.now_ns

        def then(reply: Reply) -> None:
            if client.grip is not grip:
                return
            if reply.error is not None:
                code = reply.error.get("code")
                self.deadlocks += code == "deadlock"
                if code in ("not-found", "locks-lost"):
                    # A conversion down may have been carried out before that: then no writer was lost.
                    self._abandon(client)
                    self._start_over(client)
                    return
                grip.mode = weaker(grip.mode, before) if flags & Flag.CONVDEADLK else before
                self._give_back_soon(client, 100)
                return
            self.converted += 1
            self._sessions += 1
            grip.session = self._sessions
            grip.mode, grip.token = Mode[reply.result["mode"]], Token.parse(reply.result["token"])
            if write is not None:
                self.counters.done(write, self._scheduler.now_ns)
            self._told(grip, before, asked_ns, reply.result)
            self._give_back_soon(client, 300)

        call = calls.Convert(grip.lock, wanted.name, wait_ms, int(flags), lvb)
        self.ask(client, call, then, (grip.lockspace, grip.resource))
        if wait_ms != 0 and self._scheduler.chance(0.1):
            self._soon(client, lambda client: self._break_off(client, grip), 400)

    def _break_off(self, client: Client, grip: Grip) -> None:
        """It gives back what it had, if it still waits for more."""
        if client.grip is not grip or not client.questions or client.in_flight:
            return

        def then(reply: Reply) -> None:
            if reply.error is not None:
                client.joined = []
            self.rest(client)

        client.grip = None
        self.ask(client, calls.Unlock(grip.lock, int(Flag.FORCEUNLOCK)), then)

    def _vanish(self, client: Client) -> None:
        daemon, grip = client.host.daemon, client.grip
        assert daemon is not None
        client.questions.clear()
        gone = client.number
        self._number(client)
        if client.persistent and grip is not None:
            client.grip = None
            self._orphans.append(grip)
            if client.host not in self._littered:
                self._littered.append(client.host)
        self._abandon(client)
        client.host.feed(daemon, inputs.ClientGone(gone))
        self._start_over(client)

    # -- when all is mended ------------------------------------------------------------

    def quiet(self) -> None:
        """What clients had planned is off; from here on only `probe` asks."""
        for client in self.clients:
            client.generation += 1
            client.questions.clear()
            client.grip = None
            client.lazy = ""

    def probe(self, client: Client, space: str, resource: str, mode: Mode) -> None:
        """Join, lock, unlock, again and again until it worked once; see `probed`."""
        client.probed = False

        def again() -> None:
            """Whatever became of the last time: its daemon may have left, or started anew, since."""
            if client.probed:
                return
            if client.host.daemon is not None and not client.questions:
                self.ask(client, calls.JoinSpace(space), joined)
            self._scheduler.after(self._scheduler.between(1, 3000), lambda: client.host.awake(again))

        def joined(reply: Reply) -> None:
            if reply.error is None:
                self.ask(client, calls.Lock(space, resource, mode.name), locked)

        def locked(reply: Reply) -> None:
            if reply.error is None:
                client.probed = True
                self.ask(client, calls.Unlock(int(reply.result["lock"])), lambda reply: None)

        again()

    def probed(self, client: Client) -> bool:
        return client.probed and not client.questions

    # -- writing ---------------------------------------------------------------------

    def _plan_write(self, client: Client) -> None:
        generation = client.generation
        self._scheduler.after(
            self._scheduler.delay_ms(40, 400),
            lambda: client.host.awake(lambda: self._write(client, generation)),
        )

    def _write(self, client: Client, generation: int) -> None:
        grip = client.grip
        if client.generation != generation or grip is None:
            return
        if client.host.lost(grip.incarnation, grip.page):
            self._abandon(client)  # all is lost, and the client is told so by its path
            self._start_over(client)
            return
        if grip.mode not in (Mode.EX, Mode.PW):
            self._plan_write(client)
            return
        if not grip.valid:
            self.held_back += 1
            self._plan_write(client)
            return
        client.in_flight += 1
        freezes = client.host.freezes

        def land() -> None:
            if client.generation != generation:
                return  # its path was reaped: what was in flight is over, one way or the other
            client.in_flight -= 1
            self.written += 1
            self._landed(grip, client.host.freezes != freezes)
            if not grip.valid:
                client.host.report_late(grip)
            self._plan_write(client)

        self._scheduler.after(self._scheduler.between(0.05, 1), lambda: client.host.awake(land))
