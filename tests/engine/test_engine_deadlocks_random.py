"""Programs on three nodes that lock as they please: no ring is made up, and none stays.

The truth is kept here, from what was asked and answered: EX only, so who waits for a resource waits for its
holder.  Each node hears frame after frame at its own pace, so that the pictures are of different moments."""

import random
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec
from engine_ring import Host, World

from ringfence.core.errors import Deadlock
from ringfence.engine import inputs
from ringfence.wire import client as calls
from ringfence.wire.client import Request

SPACE = "games"
NAMES = "abcd"
ROUNDS = 400
ROUND_MS = 25
LAG = 6
"""A node may have so many frames yet to hear when a round ends."""


class Program(msgspec.Struct):
    """One connection."""

    host: int
    client: int
    held: dict[str, int]
    wish: str = ""
    request: str = ""
    caught: bool = False
    """Its wish has waited in a ring.  (Somebody else in it may have given up since.)"""


class Truth:
    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.chance = random.Random(seed)
        self.programs = [
            Program(host, client, {}) for host in world.hosts for client in range(1, 4)
        ]
        self.refused = 0
        self.asked = 0
        self.clients = 100
        self.unheard: dict[int, deque[inputs.Delivered]] = {id: deque() for id in world.hosts}

    def host(self, program: Program) -> Host:
        return self.world.hosts[program.host]

    # -- what programs do ---------------------------------------------------------------

    def act(self) -> None:
        program = self.chance.choice(self.programs)
        if program.wish:
            if self.chance.random() < 0.1:
                self.give_up(program)
            return
        free = [name for name in NAMES if name not in program.held]
        if program.held and (not free or self.chance.random() < 0.35):
            name = self.chance.choice(sorted(program.held))
            self.asked += 1
            self.send(program, calls.Unlock(program.held.pop(name)))
        elif free:
            program.wish = self.chance.choice(free)
            self.asked += 1
            program.request = f"p{self.asked}"
            self.send(program, calls.Lock(SPACE, program.wish, deadlock=True))

    def give_up(self, program: Program) -> None:
        """Its connection ends, and another takes its place."""
        gone, program.wish, program.caught = program.client, "", False
        program.held.clear()
        self.clients += 1
        program.client = self.clients
        self.feed(program.host, inputs.ClientGone(gone))

    def send(self, program: Program, call: calls.Call) -> None:
        request = Request(f"p{self.asked}", call)
        self.feed(program.host, inputs.Asked(program.client, request, f"program {program.client}"))

    def feed(self, id: int, fact: inputs.Input) -> None:
        self.world.hosts[id].feed(fact)
        while self.world.queue:
            sender, payload = self.world.queue.popleft()
            for unheard in self.unheard.values():
                unheard.append(inputs.Delivered(sender, payload))
        self.listen()

    def hear(self, id: int) -> None:
        if self.unheard[id]:
            self.feed(id, self.unheard[id].popleft())

    def round(self) -> None:
        """Time passes; programs act, nodes hear, in any order."""
        self.world.now_ns += ROUND_MS * 1_000_000
        for id in self.chance.sample(sorted(self.unheard), 3):
            self.feed(id, inputs.Tick())
        for _ in range(self.chance.randrange(12)):
            if self.chance.random() < 0.3:
                self.act()
            else:
                self.hear(self.chance.choice(sorted(self.unheard)))
        for id in self.chance.sample(sorted(self.unheard), 3):
            while len(self.unheard[id]) > LAG:
                self.hear(id)

    def listen(self) -> None:
        """Take the answers that have come."""
        for program in self.programs:
            if not program.wish or program.request not in self.host(program).replies:
                continue
            try:
                reply = self.host(program).reply(program.request)
            except Deadlock:
                assert program.caught, f"{program} was refused, and never waited in a ring"
                self.refused += 1
            else:
                program.held[program.wish] = reply["lock"]
            program.wish, program.caught = "", False
        for program in self.rings():
            program.caught = True

    # -- what is true -----------------------------------------------------------------------

    def in_ring(self, program: Program) -> bool:
        seen: list[Program] = []
        one = program
        while one.wish and one not in seen:
            seen.append(one)
            holders = [other for other in self.programs if one.wish in other.held]
            if not holders:
                return False
            one = holders[0]
        return one is program

    def rings(self) -> Iterator[Program]:
        return (program for program in self.programs if program.wish and self.in_ring(program))


def play(directory: Path, seed: int) -> int:
    """How many waits were refused."""
    world = World(directory, 3)
    world.pass_ms(1000)
    for host in world.hosts.values():
        host.do(calls.JoinSpace(SPACE))
    world.pass_ms(500)
    truth = Truth(world, seed)
    for _ in range(ROUNDS):
        truth.round()
    while any(truth.unheard.values()):
        for id in truth.unheard:
            truth.hear(id)
    for _ in range(600):
        if not any(truth.rings()):
            break
        world.pass_ms(100)
        truth.listen()
    assert not any(truth.rings()), "a ring stays"
    return truth.refused


def test_programs_that_lock_as_they_please(tmp_path: Path) -> None:
    refused = 0
    for seed in range(8):
        directory = tmp_path / str(seed)
        directory.mkdir()
        refused += play(directory, seed)
    assert refused > 5
