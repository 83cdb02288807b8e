"""Bounds, silence, and a clock's gaps."""

import pytest

from ringfence.core.cluster import Timing
from ringfence.core.ids import Life
from ringfence.membership.hearing import Hearing

MS = 1_000_000
TIMING = Timing()
BOUND = TIMING.bound_ms
B1, B2, UNKNOWN = Life(2, "m", "b1", 1), Life(2, "m", "b2", 1), Life(2)


def started(at_ms: int = 1000) -> Hearing:
    hearing = Hearing(TIMING)
    hearing.started(at_ms * MS)
    return hearing


def test_a_fresh_survivor_counts_as_having_heard_everyone_at_its_start():
    hearing = started()
    for life in (B1, UNKNOWN):
        assert not hearing.bound_passed(life, (1000 + BOUND) * MS - 1, TIMING)
        assert hearing.bound_passed(life, (1000 + BOUND) * MS, TIMING)


def test_a_bound_without_a_start_is_a_bug():
    with pytest.raises(AssertionError, match="started"):
        Hearing().bound_passed(B1, 10**18, TIMING)


def test_the_bound_counts_from_the_last_word():
    hearing = started()
    hearing.heard(B1, 5000 * MS)
    hearing.heard(B1, 4000 * MS)
    assert not hearing.bound_passed(B1, (5000 + BOUND) * MS - 1, TIMING)
    assert hearing.bound_passed(B1, (5000 + BOUND) * MS, TIMING)
    assert hearing.bound_left_ms(B1, 5000 * MS, TIMING) == BOUND
    assert hearing.bound_left_ms(B1, (4999 + BOUND) * MS + 1, TIMING) == 1
    assert hearing.bound_left_ms(B1, 10**18, TIMING) == 0


def test_lives_are_heard_apart_but_an_unknown_one_may_be_any():
    hearing = started()
    hearing.heard(B2, 9000 * MS)
    assert hearing.last_heard_ns(B1) == 1000 * MS
    assert hearing.last_heard_ns(UNKNOWN) == 9000 * MS
    assert hearing.last_heard_ns(Life(3)) == 1000 * MS
    hearing.forget(B2)
    assert hearing.last_heard_ns(UNKNOWN) == 1000 * MS


def test_the_bound_is_longer_than_write_authority():
    for timing in (TIMING, Timing(write_ms=1, heartbeat_ms=1), Timing(write_ms=100)):
        assert timing.bound_ms > timing.write_ms


def test_silence():
    hearing = started()
    hearing.heard(B1, 2000 * MS)
    assert not hearing.silent(B1, 4999 * MS, 3000)
    assert hearing.silent(B1, 5000 * MS, 3000)


def test_calm_only_after_a_detection_time_without_a_gap():
    hearing = started(0)
    now_ms = 0
    assert not hearing.calm(0, 2200)

    def run(to_ms: int, step_ms: int) -> None:
        nonlocal now_ms
        while now_ms < to_ms:
            now_ms += step_ms
            hearing.ticked(now_ms * MS)

    run(2000, 200)
    assert not hearing.calm(now_ms * MS, 2200)
    run(2200, 200)
    assert hearing.calm(now_ms * MS, 2200)
    run(2700, 500)  # just half a token: still no gap
    assert hearing.calm(now_ms * MS, 2200)
    assert not hearing.calm((now_ms + 501) * MS, 2200), "a gap is going on right now"
    run(3201, 501)
    assert hearing.last_gap_ns == 3201 * MS
    run(3201 + 2000, 200)
    assert not hearing.calm(now_ms * MS, 2200)
    run(3201 + 2200, 200)
    assert hearing.calm(now_ms * MS, 2200)


def test_attentive_only_after_a_detection_time_of_own_echoes():
    hearing = started(0)
    for now_ms in range(0, 2400, 200):
        assert not hearing.attentive(now_ms * MS, 2400)
        hearing.echoed(now_ms * MS)
    assert hearing.attentive(2400 * MS, 2400)
    hearing.echoed(3200 * MS)  # exactly a token since the last one
    assert hearing.attentive(3200 * MS, 2400)
    hearing.echoed(4201 * MS)  # longer: the ring stood still
    assert not hearing.attentive(4201 * MS, 2400)
    for now_ms in range(4300, 6600, 100):
        hearing.echoed(now_ms * MS)
    assert not hearing.attentive(6600 * MS, 2400)
    assert hearing.attentive(6601 * MS, 2400)


def test_a_ring_that_forms_anew_again_and_again_is_restless_for_a_while():
    hearing = started(0)
    for now_ms in (1000, 9000, 12_000):
        assert hearing.restless(now_ms * MS) == (0, 0.0)
        hearing.ring_formed(now_ms * MS, without_cause=True)
        hearing.ring_formed(now_ms * MS + 1, without_cause=False)
        assert hearing.view_ns == now_ms * MS + 1
    assert hearing.restless(12_000 * MS) == (3, 30.0)
    assert hearing.restless(21_999 * MS) == (3, 30.0)
    assert hearing.restless(22_000 * MS) == (0, 0.0), "nothing for 10 tokens: it is over"
    hearing.ring_formed(30_999 * MS, without_cause=True)
    assert hearing.restless(30_999 * MS) == (4, 30.0)
    assert hearing.restless(31_000 * MS) == (3, 30.0), "the first was 30 tokens ago"
