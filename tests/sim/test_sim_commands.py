"""`ringfence sim`: what it prints, how it ends."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from ringfence.cli import main
from ringfence.host.processes import GONE, process
from ringfence.sim import campaign
from ringfence.sim.host import Host
from ringfence.sim.scenario import Recipe

SHORT = ("--steps", "400")


def test_parameters_first_and_no_replay_line_if_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "3", *SHORT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("seed 3: ")
    assert lines[-1] == "OK"


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["2", "--faults", "swarm", "--mutant", "no-freeze"], 10, "SAFETY: "),
        (["1", "--mutant", "grants-untold", "--strikes", "2"], 11, "LIVENESS: 11: "),
    ],
)
def test_a_failure_has_its_exit_code_and_a_line_that_replays_it(
    words: list[str], code: int, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", *words]) == code
    *_, outcome, replay = capsys.readouterr().out.splitlines()
    assert outcome.startswith(what)
    again = shlex.split(replay.removeprefix("replay: "))
    assert again[:2] == ["ringfence", "sim"]
    assert main(again[1:]) == code
    assert capsys.readouterr().out.splitlines()[-2:] == [outcome, replay]


def test_a_crash_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def boom(self: Host, *arguments: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(Host, "_carry_out", boom)
    assert main(["sim", "1"]) == 12
    assert "CRASH: RuntimeError('boom') in boom" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["one"],
        ["1", "--nodes", "1"],
        ["1", "--mutant", "nobody"],
        ["1", "--replay", __file__],
        ["--replay", __file__],
        ["--replay", "/nowhere"],
    ],
)
def test_a_bad_command_line_differs_from_all_of_them(words: list[str]) -> None:
    assert main(["sim", *words]) == 3


def test_one_seed_is_one_story_four_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "12", "--steps", "1500", "--twice"]) == 0
    digests = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:5]]
    assert len(set(digests)) == 1


def test_two_stories_have_their_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, rates = Host.__init__, iter(range(1, 100))

    def differs(self: Host, *arguments: object, **more: object) -> None:
        real(self, *arguments, **more)  # type: ignore[arg-type]
        self._rate = 1 + next(rates) / 1e3

    monkeypatch.setattr(Host, "__init__", differs)
    assert main(["sim", "1", *SHORT, "--twice"]) == 13
    assert "TWO STORIES; replay: ringfence sim 1 --steps 400 --twice" in capsys.readouterr().out


def test_values_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "1", "--faults", "swarm", "--mutant", "no-freeze", "--json"]) == 10
    told = json.loads(capsys.readouterr().out)
    assert told["failure"].startswith("safety ")
    assert told["replay"] == "ringfence sim 1 --faults swarm --mutant no-freeze"
    assert sum(told["faults"].values()) == len(told["plan"]) > 0


def test_what_was_shrunk_is_replayed_from_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "no-freeze.txt")
    words = ["2", "--faults", "swarm", "--mutant", "no-freeze", "--shrink", "--out", file]
    assert main(["sim", *words]) == 10
    assert main(["sim", "--replay", file, "--mutant", "no-freeze"]) == 10
    assert main(["sim", "--replay", file]) == 0
    assert "with --mutant no-freeze; this is the whole engine" in capsys.readouterr().out


def test_many_seeds_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "1", "--seeds", "4", "--strikes", "10", "--processes", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seeds"], told["faults"], told["fewest_faults"]) == (4, 40, 10)
    assert told["simulated_h"] > 0


def test_the_first_seed_that_fails_ends_a_search_and_is_shrunk(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--seeds", "100", "--faults", "swarm", "--mutant", "join-at-once", "--processes", "1"]
    assert main(["sim", "1", *words, "--limit", "5"]) == 10
    said = capsys.readouterr().out
    assert "replay: ringfence sim 1 --faults swarm --mutant join-at-once" in said
    assert "shrunk to " in said


@pytest.mark.parametrize(
    "words",
    [["ringfence", "sim", "1", "--minutes", "5", "--processes", "2"], ["ringfence.sim.hunt", "--jobs", "2"]],
)
def test_no_process_outlives_one_that_was_killed(words: list[str]) -> None:
    one = subprocess.Popen([sys.executable, "-m", *words], stdout=subprocess.DEVNULL)
    try:
        _within(30, lambda: len(_children(one.pid)) == 2)
        children = _children(one.pid)
    finally:
        one.kill()
        one.wait()
    _within(10, lambda: not any(_runs(pid) for pid in children))


def _within(seconds: float, holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    found = process(pid)
    return found is not None and found.state not in GONE


def test_time_ends_a_search() -> None:
    totals, failed = campaign.run_all((Recipe(seed=seed) for seed in count(1)), 1, minutes=1e-6)
    assert (totals.seeds, failed) == (0, None)
