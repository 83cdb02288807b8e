"""Small requests gather where there is more to do than the disk can take, and wait no longer than that."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean

import pytest
from block_rig import MIB, Rig, eventually, rig
from test_block_clients import Burst, writes

from ringfence.block import protocol as nbd
from ringfence.block.connection import FEWER_LANES, LANES
from ringfence.block.protocol import Command
from ringfence.block.service import IN_FLIGHT
from ringfence.lab.nbd_client import NbdClient

STINTS, ROUNDS = 20, 25


@pytest.fixture
def fast(between: Path) -> Iterator[Rig]:
    with rig(between) as one:
        yield one


def test_what_four_clients_have_sent_is_issued_by_halves_of_the_seats(fast: Rig) -> None:
    uri = fast.open()
    assert fast.path().fast
    issued = fast.between / "issued"
    for behaviour in ("issued", "slow"):  # however quick the disk is under this
        (fast.between / behaviour).touch()

    def write_on(first: int) -> None:
        with NbdClient(uri, timeout_s=60) as client:
            burst = Burst(client)
            offsets = [(first + number) * 4096 for number in range(16)]
            burst.send(*writes(*offsets))
            for _ in range(200):  # a request for an answer, as a guest's queue does
                offset, error = burst.answer()
                assert error == 0
                burst.send(*writes(offset))
            for _ in offsets:
                assert burst.answer()[1] == 0

    clients = [threading.Thread(target=write_on, args=(16 * number,)) for number in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    together = issued.read_bytes()
    single = 4 * 216 - sum(together)
    assert mean([*together, *[1] * single]) > IN_FLIGHT / 4
    image = fast.on_disk(0, 64 * 4096)
    assert image == b"".join(bytes([number]) * 4096 for number in range(64))


@pytest.mark.parametrize("standing", [8, 12, 15])
def test_however_many_stand_the_other_seats_serve(freezable: Rig, standing: int) -> None:
    """The disk under them may never answer.  Half of the seats is what others would rather wait for."""
    uri = freezable.open()
    with (
        NbdClient(uri, timeout_s=60) as eight,
        NbdClient(uri, timeout_s=60) as rest,
        NbdClient(uri, timeout_s=60) as other,
        freezable.held_writes(),
    ):
        if not freezable.path().fast:
            standing = min(standing, LANES + FEWER_LANES)
        Burst(eight).send(*writes(*range(0, 8 * 4096, 4096)))
        Burst(rest).send(*writes(*range(8 * 4096, standing * 4096, 4096)))
        eventually(lambda: len(freezable.standing()) == standing)
        for _ in range(3):
            assert other.read(MIB, 4096) == bytes(4096)
        Burst(other).send(*((one, Command.READ, MIB + 4096 * one, 4096, b"") for one in range(8)))
        other._receive(8 * (nbd.REPLY.size + 4096))


def test_a_lone_client_with_many_under_way_needs_one_lane(fast: Rig) -> None:
    """It waits for the disk and for the socket at once."""
    uri = fast.open()
    issued = fast.between / "issued"
    with NbdClient(uri, timeout_s=60) as one:
        burst = Burst(one)

        def round_of_it() -> None:
            burst.send(*writes(*range(0, 16 * 4096, 4096)))
            for _ in range(16):
                assert burst.answer()[1] == 0

        round_of_it()
        issued.touch()
        slept = _slept(fast, round_of_it)
    assert slept < 4  # 6 where it wakes another to receive meanwhile, 2 else
    assert mean(issued.read_bytes()) > 4


def test_clients_with_many_under_way_need_not_wake_other_lanes(fast: Rig) -> None:
    """A lane that waits for the disk takes what comes meanwhile itself, and all of it goes together."""
    uri = fast.open()
    issued = fast.between / "issued"
    with NbdClient(uri, timeout_s=60) as one, NbdClient(uri, timeout_s=60) as other:
        bursts = [Burst(one), Burst(other)]

        def round_of_both() -> None:
            for number, burst in enumerate(bursts):
                burst.send(*writes(*range(number * MIB, number * MIB + 16 * 4096, 4096)))
            for burst in bursts:
                for _ in range(16):
                    assert burst.answer()[1] == 0

        round_of_both()
        issued.touch()
        slept = _slept(fast, round_of_both)
    assert slept < 18  # 26 where each batch wakes another lane, 11 else
    assert mean(issued.read_bytes()) > 4


def _slept(block: Rig, go_round: Callable[[], None]) -> float:
    """How often the worker's threads sleep for a round, in the quietest of some stints: where the machine has
    much else to do they also wait for single answers."""
    counts = []
    for _ in range(STINTS):
        before = _lanes(block)
        for _ in range(ROUNDS):
            go_round()
        counts.append(sum(after - before.get(lane, 0) for lane, after in _lanes(block).items()))
    return min(counts) / ROUNDS


def _lanes(block: Rig) -> dict[str, int]:
    """How often each thread of the worker has slept."""
    found = {}
    for thread in Path(f"/proc/{block.path().pid}/task").iterdir():
        status = (thread / "status").read_text()
        found[thread.name] = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found
