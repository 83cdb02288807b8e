"""A daemon started twice under one root."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ringfence.config import Paths
from ringfence.core.errors import Refused, Unavailable
from ringfence.daemon.lock import DaemonLock


def test_the_second_is_refused_by_name_until_the_first_ends() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rf") as where:
        path = Path(where) / "daemon.pid"
        first = DaemonLock(path)
        with pytest.raises(Refused, match=f"already running under {where}, pid {os.getpid()}"):
            DaemonLock(path)
        first.release()
        DaemonLock(path).release()


ENDS = """
import sys, threading, types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ringfence.daemon import assemble

def drive(coroutine):
    coroutine.close()
    ThreadPoolExecutor(1).submit(sys.stdin.readline)  # a write that hangs
    return 0

assemble.loop.run = drive
assemble.load = lambda paths: types.SimpleNamespace(cluster=None)
assemble._node_named = assemble.machine_id = assemble.boot_id = lambda *of: ""
print(assemble.run(Path(sys.argv[1]), "n1", None), flush=True)
"""


def test_a_daemon_that_has_ended_is_not_succeeded_before_its_last_write_is_over() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="rf") as where:
        path = Paths(Path(where)).lock
        command = [sys.executable, "-c", ENDS, where]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "0\n"
            with pytest.raises(Refused, match=f"pid {process.pid}"):
                DaemonLock(path)
            process.communicate("\n", timeout=60)
        assert process.returncode == 0
        DaemonLock(path).release()


def test_a_directory_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot make .*/nowhere/daemon\.pid: No such file"):
        DaemonLock(tmp_path / "nowhere/daemon.pid")
