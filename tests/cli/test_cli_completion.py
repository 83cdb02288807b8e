"""Tab, as bash asks: the packaged script, the command, and the names that the daemon has."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from cli_daemon import CannedDaemon

from ringfence.cli.verbs import completion
from ringfence.wire import client as calls

SCRIPT = Path(__file__).parents[2] / "packaging/ringfence.bash"
ASK = f"""
. {SCRIPT}
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_ringfence_completion ringfence
echo "${{COMPREPLY[@]}}"
"""


def tab(*words: str) -> list[str]:
    """What is offered for the last word."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", ASK, "-", "ringfence", *words],
        capture_output=True, text=True, env={**os.environ, "PATH": path}, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def answer(call: calls.Call) -> Any:
    match call:
        case calls.Vgs():
            return {"rows": [{"vg_name": "vg0"}, {"vg_name": "vg1"}, {"vg_name": "other"}]}
        case calls.Lvs(vg, fields=("lv_name",)):
            return {"columns": {"lv_name": {"vg0": ["vm1", "vm2", "web"]}.get(vg, [])}}
        case calls.Pvs():
            return {"rows": [{"pv_name": "/dev/sda"}, {"pv_name": "/dev/sdb"}, {"pv_name": "/srv/disk"}]}
    raise AssertionError(call)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["vgchange", "-an", "v"], ["vg0", "vg1"]),
        (["lvchange", "-aey", "vg0"], ["vg0", "vg0/"]),
        (["lvremove", "vg0/v"], ["vg0/vm1", "vg0/vm2"]),
        (["lvs", "vg1/"], []),
        (["pvresize", "/dev/s"], ["/dev/sda", "/dev/sdb"]),
        (["lvchange", "-a", "e"], ["ey"]),
        (["lvremove", "--for"], ["--force", "--foreground"]),
        (["vgrem"], ["vgremove"]),
    ],
    ids=" ".join,
)
def test_names_are_the_daemons(daemon: CannedDaemon, words: list[str], offered: list[str]) -> None:
    daemon.answer = answer
    assert tab(*words) == offered


def test_without_a_daemon_nothing_is_offered_and_nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGFENCE_SOCKET", "/nonexistent/socket")
    assert tab("lvremove", "vg0/v") == []


def test_a_daemon_that_stands_still_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "LIMIT_S", 0.1)
    names = completion.Names("lv")
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rf") as where:
        path = f"{where}/socket"
        monkeypatch.setenv("RINGFENCE_SOCKET", path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as frozen:
            frozen.bind(path)
            frozen.listen()
            began = time.monotonic()
            assert names.shell_complete(None, None, "vg0/") == []  # type: ignore[arg-type]
            assert time.monotonic() - began < 30
