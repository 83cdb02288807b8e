"""The bench of volumes: that it runs, on small VGs and for seconds; and that its goals are told honestly."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from bench_runs import measures

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
    rows = ("lvs", "lvcreate", "activate", "writers", "view", "dm")
    wanted = [word for row in rows for word in ("--only", row)]
    report = measures(BENCH, "--quick", *wanted)
    found = report["measures"]
    for row in ("lvs", "lvcreate", "activate"):
        assert all(found[row]["200"][who] > 0 for who in ("ours_ms", "stock_ms"))
    assert 0 < found["view"]["200"]["ours_ms"] <= found["view"]["200"]["worst_ms"]
    assert (found["writers"]["lost"], found["writers"]["clean"]) == (0, True)
    names = [one["name"] for one in report["rows"]]
    assert "8 LVs from 2 hosts, by the command" in names


def test_goals(bench: ModuleType) -> None:
    found = {
        "lvs": {"1000": {"ours_ms": 60.0, "stock_ms": 61.0}, "20000": {"ours_ms": 300.0, "stock_ms": 400.0}},
        "view": {"20000": {"ours_ms": 49.0, "worst_ms": 90.0}},
        "writers": {
            "lvs": 80, "api_ms": 600.0, "cli_ms": 1900.0, "stock_ms": 1000.0, "lost": 0, "clean": False,
        },
        "nbd": {
            "1 MiB reads": {
                "median": {"ringfence": 90.0, "nbdkit": 100.0, "qemu-nbd": 101.0},
                "ratio": {"nbdkit": 0.9, "qemu-nbd": 90 / 101}, "goal": 0.9,
            }
        },
        "dm": {"of a disk": {"ours_us": 100.0, "raw_us": 99.0}},
    }  # fmt: skip
    told = bench.rows(found)
    assert {one["name"]: (one["ratio"] or one["ours"], one["met"]) for one in told} == {
        "lvs, 1000 LVs": (pytest.approx(60 / 61), True),
        "lvs, 20000 LVs": (0.75, False),
        "another host's view, 20000 LVs": (49.0, True),
        "80 LVs from 2 hosts, by the API": (0.6, False),
        "80 LVs from 2 hosts, by the command": (1.9, True),
        "of them lost, or refused by stock LVM2": (1, False),
        "NBD, 1 MiB reads: nbdkit": (0.9, True),
        "NBD, 1 MiB reads: qemu-nbd": (pytest.approx(90 / 101), False),
        "dm, 1 MiB reads of a disk: raw device": (pytest.approx(0.99), True),
    }
    assert "| lvs, 20000 LVs | 300 ms | 400 ms | 0.75 | <= 0.5 | NOT MET |" in bench.table(told)
    assert "not run" in bench.rows({"dm": {}})[0]["name"]


def test_the_rig_s_report_is_read(bench: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "rig"
    report.write_text(
        "ok throughput (5 s): a read of a disk that takes 300 us takes 403.3 us through dm, 401.5 us raw:"
        " 0.996 (goal 0.98); through a table of dmsetup's 403.2 us; a read of a disk that takes 500 us takes"
        " 615.8 us through dm, 614.0 us raw: 0.997 (goal 0.98); through a table of dmsetup's 615.7 us\n"
    )
    assert bench.through_dm(str(report)) == {
        "of a disk that takes 300 us": {"ours_us": 403.3, "raw_us": 401.5},
        "of a disk that takes 500 us": {"ours_us": 615.8, "raw_us": 614.0},
    }
    report.write_text("FAILED throughput: no guest\n")
    assert bench.through_dm(str(report)) == {}
