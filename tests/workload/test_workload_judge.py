"""The judge of the whole demo: every kind of corruption planted once, and none where there is none."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from ringfence.lab import stamps
from ringfence.lab.judge import Foreign, Verdict, judge
from ringfence.lab.stamps import (
    Acknowledged,
    Baseline,
    Failed,
    Found,
    LogWriter,
    Mismatch,
    Odd,
    Record,
    Stamp,
    Started,
    Stopped,
    parse,
    render,
    snapshot,
)
from ringfence.lab.workload import image_reader

SLOTS = 4
BLOCK = 4096


def empty() -> list[Found]:
    return [Found(slot, odd="empty") for slot in range(SLOTS)]


def volume(**blocks: tuple[str, int] | str) -> tuple[Found, ...]:
    """volume(s1=("A", 7), s2="damaged"): the rest is empty."""
    found = empty()
    for name, content in blocks.items():
        slot = int(name[1:])
        found[slot] = Found(slot, odd=content) if isinstance(content, str) else Found(slot, *content)
    return tuple(found)


def start(tag: str, at: int, *, sees: Sequence[Found]) -> list[Record]:
    return [Started(tag, "0" * 32, "", SLOTS, BLOCK, at), Baseline(at, at + 1, tuple(sees))]


def verdict(final: Sequence[Found], *logs: Sequence[Record]) -> Verdict:
    return judge(logs, final)


A = start("A", 100, sees=empty())


def test_a_clean_take_over() -> None:
    a = [*A, Acknowledged(1, 0, 110), Acknowledged(2, 1, 120), Acknowledged(3, 0, 130), Failed(4, 1, 1, 900)]
    b = [*start("B", 500, sees=volume(s0=("A", 3), s1=("A", 2))), Acknowledged(1, 0, 510)]
    said = verdict(volume(s0=("B", 1), s1=("A", 2)), a, b)
    assert said.clean
    assert (said.acknowledged_writes, said.lost_writes, said.refused_writes) == (4, 0, 1)


def test_what_was_acknowledged_and_is_not_there_is_lost() -> None:
    a = [*A, Acknowledged(1, 0, 110), Acknowledged(2, 1, 120)]
    for found in (volume(s0=("A", 1)), volume(s0=("A", 1), s1=("A", 1)), volume(s0=("A", 1), s1="damaged")):
        assert verdict(found, a).lost == (Found(1, "A", 2),)
        b = start("B", 500, sees=found)
        assert verdict(found, a, b).lost == (Found(1, "A", 2),), "at the successor's baseline"


def test_a_later_unanswered_write_in_its_place_is_no_loss() -> None:
    a = [*A, Acknowledged(1, 0, 110), Failed(2, 0, 0, 120)]
    assert verdict(volume(s0=("A", 2)), a).clean
    assert verdict(volume(s0=("A", 1)), a).clean


def test_a_roll_back_is_a_loss() -> None:
    a = [*A, Acknowledged(1, 0, 110), Acknowledged(5, 0, 120)]
    assert verdict(volume(s0=("A", 1)), a).lost == (Found(0, "A", 5),)


def test_a_loss_that_was_seen_once_counts_though_the_slot_was_written_again() -> None:
    mismatch = Mismatch(Found(0, odd="empty"), (Found(0, "A", 1),), 120)
    a = [*A, Acknowledged(1, 0, 110), mismatch, Acknowledged(2, 0, 130)]
    assert verdict(volume(s0=("A", 2)), a).lost == (Found(0, "A", 1),)


def test_a_loss_between_two_runs_of_one_writer() -> None:
    again = start("A", 300, sees=volume(s0=("A", 1)))
    a = [*A, Acknowledged(1, 0, 110), Acknowledged(2, 0, 120), *again, Acknowledged(1002, 0, 310)]
    assert verdict(volume(s0=("A", 1002)), a).lost == (Found(0, "A", 2),)


def test_an_answer_that_a_thawed_writer_hears_late_is_no_loss() -> None:
    """The write was good, its acknowledgement was frozen; the successor has seen and replaced it."""
    a = [*A, Acknowledged(1, 0, 900)]
    b = [*start("B", 500, sees=volume(s0=("A", 1))), Acknowledged(1, 0, 510)]
    assert verdict(volume(s0=("B", 1)), a, b).clean


def test_a_thawed_writer_that_sees_the_successors_block_has_lost_nothing() -> None:
    a = [*A, Acknowledged(1, 0, 110), Mismatch(Found(0, "B", 1), (Found(0, "A", 1),), 900)]
    b = [*start("B", 500, sees=volume(s0=("A", 1))), Acknowledged(1, 0, 510)]
    assert verdict(volume(s0=("B", 1)), a, b).clean


def test_a_write_after_the_take_over_is_foreign_at_the_end() -> None:
    a = [*A, Acknowledged(1, 0, 110), Failed(2, 3, 1, 900)]
    b = [*start("B", 500, sees=volume(s0=("A", 1))), Acknowledged(1, 0, 510), Acknowledged(2, 3, 520)]
    said = verdict(volume(s0=("B", 1), s3=("A", 2)), a, b)
    assert said.foreign_blocks == (Foreign(3, 3 * BLOCK, BLOCK, "A", 2),)
    assert said.lost == (Found(3, "B", 2),)


def test_a_foreign_block_that_was_written_over_again_still_counts() -> None:
    a = [*A, Acknowledged(1, 0, 110), Acknowledged(2, 0, 900)]
    mismatch = Mismatch(Found(0, "A", 2), (Found(0, "B", 1),), 950)
    b = start("B", 500, sees=volume(s0=("A", 1)))
    b += [Acknowledged(1, 0, 510), mismatch, Acknowledged(2, 0, 960)]
    said = verdict(volume(s0=("B", 2)), a, b)
    assert [(one.tag, one.seq) for one in said.foreign_blocks] == [("A", 2)]
    assert set(said.lost) == {Found(0, "A", 2), Found(0, "B", 1)}, "A was told it is safe, and so was B"


def test_a_late_write_over_the_writers_own_old_block_is_foreign() -> None:
    """The slot had a block of A's at the baseline, but not this one."""
    a = [*A, Acknowledged(1, 2, 110), Failed(2, 2, 0, 900)]
    b = start("B", 500, sees=volume(s2=("A", 1)))
    assert [one.seq for one in verdict(volume(s2=("A", 2)), a, b).foreign_blocks] == [2]
    assert verdict(volume(s2=("A", 1)), a, b).clean


