"""A process that ends with its parent (`host/parent`); who uses it shows it with real processes, too."""

import subprocess
import sys


def _said(parent: str) -> str:
    """What a process answers that asks to end with that parent."""
    code = f"import os; from ringfence.host.parent import end_with; print(end_with({parent}))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_a_parent_that_ended_before_is_noticed() -> None:
    assert _said("os.getppid()") == "True\n"
    assert _said("os.getppid() + 1") == "False\n"


def test_one_that_is_killed_takes_its_child_along() -> None:
    child = (
        "import os, time; from ringfence.host.parent import end_with\n"
        "end_with(os.getppid()) and os.write(1, b'x'); time.sleep(60)"
    )
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        assert one.stdout.read(1) == b"x"
        one.kill()
        assert one.stdout.read() == b""  # its end is closed: by whoever had it, the child last
