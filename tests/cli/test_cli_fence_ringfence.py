"""fence_ringfence as others call it: its description, its words on stdin and as arguments, its exit codes."""

import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from ringfence.cli import fence_ringfence

SCHEMA = "/usr/share/cluster/relaxng/metadata.rng"
"""Of Debian's fence-agents."""


def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringfence.cli.fence_ringfence", *arguments],
        input=stdin, text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def test_its_metadata_is_what_the_agents_schema_wants() -> None:
    told = call(stdin="action=metadata\n")
    assert (told.returncode, told.stdout) == (0, call("-o", "metadata").stdout)
    checked = subprocess.run(
        ["xmllint", "--noout", "--relaxng", SCHEMA, "-"],
        input=told.stdout, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        ((), ""),  # no action: never a default one
        ((), "option=off\nplug=n2\n"),
        ((), "action=on\nplug=n2\nsocket=/nonexistent\n"),
        ((), "action=off\nplug=n2\nsocket=/nonexistent\n"),
        ((), "action=status\nplug=n2\nsocket=/nonexistent\n"),
        ((), "action=status\nplug=n2\ntimeout=soon\n"),
        (("-o", "status"), ""),
        (("-o", "status", "-n"), ""),
        (("-o", "status", "--plug", "n2", "--bogus"), ""),
        (("-o", "status", "-n", "n2", "--socket", "/nonexistent"), ""),
    ],
)
def test_whatever_is_wrong_is_one_line_and_never_reads_as_off(arguments: tuple[str, ...], stdin: str) -> None:
    done = call(*arguments, stdin=stdin)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr


@pytest.mark.parametrize(("current", "code"), [(True, 2), (False, 1)])
def test_who_may_not_act_does_not_know_who_is_off(
    current: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A suspended node's state is of yesterday; the other may have been switched on since."""
    proof = {"kind": "host-off"}
    found = {
        "node": "n1", "current": current, "disarmed": None, "nodes": [{"name": "n2", "state": "absent"}],
        "fenced": [{"action": "off", "evidence": [proof]}],
    }  # fmt: skip
    daemon = SimpleNamespace(call=lambda request: found)
    monkeypatch.setattr(fence_ringfence, "connect", lambda *words, **more: nullcontext(daemon))
    monkeypatch.setattr(sys, "argv", ["fence_ringfence", "-o", "status", "-n", "n2"])
    with pytest.raises(SystemExit) as ended:
        fence_ringfence.main()
    assert ended.value.code == code
    said = capsys.readouterr().err
    assert ("n1 does not know" in said) is not current
