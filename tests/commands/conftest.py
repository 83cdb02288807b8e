import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_world import World
from stock_lvm import Stock


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def stock(directory: Path) -> Iterator[Stock]:
    stock = Stock(directory)
    yield stock
    stock.close()


@pytest.fixture
def world(directory: Path) -> World:
    """Two disks of 64 MiB."""
    return World(directory, (64 << 20, 64 << 20))
