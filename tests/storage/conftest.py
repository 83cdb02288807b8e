"""A directory, and the image in it as a loop device; each test file says what is in its image."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def loop(image: str) -> Iterator[str]:
    done = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=True)
    yield done.stdout.strip()
    subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)
