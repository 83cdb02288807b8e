"""When the block service feeds the watchdog, and when it lets the host be reset."""

import subprocess
import sys
from pathlib import Path

import pytest
from fake_watchdog import FakeDevice

from ringfence.block.self_fence import OpenPath, SelfFence, misfit, timeout_s
from ringfence.config import Loaded
from ringfence.core.cluster import ClusterConfig, Timing
from ringfence.daemon.checkup.watchdog import watchdog_facts
from ringfence.engine.effects import LAPSED
from ringfence.host.pages import Pages, page_path
from ringfence.host.watchdog import Watchdog

TIMING = Timing()
WRITE_S, HOLD_S = TIMING.write_ms / 1000, TIMING.hold_ms / 1000
TIMEOUT_S = timeout_s(TIMING)


class Host:
    """A host's clock, pages, open volumes and watchdog."""

    def __init__(self, directory: Path) -> None:
        self.device = FakeDevice()
        self.pages = Pages(directory)
        self._page = str(page_path(directory, 1, "vg/vg0"))
        self.open: list[OpenPath] = []
        self.said: list[str] = []
        self.now_s = 1000.0
        dog = Watchdog(self.device, "dog", TIMEOUT_S)
        self.fence = SelfFence(dog, lambda: self.open, self.said.append, lambda: round(self.now_s * 1e9))

    def opens(self) -> None:
        self.open = [OpenPath("vg0/vm1", (self._page,), TIMING.hold_ms)]

    def authority(self, left_s: float) -> None:
        """Renewed to so long from now; 0: lost."""
        self.pages.set(1, "vg/vg0", round((self.now_s + left_s) * 1e9) if left_s else 0)

    def passes(self, time_s: float, *, renewed: bool = False) -> None:
        for _ in range(round(time_s)):
            self.now_s += 1
            self.device.now_s += 1
            if renewed:
                self.authority(WRITE_S)
            self.fence.look()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_host_with_nothing_open_is_fed_whatever_becomes_of_its_daemon(host: Host) -> None:
    host.passes(1000)
    assert not host.device.has_reset


def test_a_host_with_authority_is_fed(host: Host) -> None:
    host.opens()
    host.passes(1000, renewed=True)
    assert not host.device.has_reset
    assert host.said == []


def test_a_daemon_that_comes_back_in_its_grace_resets_nobody(host: Host) -> None:
    host.opens()
    host.authority(WRITE_S)
    host.passes(TIMING.grace_ms / 1000)
    host.passes(10, renewed=True)
    assert not host.device.has_reset
    assert host.said == []


def test_a_host_that_never_gets_its_authority_back_is_reset_when_the_formula_says(host: Host) -> None:
    host.opens()
    host.authority(WRITE_S)
    host.passes(WRITE_S + HOLD_S - 1)
    assert not host.device.has_reset
    host.passes(TIMEOUT_S + 2)
    assert host.device.has_reset
    (line,) = host.said
    assert line.startswith(f"THE WATCHDOG IS NOT FED, and resets this host within {TIMEOUT_S} s: vg0/vm1")


def test_a_volume_that_cannot_be_closed_after_authority_was_lost_resets_the_host(host: Host) -> None:
    host.opens()
    host.authority(0)
    host.passes(HOLD_S - 1)
    assert not host.device.has_reset
    host.passes(TIMEOUT_S + 2)
    assert host.device.has_reset


def test_authority_taken_away_for_a_lie_elsewhere_leaves_as_much_time_as_any_other(host: Host) -> None:
    host.opens()
    host.passes(10, renewed=True)
    host.pages.set(1, "vg/vg0", LAPSED)
    host.passes(HOLD_S - 1)
    assert not host.said
    host.passes(10, renewed=True)
    assert not host.device.has_reset


def test_a_volume_that_was_closed_in_time_does_not(host: Host) -> None:
    host.opens()
    host.authority(0)
    host.passes(HOLD_S - 1)
    host.open = []
    host.passes(1000)
    assert not host.device.has_reset


def test_authority_that_comes_back_late_but_before_the_reset_is_said(host: Host) -> None:
    host.opens()
    host.authority(WRITE_S)
    host.passes(WRITE_S + HOLD_S + 1)
    host.passes(5, renewed=True)
    assert not host.device.has_reset
    assert host.said[-1] == "the watchdog is fed again"


def test_a_host_that_stops_altogether_is_reset_before_anybody_may_purge_it(host: Host) -> None:
    host.opens()
    host.authority(WRITE_S)
    host.passes(1)
    host.device.now_s += TIMING.bound_ms / 1000 - 0.5
    assert host.device.has_reset


def test_the_service_stops_it_only_with_everything_closed(host: Host, tmp_path: Path) -> None:
    host.opens()
    host.authority(WRITE_S)
    host.fence.end()
    assert host.device.ticks
    calm = Host(tmp_path / "calm")
    calm.fence.end()
    assert not calm.device.ticks


@pytest.mark.parametrize(
    ("timing", "timeout_ms", "why"),
    [
        (Timing(), 0, ""),
        (Timing(), 3000, ""),
        (Timing(), 5000, "timeout_ms = 5000 is longer than write_ms = 4500"),
        (Timing(write_ms=900), 0, "a watchdog counts whole seconds"),
        (Timing(grace_ms=70_000), 0, "hold_ms = 60000 is shorter than grace_ms = 70000"),
    ],
)
def test_the_times_must_fit(timing: Timing, timeout_ms: int, why: str) -> None:
    assert why in misfit(timing, timeout_ms)
    assert bool(misfit(timing, timeout_ms)) is bool(why)
    assert why or 1000 * timeout_s(timing, timeout_ms) <= timing.write_ms


def test_what_a_checkup_says_of_it(tmp_path: Path) -> None:
    here = Loaded(ClusterConfig("c"), watchdog=Path("/dev/null"))
    assert watchdog_facts().configured == ""
    assert watchdog_facts(here).unused == "nobody has it open; does ringfence-block run?"
    absent = Loaded(ClusterConfig("c"), watchdog=tmp_path / "none")
    assert watchdog_facts(absent).unused == f"there is no {tmp_path}/none"
    misfit = Loaded(ClusterConfig("c"), watchdog=Path("/dev/null"), watchdog_ms=9000)
    assert "longer than write_ms" in watchdog_facts(misfit).unused


def test_a_service_whose_watchdog_is_not_there_says_so_and_serves(tmp_path: Path) -> None:
    etc = tmp_path / "etc/ringfence"
    etc.mkdir(parents=True)
    (etc / "ringfence.toml").write_text(
        '[cluster]\nname = "c"\n[node.n1]\nid = 1\nfence = "manual"\n'
        '[watchdog]\ndevice = "/dev/no-watchdog"\n'
    )
    command = [sys.executable, "-m", "ringfence.block", "--root", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
        try:
            assert service.stderr is not None
            line = service.stderr.readline()
            while not (tmp_path / "run/ringfence/block").exists():
                assert service.poll() is None
        finally:
            service.terminate()
    said = "ringfence block: the watchdog is not used: watchdog /dev/no-watchdog: No such file"
    assert line.startswith(said)