def test_what_was_there_at_the_baseline_is_not_foreign() -> None:
    b = start("B", 500, sees=volume(s0=("X", 9), s1="damaged"))
    assert verdict(volume(s0=("X", 9), s1="damaged"), b).clean


def test_damage_counts_unless_an_unanswered_write_explains_it() -> None:
    a = [*A, Acknowledged(1, 0, 110)]
    assert verdict(volume(s0="damaged"), a).damaged_slots == (0,)
    assert verdict(volume(s0=("A", 1), s2="damaged"), a).damaged_slots == (2,)
    assert verdict(volume(s0="damaged"), [*a, Failed(2, 0, 0, 120)]).damaged_slots == ()


@pytest.mark.parametrize(
    ("final", "logs"),
    [
        (volume(), []),
        (volume()[:2], [A]),
        (volume(), [[Stopped(1)]]),
        (volume(), [A, A]),
        (volume(), [A, [msgspec.structs.replace(start("B", 5, sees=empty())[0], slots=9)]]),
    ],
)
def test_logs_that_do_not_belong_together(final: Sequence[Found], logs: list[list[Record]]) -> None:
    with pytest.raises(ValueError, match=r"log|slots|tag"):
        judge(logs, final)


# -- blocks ------------------------------------------------------------------------


def stamped(slot: int, seq: int = 1, tag: str = "an-a01n01") -> bytes:
    return render(Stamp(tag, "ab" * 16, "3.1.77", seq, slot, 5, 6), BLOCK)


def test_a_block_comes_back_whole() -> None:
    block = stamped(3, 9)
    assert len(block) == BLOCK
    assert parse(block, 3) == Stamp("an-a01n01", "ab" * 16, "3.1.77", 9, 3, 5, 6)
    assert parse(bytes(BLOCK), 3) is Odd.EMPTY
    assert parse(block, 4) is Odd.DAMAGED, "a whole block in the wrong place"


@pytest.mark.parametrize("at", [0, 8, 30, 100, 2000, BLOCK - 1])
def test_any_flipped_byte_is_damage(at: int) -> None:
    block = bytearray(stamped(3))
    block[at] ^= 1
    assert parse(bytes(block), 3) is Odd.DAMAGED


def test_half_a_block_is_damage() -> None:
    old, new = stamped(3, 1), stamped(3, 2)
    for cut in range(512, BLOCK, 512):
        assert parse(new[:cut] + old[cut:], 3) is Odd.DAMAGED
        assert parse(bytes(cut) + new[cut:], 3) is Odd.DAMAGED


def test_a_tag_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        stamped(0, tag="a-name-longer-than-16")


def test_planted_corruption_on_a_real_file(tmp_path: Path) -> None:
    """Two segments in one image; the judge reads it as the volume."""
    image = tmp_path / "img"
    image.write_bytes(bytes(8 * BLOCK))
    with image.open("r+b") as file:
        for at, block in ((1, stamped(0, 1, "A")), (2, stamped(1, 2, "A")), (5, stamped(2, 3, "A"))):
            file.seek(at * BLOCK)
            file.write(block)
    segments = [f"{image}:{BLOCK}:{2 * BLOCK}", f"{image}:{5 * BLOCK}:{2 * BLOCK}"]
    final = snapshot(image_reader(segments), SLOTS, BLOCK)
    assert final == volume(s0=("A", 1), s1=("A", 2), s2=("A", 3))
    a = [*A, Acknowledged(1, 0, 110), Acknowledged(2, 1, 120), Acknowledged(3, 2, 130)]
    assert verdict(final, a).clean
    with image.open("r+b") as file:
        file.seek(5 * BLOCK + 700)
        file.write(b"rot")
    said = verdict(snapshot(image_reader(segments), SLOTS, BLOCK), a)
    assert (said.lost, said.damaged_slots) == ((Found(2, "A", 3),), (2,))
    with pytest.raises(ValueError, match="shorter"):
        snapshot(image_reader(segments), SLOTS + 1, BLOCK)


# -- logs --------------------------------------------------------------------------


def test_a_log_comes_back_and_a_torn_last_line_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    records = [*A, Acknowledged(7, 0, 110), Failed(9, 1, 1, 120)]
    log = LogWriter(path)
    for record in records:
        log.append(record)
    assert stamps.read_log(path) == records
    assert stamps.last_sequence(records) == 9
    os.truncate(path, path.stat().st_size - 5)
    assert stamps.read_log(path) == records[:-1]
    again = start("A", 300, sees=empty())
    log = LogWriter(path)
    for record in again:
        log.append(record)
    assert stamps.read_log(path) == [*records[:-1], *again]


def test_a_hole_inside_a_log_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogWriter(path)
    log.append(A[0])
    log.append(Acknowledged(1, 0, 1))
    path.write_bytes(path.read_bytes().replace(b"Acknowledged", b"Acknowledge!"))
    log.append(Acknowledged(2, 0, 1))
    with pytest.raises(ValueError, match="line 2 of the log"):
        stamps.read_log(path)
