"""Simulated clients: they ask for locks, believe what they are told, and write.

A client that was told of a grant acts on it until it gives it back, or until a look at the
authority page says that all is lost.  It writes whenever the page lets it; a write is checked, is
in flight for a moment, lands, and is checked again, as in `block.nbd`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.engine import inputs
from ringfence.sim.host import Grip, Host
from ringfence.sim.scheduler import Scheduler
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Reply, Request
from ringfence.wire.entries import Incident

SPACES = {"lvm_vg0": ("vm1", "vm2"), "app": ("leader",)}
MODES = {Mode.EX: 6, Mode.PR: 3, Mode.PW: 1, Mode.CR: 1}
Landed = Callable[[Grip, bool], None]


@dataclass(eq=False)
class Question:
    """A request that has not been answered."""

    call: Call
    asked_ns: int
    then: Callable[[Reply], None]
    patient: bool
    """It has no time limit of its own: it must be answered in the end."""


@dataclass(eq=False)
class Client:
    """One connection's worth of client on a host."""

    number: int
    host: Host
    joined: list[str] = field(default_factory=list)
    questions: dict[str, Question] = field(default_factory=dict)
    grip: Grip | None = None
    in_flight: int = 0
    probed: bool = False
    generation: int = 0
    """Grows when everything it knew is void: what was planned before does not happen."""


