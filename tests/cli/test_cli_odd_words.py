"""Whatever is typed, an error is one line on stderr, and nothing in it moves the cursor of who reads it."""

from collections.abc import Callable

import pytest
from cli_daemon import CannedDaemon
from cli_run import Run

from ringfence.cli.verbs import ROOMS
from ringfence.core.errors import NotFound
from ringfence.wire.client import Call

ODD = ("a\nb", "vg0/l\nv", "\x1b[2Jx", "two\r\nlines", "\u2028")
TREE = (
    "why", "locks", "events", "fence status", "fence history", "fence confirm", "fence trust", "fence off",
    "fence test", "node re-enrol", "lockspace leave", "lockspace purge", "slots show", "slots add",
    "config show", "lv-xml", "nosuch",
)  # fmt: skip


@pytest.mark.parametrize("name", [*ROOMS, *TREE])
def test_an_error_is_one_line(daemon: CannedDaemon, run: Run, name: str) -> None:
    for odd in ODD:
        daemon.answer = _refuses(odd)
        for words in ([odd], [odd, odd], ["--" + odd], ["-" + odd], ["--json", odd], ["--name", odd, odd]):
            ran = run(*name.split(), *words)
            *lines, end = ran.err.split("\n")
            assert end == "", words
            for line in lines:  # what an error would be broken into does not begin so
                assert line.startswith("  "), (words, lines)
                assert line.isprintable(), (words, lines)
            if "--json" in words and ran.code:
                assert "error" in ran.json


@pytest.mark.parametrize("words", ["lvcreate -L8M vg0 -n", "lvs", "vgremove", "why"])
def test_a_word_that_is_no_text_is_told_alone(daemon: CannedDaemon, run: Run, words: str) -> None:
    ran = run(*words.split(), "x\udcff")
    assert ran.code != 0
    assert ran.err.split(": ")[-1].strip() == "'x\\udcff' is no text; give text that UTF-8 can write"


def _refuses(odd: str) -> Callable[[Call], None]:
    def answer(call: Call) -> None:
        raise NotFound(f"no {odd} in {call}", next=f"look for {odd}")

    return answer
