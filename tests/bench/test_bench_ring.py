"""The bench of rings: that it runs, on two hosts and for seconds; and what it allows a failover."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from bench_runs import measures

from ringfence.core.cluster import Timing

BENCH = Path(__file__).parents[2] / "bench/ring.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_ring", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_quick_look_at_one_ring() -> None:
    found = measures(BENCH, "--quick", "--ring", "knet")["measures"]
    assert sorted(found["locks"]) == ["hand_over, knet, 2", "known, knet, 2", "new, knet, 2"]
    assert all(0 < one["p50"] <= one["p99"] for one in found["locks"].values())
    failover = found["failover"]["knet, 300"]
    parts = ("detect_ms", "fence_ms", "authority_wait_ms", "recover_ms")
    assert abs(sum(failover[part] for part in parts) - failover["total_ms"]) <= len(parts)
    assert 0 < failover["agents_ms"] <= failover["fence_ms"], "the agents' own runs are a part of the fencing"
    assert failover["total_ms"] >= failover["bound_ms"] - 500, "nobody goes on before the bound"
    assert found["init"]["both_s"] > found["init"]["init_s"] > 0


def test_what_a_failover_may_take(bench: ModuleType) -> None:
    timing = Timing(token_ms=1000, write_ms=6000, heartbeat_ms=200)
    assert bench.allowed(timing, 3000) == timing.bound_ms + 250, "a quick agent waits for the bound"
    assert bench.allowed(timing, 9000) == 2200 + 9000 + 250


def test_agents_time_is_that_of_the_attempt_that_led_to_the_evidence(bench: ModuleType) -> None:
    def ended(at_s: float, passed: bool, *took_ms: int) -> dict[str, object]:
        words = [{"took_ms": one} for one in took_ms]
        fields = {"passed": passed, "words": words}
        return {"kind": "attempt-ended", "boottime_ns": int(at_s * 1e9), "fields": fields}

    events = [ended(1, True, 500), ended(9.9, False, 700), ended(10.1, True, 60, 40)]
    assert bench.agent_time_ms(events, 10_000_000_000) == 100
    assert bench.agent_time_ms(events, 5_000_000_000) == 0
