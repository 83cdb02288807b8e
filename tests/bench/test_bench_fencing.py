"""The bench of fencing: that it runs, on one kind of device; and how it splits the time."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from bench_runs import measures

pytestmark = pytest.mark.long

BENCH = Path(__file__).parents[2] / "bench/fencing.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_fencing", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_quick_look_at_one_kind() -> None:
    found = measures(BENCH, "--quick", "--kind", "ipmi")["kinds"]["ipmi"]
    assert (found["levels"], found["calls"]) == (1, 2), "an off, and a look"
    assert 0 < found["agents_ms"] <= found["whole_ms"]
    assert found["whole_ms"] == pytest.approx(found["agents_ms"] + found["waits_ms"] + found["ours_ms"])


def test_ours_is_what_neither_agents_nor_configured_waits_took(bench: ModuleType) -> None:
    def event(at_ms: int, kind: str, **fields: object) -> dict[str, object]:
        return {"kind": kind, "boottime_ns": at_ms * 1_000_000, "fields": fields}

    def ended(at_ms: int, agents_ms: int, waits_ms: int) -> dict[str, object]:
        return event(at_ms, "attempt-ended", agents_ms=agents_ms, waits_ms=waits_ms, words=[{}, {}])

    events = [
        event(2000, "victim"), event(2010, "attempt"), ended(2500, 460, 0), event(2520, "attempt"),
        event(4000, "evidence"), ended(4001, 900, 500),
    ]  # fmt: skip
    found = bench.split(events, 1_000_000_000)
    assert (found["detect_ms"], found["whole_ms"]) == (1000, 2000)
    assert (found["agents_ms"], found["waits_ms"], found["ours_ms"]) == (1360, 500, 140)
    assert (found["levels"], found["calls"], found["ours_a_level_ms"]) == (2, 4, 70)
