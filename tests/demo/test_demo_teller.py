"""How the demo is told: plain lines in a pipe, colours on a terminal, nothing beside JSON."""

import io

import pytest

from ringfence.lab.demo_report import ActReport, DemoReport
from ringfence.lab.teller import RichTeller, Teller

HONEST = ActReport("honest", total_ms=2857, acknowledged_writes=588, ok=True)
REPORT = DemoReport([HONEST, ActReport("naive")])


def story(teller: Teller) -> None:
    teller.act("Act 1")
    teller.say("a lab starts")
    teller.command("an-a01n02", "ringfence lvchange -aey", ["LV vg0/vm1 is held EX by [an-a01n01]"], 5)
    teller.happened("fence-lied", "the fence lied")
    teller.table(REPORT)
    teller.verdict(False, "nothing was lost")


def test_a_pipe_gets_plain_lines() -> None:
    out = io.StringIO()
    story(Teller(out))
    told = out.getvalue()
    assert told.isprintable() or "\033" not in told
    for words in ("== Act 1", "an-a01n02$ ringfence lvchange", "(exit 5)", "fence-lied", "NOT AS PROMISED"):
        assert words in told
    assert [line.split()[0] for line in told.splitlines() if "588" in line] == ["honest"]


def test_a_terminal_gets_the_same_words(capsys: pytest.CaptureFixture[str]) -> None:
    story(RichTeller())
    told = capsys.readouterr().out
    for words in ("Act 1", "held EX by [an-a01n01]", "(exit 5)", "the fence lied", "588", "NOT AS PROMISED"):
        assert words in told, "brackets are no markup"


def test_json_stands_alone() -> None:
    story(Teller(None))
