"""Orders stay under the authority of the life that gave them, however late their thread gets to them."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.core.errors import NoAuthority
from ringfence.daemon.assemble import LifeStorage
from ringfence.daemon.paths import DaemonPages
from ringfence.engine.orders import Write, WriteBlocks
from ringfence.host.pages import LOST_NS, UNCHECKED_NS, Pages

FOREVER_NS = UNCHECKED_NS - 1


@pytest.fixture
def place() -> Iterator[Path]:
    where = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
    (where / "img").write_bytes(bytes(1 << 20))
    yield where
    shutil.rmtree(where)


def test_a_lost_lifes_write_does_not_go_on_under_the_next_ones_authority(place: Path) -> None:
    pages = DaemonPages(Pages(place / "authority"))
    storage = LifeStorage((str(place / "img"),), pages, lambda line: None)
    order = WriteBlocks((Write(str(place / "img"), 0, b"x" * 4096),), guard="vg0")
    pages.set(1, "vg/vg0", FOREVER_NS)
    first = storage.bound()
    pages.set(1, "vg/vg0", LOST_NS)
    pages.set(2, "vg/vg0", FOREVER_NS)
    with pytest.raises(NoAuthority, match="authority for VG vg0 is lost"):
        first(order)
    assert (place / "img").read_bytes()[:4096] == bytes(4096)
    storage.bound()(order)  # the next life's own order
    assert (place / "img").read_bytes()[:4096] == b"x" * 4096


def test_without_authority_nothing_is_written(place: Path) -> None:
    pages = DaemonPages(Pages(place / "authority"))
    storage = LifeStorage((str(place / "img"),), pages, lambda line: None)
    order = WriteBlocks((Write(str(place / "img"), 0, b"x" * 4096),))
    with pytest.raises(NoAuthority):
        storage.bound()(order)  # before the engine has set anything
    pages.set(1, "grant", 1)
    with pytest.raises(NoAuthority, match="is lapsed") as lapsed:
        storage.bound()(order)
    assert lapsed.value.retry
    assert (place / "img").read_bytes()[:4096] == bytes(4096)
