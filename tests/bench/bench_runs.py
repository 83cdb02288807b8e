"""A bench that is run for a test."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PLACES = ("/tmp", "/dev/shm")


def measures(bench: Path, *words: str) -> dict[str, Any]:
    """What it measured.  Nothing of it is left: no directory that bears its pid, no loop device in one."""
    command = [sys.executable, str(bench), *words, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        out, err = running.communicate()
    assert running.returncode == 0, err
    assert left(running.pid) == []
    return dict(json.loads(out))


def left(pid: int) -> list[str]:
    """Others may make directories meanwhile, of similar names."""
    listed = ["losetup", "--list", "--noheadings", "--output", "BACK-FILE"]
    files = subprocess.run(listed, capture_output=True, text=True).stdout.split("\n")
    places = [str(path) for place in PLACES for path in Path(place).glob(f"rfb*{pid}-*")]
    return places + [file for file in files if f"{pid}-" in file and "/rfb" in file]
