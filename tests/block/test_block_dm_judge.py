"""What becomes of a table: judged by deadlines and the clock alone."""

import pytest

from ringfence.block.dm.judge import LEAD_MS, Judge, Wanted
from ringfence.host.pages import UNCHECKED_NS

MS = 1_000_000
NOW = 10_000 * MS
LAPSED_NS = 1
"""As the engine writes it where authority was taken away and may come back."""


@pytest.mark.parametrize(
    ("deadline_ns", "wanted"),
    [
        (NOW + 4_500 * MS, Wanted.PASS),
        (UNCHECKED_NS, Wanted.PASS),
        (NOW + (LEAD_MS + 1) * MS, Wanted.PASS),
        (NOW + LEAD_MS * MS, Wanted.HOLD),  # to suspend takes a moment: it begins before the deadline
        (NOW, Wanted.HOLD),
        (LAPSED_NS, Wanted.HOLD),
        (0, Wanted.FAIL),
    ],
)
def test_one_look(deadline_ns: int, wanted: Wanted) -> None:
    judge = Judge(60_000)
    judge.look(NOW + 4_000 * MS, NOW - 500 * MS)
    assert judge.look(deadline_ns, NOW) is wanted


def test_where_deadlines_are_short_a_host_that_is_well_is_not_held() -> None:
    judge = Judge(60_000)
    for heartbeat in range(10):
        now_ns = NOW + heartbeat * 100 * MS
        assert judge.look(now_ns + 300 * MS, now_ns) is Wanted.PASS
        assert judge.look(now_ns + 300 * MS, now_ns + 200 * MS) is Wanted.PASS
    assert judge.look(now_ns + 300 * MS, now_ns + 225 * MS) is Wanted.HOLD


def test_what_is_held_passes_when_it_is_renewed_and_fails_when_it_is_held_for_too_long() -> None:
    judge = Judge(hold_ms=1_000)
    judge.look(NOW + 500 * MS, NOW)
    assert judge.look(NOW + 500 * MS, NOW + 400 * MS) is Wanted.HOLD
    assert judge.ended_ns == NOW + 500 * MS
    assert judge.look(NOW + 2_000 * MS, NOW + 600 * MS) is Wanted.PASS
    assert judge.ended_ns is None
    assert judge.look(NOW + 2_000 * MS, NOW + 2_500 * MS) is Wanted.HOLD
    assert judge.look(NOW + 2_000 * MS, NOW + 3_499 * MS) is Wanted.HOLD
    assert judge.look(NOW + 2_000 * MS, NOW + 3_500 * MS) is Wanted.FAIL


def test_a_host_that_was_frozen_may_hold_for_as_long_as_any_other() -> None:
    judge = Judge(hold_ms=1_000)
    judge.look(NOW + 500 * MS, NOW)
    assert judge.look(NOW + 500 * MS, NOW + 60_000 * MS) is Wanted.HOLD
    assert judge.ended_ns == NOW + 500 * MS


@pytest.mark.parametrize("page_ns", [LAPSED_NS, 0])
def test_authority_that_was_taken_away_ended_after_the_last_look_that_found_it(page_ns: int) -> None:
    judge = Judge(hold_ms=1_000)
    judge.look(NOW + 4_500 * MS, NOW)
    judge.look(page_ns, NOW + 20 * MS)
    assert judge.ended_ns == NOW