class Workload:
    """All clients of a world.

    Args:
        landed: told of every write that reaches the disk, and whether its host froze on the way."""

    def __init__(self, scheduler: Scheduler, hosts: list[Host], per_host: int, landed: Landed) -> None:
        self._scheduler = scheduler
        self._landed = landed
        self._requests = 0
        self.clients = [
            Client(host.node * 100 + number, host) for host in hosts for number in range(per_host)
        ]
        self.granted = self.refused = self.written = self.held_back = 0
        self.busy = True
        """False: nobody asks for anything new."""
        for client in self.clients:
            self._soon(client, self._next)

    @property
    def grips(self) -> list[Grip]:
        return [client.grip for client in self.clients if client.grip is not None]

    def unanswered(self) -> list[tuple[Client, Question]]:
        return [(client, one) for client in self.clients for one in client.questions.values()]

    def lock_of(self, number: int, request: str) -> tuple[str, str] | None:
        """(lockspace, resource) that an unanswered request asks a lock of."""
        for client in self.clients:
            question = client.questions.get(request) if client.number == number else None
            if question is not None and isinstance(question.call, calls.Lock):
                return question.call.lockspace, question.call.resource
        return None

    # -- asking --------------------------------------------------------------------

    def ask(
        self, client: Client, call: Call, then: Callable[[Reply], None], patient: bool = True
    ) -> Question | None:
        """Send a request, if there is a daemon to take it."""
        daemon = client.host.daemon
        if daemon is None:
            self._soon(client, self._next, 300)
            return None
        self._requests += 1
        request = Request(f"q{self._requests}", call)
        question = Question(call, self._scheduler.now_ns, then, patient)
        client.questions[request.id] = question
        host = client.host
        host.awake(lambda: host.feed(daemon, inputs.Asked(client.number, request, "sim")))
        return question

    def answered(self, host: Host, number: int, reply: Reply) -> None:
        client = next((one for one in self.clients if one.number == number), None)
        if client is None or not reply.final:
            return
        question = client.questions.pop(reply.id, None)
        if question is not None:
            question.then(reply)

    def ended(self, host: Host) -> None:
        """The host's daemon is gone: what was asked is void, what is held is still believed."""
        for client in self.clients:
            if client.host is host:
                client.questions.clear()
                client.joined = []
                if client.grip is None:
                    self._start_over(client)

    def reaped(self, host: Host) -> None:
        for client in self.clients:
            if client.host is host:
                client.grip = None
                client.joined = []
                client.questions.clear()
                self._start_over(client)

    def _start_over(self, client: Client) -> None:
        client.generation += 1
        client.in_flight = 0
        self._soon(client, self._next, 300)

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
            self._soon(client, self._next, 400)
            return
        rng = self._scheduler.rng
        space = rng.choice(sorted(SPACES))
        if space not in client.joined:
            self.ask(client, calls.JoinSpace(space), lambda reply: self._after_join(client, space, reply))
            return
        mode = rng.choices(list(MODES), list(MODES.values()))[0]
        wait_ms = rng.choice([None, None, 0, rng.randrange(100, 4000)])
        self.lock(client, space, rng.choice(SPACES[space]), mode, wait_ms)

    def _after_join(self, client: Client, space: str, reply: Reply) -> None:
        if reply.error is None:
            client.joined.append(space)
        self._soon(client, self._next)

    def lock(
        self, client: Client, space: str, resource: str, mode: Mode, wait_ms: int | None
    ) -> Question | None:
        call = calls.Lock(space, resource, mode.name, wait_ms)
        return self.ask(client, call, lambda reply: self._after_lock(client, call, reply))

    def _after_lock(self, client: Client, call: calls.Lock, reply: Reply) -> None:
        if reply.error is not None:
            self.refused += 1
            if reply.error.get("code") in ("not-found", "locks-lost"):
                client.joined = []
            self._soon(client, self._next, 500)
            return
        self._believe(client, call.lockspace, call.resource, reply.result)
        hold_ms = self._scheduler.delay_ms(300, 8000)
        generation = client.generation
        self._scheduler.after(hold_ms, lambda: client.host.awake(lambda: self._done(client, generation)))
        self._plan_write(client)

    def _believe(self, client: Client, space: str, resource: str, result: Any) -> None:
        self.granted += 1
        daemon = client.host.daemon
        assert daemon is not None
        client.grip = Grip(
            client.host,
            daemon.incarnation,
            client.number,
            int(result["lock"]),
            space,
            resource,
            Mode[result["mode"]],
            Token.parse(result["token"]),
        )
        self._scheduler.note(f"{client.host.name} {space}/{resource} {result['mode']} {result['token']}")

    def _done(self, client: Client, generation: int) -> None:
        """It has held the lock for long enough: convert it, vanish, or give it back."""
        grip = client.grip
        if client.generation != generation or grip is None:
            return
        if client.host.daemon is None or client.in_flight:  # paths flush before a lock is given up
            self._scheduler.after(50, lambda: client.host.awake(lambda: self._done(client, generation)))
            return
        client.grip = None  # no belief from here on, whatever becomes of the request
        if self._scheduler.chance(0.05):
            self._vanish(client)
        else:
            self.ask(client, calls.Unlock(grip.lock), lambda reply: self._after_unlock(client, reply))

    def _after_unlock(self, client: Client, reply: Reply) -> None:
        if reply.error is not None:
            client.joined = []
        self._soon(client, self._next, 300)

    def _vanish(self, client: Client) -> None:
        daemon = client.host.daemon
        assert daemon is not None
        client.questions.clear()
        client.host.feed(daemon, inputs.ClientGone(client.number))
        client.number += 1000
        client.joined = []
        self._start_over(client)

    # -- when all is mended ------------------------------------------------------------

    def quiet(self) -> None:
        """What clients had planned is off; from here on only `probe` asks."""
        for client in self.clients:
            client.generation += 1
            client.questions.clear()
            client.grip = None

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
            client.grip = None  # all is lost, and the client is told so by its path
            client.joined = []
            self._start_over(client)
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
            self._land(grip, late=client.host.freezes != freezes)
            self._plan_write(client)

        self._scheduler.after(self._scheduler.between(0.05, 1), lambda: client.host.awake(land))

    def _land(self, grip: Grip, late: bool) -> None:
        if grip.mode not in (Mode.EX, Mode.PW):
            return
        self.written += 1
        self._landed(grip, late)
        if not grip.valid:
            self._report(grip)

    def _report(self, grip: Grip) -> None:
        """The check after the write failed: it may have landed late, and must not pass silently."""
        daemon = grip.host.daemon
        if daemon is None:
            return
        what = f"a write to {grip.resource} may have landed after authority lapsed"
        incident = Incident("write-late", grip.host.node, what, volume=f"{grip.lockspace}/{grip.resource}")
        grip.host.feed(daemon, inputs.PathIncident(incident))
