"""Looks that hang are not waited for, nor started again; tools are ended at their limit."""

import sys
import threading
import time
from pathlib import Path

import pytest

from ringfence.core.errors import Refused, Unavailable
from ringfence.host.probes import Probes, tool


def test_looks_and_their_troubles() -> None:
    def refused() -> str:
        raise Refused("no", next="later")

    def missing() -> str:
        return Path("/nonexistent/file").read_text()

    found = Probes().all({"one": lambda: "1", "refused": refused, "missing": missing}, 5)
    assert {name: (one.value, one.trouble) for name, one in found.items()} == {
        "one": ("1", ""),
        "refused": (None, "no; later"),
        "missing": (None, "No such file or directory"),
    }


def test_a_look_that_hangs_is_not_waited_for_nor_started_again() -> None:
    probes, go_on, started = Probes(), threading.Event(), []

    def hangs() -> int:
        started.append(1)
        go_on.wait()
        return 7

    began = time.monotonic()
    found = probes.all({"hangs": hangs, "quick": lambda: 1}, 1)
    assert time.monotonic() - began < 30
    assert (found["hangs"].trouble, found["quick"].value) == ("no answer within 1 s", 1)
    assert probes.all({"hangs": hangs}, 60)["hangs"].trouble == "still no answer to an earlier look"
    go_on.set()
    give_up = time.monotonic() + 60
    while (again := probes.all({"hangs": hangs}, 60)["hangs"]).value is None:
        assert time.monotonic() < give_up, again
    assert len(started) == 2


def test_what_a_tool_prints() -> None:
    assert tool([sys.executable, "-c", "print('words')"], 30) == "words\n"
    assert tool([sys.executable, "-c", "print('half'); exit(3)"], 30) == "half\n"


def test_a_tool_that_fails_is_quoted() -> None:
    with pytest.raises(Unavailable, match=r"failed: Cannot initialize CMAP service"):
        tool(["/bin/sh", "-c", "echo Cannot initialize CMAP service >&2; exit 1"], 30)
    with pytest.raises(Unavailable, match="is not installed"):
        tool(["ringfence-no-such-tool"], 1)


def test_a_tool_that_hangs_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"did not answer within 0.3 s"):
        tool([sys.executable, "-c", "import time; time.sleep(60)"], 0.3)
    assert time.monotonic() - began < 50
