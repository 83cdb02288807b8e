"""The bench of volumes: that it runs, on small VGs and for seconds; and that its goals are told honestly."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench/volumes.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_volumes", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_quick_look() -> None:
    before = sorted(Path("/tmp").glob("rfbv*"))
    ran = subprocess.run(
        [sys.executable, BENCH, "--quick", "--json"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)["measures"]
    for row in ("lvs", "lvcreate"):
        assert all(found[row]["200"][who] > 0 for who in ("ours_ms", "stock_ms"))
    assert 0 < found["view"]["200"]["ours_ms"] <= found["view"]["200"]["worst_ms"]
    assert sorted(Path("/tmp").glob("rfbv*")) == before, "it leaves nothing behind"
    loops = subprocess.run(
        ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"], capture_output=True
    )
    assert b"/tmp/rfbv" not in loops.stdout


def test_goals(bench: ModuleType) -> None:
    found = {
        "lvs": {"1000": {"ours_ms": 60.0, "stock_ms": 61.0}, "20000": {"ours_ms": 300.0, "stock_ms": 400.0}},
        "view": {"20000": {"ours_ms": 49.0, "worst_ms": 90.0}},
    }
    told = {one["goal"]: (one["value"], one["met"]) for one in bench.goals(found)}
    assert told == {
        "lvs of 1000 LVs : stock's": (pytest.approx(60 / 61), True),
        "lvs of 20000 LVs : stock's": (0.75, False),
        "another host's view at 20000 LVs, ms": (49.0, True),
    }
    assert "| lvs | 20000 | 300 ms | 400 ms | 0.75 |" in bench.table(found)
