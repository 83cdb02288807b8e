"""The bench of locks: that it runs, on ours alone and for seconds; and that its goals are told honestly."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from bench_runs import measures

BENCH = Path(__file__).parents[2] / "bench/locks.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_locks", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_quick_look_at_ours() -> None:
    found = measures(BENCH, "--quick", "--only", "ringfence", "--no-scale")["measures"]
    assert sorted(found) == ["crowd", "hand_over", "pair", "turns"]
    assert sorted(found["pair"]) == ["limit", "limit, one CPU", "ringfence", "ringfence cached"]
    assert all(0 < one["p50"] <= one["p99"] for one in found["pair"].values())
    assert found["turns"]["ringfence"]["p50"] > 0


def test_goals(bench: ModuleType) -> None:
    found = {
        "pair": {"ringfence": {"p50": 100.0}, "redis": {"p50": 201.0}, "postgresql": {"p50": 90.0}},
        "crowd": {"ringfence": {"p50": 1300}, "postgresql": {"p50": 1000}},
        "turns": {"ringfence": {"p50": 5, "smaller_share": 0.1}},
    }
    for in_c, crowd in ((False, {"64 clients in Python : postgresql's": True}),
                        (True, {"64 clients in C : postgresql's": False})):  # fmt: skip
        told = {one["goal"]: one["met"] for one in bench.goals(found, {"joiner": {"failed": "no"}}, in_c)}
        assert told == {
            "pair : redis's": True,
            "pair : postgresql's": False,
            "two in a tight loop: smaller share of grants": False,
        } | crowd
