"""Tab, as bash asks: the packaged script, the command, and the names that the daemon has."""

import os
import shutil
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
        case calls.Status():
            members = [{"name": "an-a01n01"}, {"name": "an-a01n02"}]
            return {"members": members, "lockspaces": [{"name": "games"}, {"name": "lvm_vg0"}]}
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
        (["vgextend", "v"], ["vg0", "vg1"]),
        (["vgreduce", "vg0", "/dev/s"], ["/dev/sda", "/dev/sdb"]),
        (["lvcreate", "-L8M", "-n", "x", "vg0", "/dev/s"], ["/dev/sda", "/dev/sdb"]),
        (["lvs", "-o", "+lv_name,seg_si"], ["+lv_name,seg_size", "+lv_name,seg_size_pe"]),
        (["handover", "vg0/vm1", "--to", "a"], ["an-a01n01", "an-a01n02"]),
        (["fence", "a"], ["agents", "arm", "an-a01n01", "an-a01n02"]),
        (["fence", "history", "an"], ["an-a01n01", "an-a01n02"]),
        (["lock", "g"], ["games"]),
        (["locks", "lvm"], ["lvm_vg0"]),
        (["lockspace", "leave", "g"], ["games"]),
        (["why", "an"], ["an-a01n01", "an-a01n02"]),
        (["why", "vg0/w"], ["vg0/web"]),
        (["slots", "show", "v"], ["vg0", "vg1"]),
    ],
    ids=" ".join,
)
def test_names_are_the_daemons(daemon: CannedDaemon, words: list[str], offered: list[str]) -> None:
    daemon.answer = answer
    assert tab(*words) == offered


def test_a_lab_s_hosts_are_those_of_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lab.json").write_text('{"nodes": ["an-a01n01", "b"]}')
    assert tab("lab", "freeze", "--dir", str(tmp_path), "a") == ["an-a01n01"]
    monkeypatch.setenv("RINGFENCE_LAB", str(tmp_path))
    assert tab("lab", "freeze", "b") == ["b"]
    monkeypatch.setenv("RINGFENCE_LAB", "/nonexistent")
    assert tab("lab", "freeze", "b") == []


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("confi", ["config\tCheck, show or apply the configuration."]),
        ("lvremove vg0/v", ["vg0/vm1", "vg0/vm2"]),
        ("vgcfgrestore -f /etc/os-rel", ["/etc/os-release"]),
    ],
)
def test_fish(daemon: CannedDaemon, tmp_path: Path, line: str, offered: list[str]) -> None:
    daemon.answer = answer
    ask = f"source {SCRIPT.with_suffix('.fish')}; complete -C 'ringfence {line}'"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HOME": str(tmp_path)}
    shell = ["fish", "-c", ask]
    done = subprocess.run(shell, capture_output=True, text=True, env=env, timeout=60, check=True)
    assert [one.removesuffix("\t") for one in done.stdout.splitlines()] == offered


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
