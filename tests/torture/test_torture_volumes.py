"""What the judge finds on a volume, and whether a report explains it."""

from ringfence.lab.stamps import Acknowledged, Baseline, Found, Record, Started, Stopped
from ringfence.lab.torture.volumes import VolumeVerdict, check_volume
from ringfence.wire.entries import Incident

SLOTS, BLOCK = 4, 4096
VOLUME = "vg0/vm1"
EMPTY = tuple(Found(slot, odd="empty") for slot in range(SLOTS))


def writer(tag: str, token: str, at: int, sees: tuple[Found, ...], *records: Record) -> list[Record]:
    """A whole stint; without Stopped at its end its client ended with its host."""
    return [Started(tag, "0" * 32, token, SLOTS, BLOCK, at), Baseline(at, at + 1, sees), *records]


def holding(*found: Found) -> tuple[Found, ...]:
    return tuple({**{one.slot: one for one in EMPTY}, **{one.slot: one for one in found}}.values())


def late(slot: int, kind: str = "write-late", volume: str = VOLUME) -> Incident:
    return Incident(kind, 1, "late", volume=volume, offset_bytes=slot * BLOCK, length_bytes=BLOCK)


A = writer("A", "1.1.5", 100, EMPTY, Acknowledged(1, 0, 110), Acknowledged(2, 1, 120), Stopped(130))
SEEN = holding(Found(0, "A", 1), Found(1, "A", 2))
B = writer("B", "2.1.5", 200, SEEN, Acknowledged(1, 0, 210), Stopped(230))
CLEAN = holding(Found(0, "B", 1), Found(1, "A", 2))


def verdict(
    final: tuple[Found, ...], *logs: list[Record], incidents: tuple[Incident, ...] = ()
) -> VolumeVerdict:
    return check_volume(VOLUME, logs, final, incidents)


def test_a_take_over_in_whatever_order_the_logs_come() -> None:
    assert verdict(CLEAN, B, A) == VolumeVerdict((), 2, 3, 0, 0, 0)


def test_a_lost_write_is_a_violation() -> None:
    b = writer("B", "2.1.5", 200, holding(Found(0, "A", 1)), Acknowledged(1, 0, 210), Stopped(230))
    told = verdict(holding(Found(0, "B", 1)), A, b)
    assert told.violations == ("vg0/vm1: the acknowledged write 2 of A is lost",)


def test_a_foreign_block_is_a_violation_unless_it_was_reported() -> None:
    final = holding(Found(0, "A", 9), Found(1, "A", 2))
    assert len(verdict(final, A, B).violations) == 2, "B's block is lost, A's is foreign"
    told = verdict(final, A, B, incidents=(late(0),))
    assert (told.violations, told.reported) == ((), 2)


def test_a_report_of_another_place_or_kind_explains_nothing() -> None:
    final = holding(Found(0, "A", 9), Found(1, "A", 2))
    for other in (late(1), late(0, kind="write-refused"), late(0, volume="vg0/vm2")):
        assert len(verdict(final, A, B, incidents=(other,)).violations) == 2


def test_power_that_was_cut_between_write_and_report_is_counted_apart() -> None:
    """The write in flight of a client that ended with its host: the slot after its last one."""
    ended = writer("A", "1.1.5", 100, EMPTY, Acknowledged(1, 0, 110), Acknowledged(2, 1, 120))
    b = writer("B", "2.1.5", 200, SEEN, Acknowledged(1, 2, 210), Stopped(230))
    landed = holding(Found(0, "A", 1), Found(1, "A", 2), Found(2, "A", 3))
    told = verdict(landed, ended, b)
    assert (told.violations, told.unreported) == ((), 2)
    assert len(verdict(landed, A, b).violations) == 2, "a client that ended in peace had nothing in flight"


def test_a_writer_that_never_began_is_left_out_and_none_at_all_is_no_success() -> None:
    assert verdict(CLEAN, A, B, []).writers == 2
    assert verdict(EMPTY).violations == ("vg0/vm1: nobody ever wrote to it",)
