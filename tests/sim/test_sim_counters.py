"""What a value block may say, from what clients asked and were told."""

from dataclasses import dataclass

import pytest

from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.sim.counters import Counters, Write
from ringfence.sim.grips import Grip
from ringfence.sim.safety import SafetyViolation


@dataclass
class Somewhere:
    name: str = "n1"
    node: int = 1


class Block:
    """One block's history; time goes on by one with each thing that happens."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.now = 0
        self.sessions = 0

    def grip(self, mode: Mode) -> Grip:
        self.sessions += 1
        token = Token(1, 1, self.sessions)
        return Grip(Somewhere(), 1, 1, 1, "app", "count", mode, token, self.sessions)  # type: ignore[arg-type]

    def begin(self, grip: Grip, spoil: bool = False) -> tuple[Write, bytes]:
        self.now += 1
        return self.counters.begin(grip, self.now, spoil)

    def write(self, spoil: bool = False) -> bytes:
        write, lvb = self.begin(self.grip(Mode.EX), spoil)
        self.now += 1
        self.counters.done(write, self.now)
        return lvb

    def read(self, lvb: bytes | None, mode: Mode = Mode.PR, asked: int | None = None) -> None:
        self.now += 1
        asked = self.now if asked is None else asked
        self.now += 1
        self.counters.read(self.grip(mode), mode, asked, self.now, lvb)


def test_the_last_write_may_be_read_and_no_earlier_one() -> None:
    block = Block()
    old, new = block.write(), block.write()
    block.read(new)
    block.read(None)
    assert (block.counters.reads, block.counters.invalid) == (1, 1)
    with pytest.raises(SafetyViolation, match="written since"):
        block.read(old)


def test_a_read_that_was_asked_before_the_write_was_answered_may_miss_it() -> None:
    block = Block()
    old = block.write()
    asked = block.now
    new = block.write()
    block.read(old, asked=asked)
    block.read(new, asked=asked)


def test_a_write_without_an_answer_may_have_happened_and_then_it_has() -> None:
    block = Block()
    old = block.write()
    _, doubtful = block.begin(block.grip(Mode.EX))
    block.read(old)
    block.read(doubtful)
    with pytest.raises(SafetyViolation, match="written since"):
        block.read(old)


def test_after_a_lost_writer_the_old_value_is_not_valid() -> None:
    block = Block()
    old = block.write()
    block.counters.lost(block.grip(Mode.PR))
    block.read(old)
    block.counters.lost(block.grip(Mode.PW))
    block.read(old, Mode.CR)  # this may have been granted beside the holder of PW
    with pytest.raises(SafetyViolation, match="a writer was lost"):
        block.read(old)
    block.read(block.write())


def test_after_not_valid_was_written_no_value_comes_back() -> None:
    block = Block()
    old = block.write()
    block.write(spoil=True)
    with pytest.raises(SafetyViolation, match="not valid"):
        block.read(old)


def test_zeros_are_read_only_of_a_block_that_began_anew() -> None:
    block = Block()
    block.read(bytes(32))
    block.write()
    with pytest.raises(SafetyViolation, match="never been written"):
        block.read(bytes(32))
    block.counters.fresh("app", "count", block.now)
    block.read(bytes(32))


def test_a_value_that_nobody_wrote_is_seen() -> None:
    block = Block()
    with pytest.raises(SafetyViolation, match="nobody wrote"):
        block.read(b"x" * 32)
