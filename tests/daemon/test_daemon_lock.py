"""A daemon started twice under one root."""

import os
import tempfile
from pathlib import Path

import pytest

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


def test_a_directory_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot make .*/nowhere/daemon\.pid: No such file"):
        DaemonLock(tmp_path / "nowhere/daemon.pid")
