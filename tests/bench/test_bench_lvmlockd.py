"""The bench of lvmlockd: that it runs, on small VGs and for seconds; and that its goals are told honestly."""

import contextlib
import importlib.util
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from bench_runs import measures

BENCH = Path(__file__).parents[2] / "bench/lvmlockd.py"
BARE, REAL, OURS = "grant everything", "lvmlockd -T", "ringfence, 2 hosts"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_lvmlockd", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_quick_look() -> None:
    found = measures(BENCH, "--quick", "--only", BARE, "--only", REAL, "--only", OURS)["measures"]
    one = found["activate"]["200"]
    assert sorted(one) == sorted([BARE, REAL, OURS])
    assert one[OURS]["off_share_s"] == pytest.approx(one[OURS]["off_s"] - one[BARE]["off_s"])
    for server in (REAL, OURS):
        made = found["create"][server]
        assert (made["made"], made["lost"], made["seqno"], made["clean"]) == (80, 0, 80, True)
        assert sorted(found["request"][server]) == ["lv, 1", "lv, 4", "vg, 1", "vg, 4"]
        assert all(0 < us["p50"] <= us["p99"] for us in found["request"][server].values())
    assert found["create"][BARE]["lost"] > 0, "who grants everything loses LVs: the measure sees it"


@pytest.mark.parametrize(("server", "tries"), [(REAL, 3), ("ringfence", 1)])
def test_a_peer_that_hangs_up_is_asked_anew_and_ours_is_not(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str, tries: int
) -> None:
    path = str(tmp_path / "socket")
    with socket.create_server(path, family=socket.AF_UNIX) as listening:

        def hang_up() -> None:
            with contextlib.suppress(OSError):  # the test is over
                while True:
                    listening.accept()[0].close()

        hanging = threading.Thread(target=hang_up, daemon=True)
        hanging.start()
        asked = []

        @contextlib.contextmanager
        def running(servers: list[str], *_: object) -> Iterator[dict[str, list[SimpleNamespace]]]:
            asked.append(servers)
            yield {server: [SimpleNamespace(socket=path)]}

        monkeypatch.setattr(bench, "running", running)
        with pytest.raises(bench.HungUp, match=f"{server} hung up"):
            bench.requests(server, 1, lambda line: None)
        assert asked == [[server]] * tries
        listening.shutdown(socket.SHUT_RDWR)
        hanging.join()


def test_a_share_is_what_a_round_took_less_what_lvm2_took_in_that_round(bench: ModuleType) -> None:
    rounds = {
        BARE: {"on_s": [1.0, 9.0, 2.0], "off_s": [1.0, 1.0, 1.0]},
        REAL: {"on_s": [4.0, 11.0, 6.0], "off_s": [2.0, 3.0, 5.0]},
    }
    found = bench.shares(rounds)[REAL]
    assert found == {"on_s": 6.0, "off_s": 3.0, "on_share_s": 3.0, "off_share_s": 2.0}


def test_goals(bench: ModuleType) -> None:
    def activated(mine_s: float, real_s: float) -> dict[str, object]:
        return {
            "ringfence": {"on_share_s": mine_s, "off_share_s": mine_s},
            REAL: {"on_share_s": real_s, "off_share_s": real_s},
        }

    made = {"made": 80, "lost": 0, "seqno": 80, "clean": True, "seconds": 1.3}
    found = {
        "activate": {"1000": activated(0.19, 0.1), "5000": activated(1.1, 1), "20000": activated(4.0, 11.9)},
        "create": {"ringfence, 2 hosts": made, BARE: {**made, "lost": 3, "seconds": 1.0}},
        "request": {"ringfence": {"vg, 1": {"p50": 199.0}, "lv, 1": {"p50": 201.0}}},
    }
    told = {one["goal"]: one["met"] for one in bench.goals(found)}
    assert told == {
        "ringfence: -aey of 1000: share : lvmlockd's": True,
        "ringfence: -aey of 5000: share : lvmlockd's": False,
        "ringfence: -aey of 20000: share : lvmlockd's": True,
        "ringfence: -an of 20000: share : lvmlockd's": False,
        "ringfence: share a lock, 20000 LVs : 5000 LVs": True,
        "80 lvcreate: LVs": True,
        "80 lvcreate: seqno": True,
        "80 lvcreate: vgck is clean": True,
        "80 lvcreate: time : grant everything's": False,
        "80 lvcreate: grant everything loses LVs": True,
        "ringfence: request (vg, 1), p50 us": True,
        "ringfence: request (lv, 1), p50 us": False,
    }
