"""The demo's figures and verdicts, from recorded events."""

import json
from typing import Any

import pytest

from ringfence.lab.demo_report import ActReport, DemoReport, EventsMissing, plain_table, timeline

MS = 1_000_000


def event(kind: str, at_ms: int, node: int = 1) -> dict[str, Any]:
    return {"kind": kind, "boottime_ns": at_ms * MS, "fields": {"node": node}, "what": ""}


STORY = [
    event("victim", 50), event("purged", 60),  # an earlier failure
    event("victim", 400, node=3), event("victim", 500), event("attempt", 510), event("evidence", 900),
    event("purged", 1300), event("victim", 9000), event("evidence", 9100),
]  # fmt: skip


def test_times_are_relative_to_this_freeze() -> None:
    times = timeline(STORY, 1, 100 * MS, 1450 * MS)
    assert (times.detect_ms, times.fence_ms, times.authority_wait_ms) == (400, 400, 400)
    assert (times.recover_ms, times.total_ms) == (150, 1350)


def test_a_grant_without_evidence_is_no_timeline() -> None:
    with pytest.raises(EventsMissing, match="evidence"):
        timeline([event("victim", 500), event("purged", 600)], 1, 100 * MS, 1450 * MS)
    with pytest.raises(EventsMissing, match="purged"):
        timeline(STORY, 1, 100 * MS, 1200 * MS)


def test_the_json_has_exactly_the_promised_fields() -> None:
    report = DemoReport([ActReport("honest", tokens=["1.1.5", "2.2.9"], ok=True)])
    whole = json.loads(json.dumps(report.as_dict()))
    assert sorted(whole) == ["acts", "ok", "version"]
    assert sorted(whole["acts"][0]) == sorted(
        [
            "name", "detect_ms", "fence_ms", "authority_wait_ms", "recover_ms", "total_ms",
            "acknowledged_writes", "lost_writes", "foreign_blocks", "unreported_foreign_blocks", "incidents",
            "tokens", "ok",
        ]
    )  # fmt: skip
    assert whole["ok"] is True


def test_one_bad_act_or_none_at_all_is_no_success() -> None:
    assert not DemoReport([]).ok
    assert not DemoReport([ActReport("honest", ok=True), ActReport("lying")]).ok


def test_scenes_sum_their_times() -> None:
    act = ActReport("lying")
    act.add_times(timeline(STORY, 1, 100 * MS, 1450 * MS))
    act.add_times(timeline(STORY, 1, 100 * MS, 1450 * MS))
    assert (act.detect_ms, act.total_ms) == (800, 2700)


def test_the_table_lines_up() -> None:
    lines = plain_table(DemoReport([ActReport("honest", total_ms=12345, ok=True), ActReport("naive")]))
    assert len({len(line) for line in lines}) == 1
    assert "12345" in lines[1]
    assert lines[1].endswith("yes")
    assert lines[2].endswith("NO")
