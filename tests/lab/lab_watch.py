"""What the lab's tests look at and wait for."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence.cli import main
from ringfence.host.processes import process
from ringfence.lab import trees


def processes_of(directory: Path) -> list[int]:
    """Whoever has the directory in its command line, but for ourselves."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(directory) in words:
                found.append(int(name))
    return found


@contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A directory of its own, of which nothing and nobody is left afterwards."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    try:
        yield path
    finally:
        for pid in processes_of(path):  # a test that failed leaves nothing either
            found = process(pid)
            if found is not None:
                trees.send(found, signal.SIGKILL)
        shutil.rmtree(path, ignore_errors=True)


def typed(capsys: pytest.CaptureFixture[str], *words: str) -> subprocess.CompletedProcess[str]:
    """A `ringfence` command, in this process: to start another takes longer than most commands do."""
    capsys.readouterr()
    code = main(words)
    said = capsys.readouterr()
    return subprocess.CompletedProcess(words, code, said.out, said.err)


def eventually(true: Callable[[], bool], limit_s: float = 60) -> None:
    give_up = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)
