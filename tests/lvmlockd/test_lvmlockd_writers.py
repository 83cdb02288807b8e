"""Stock lvcreates from several hosts at once, with ringfence's locks and with none."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from grant_all import granting
from stock_rig import BareHost, Written, loop, many_writers, start_vg


@pytest.fixture
def bare() -> Iterator[list[BareHost]]:
    """Two hosts that share a VG, and a lock daemon that grants everything."""
    path = Path(tempfile.mkdtemp(prefix="rflv", dir="/tmp"))
    try:
        with loop(path) as disk, contextlib.ExitStack() as daemons:
            hosts = [BareHost(path / name, disk) for name in ("a", "b")]
            for host in hosts:
                daemons.enter_context(granting(host.run))
            start_vg(hosts, disk, "vg0")
            yield hosts
    finally:
        shutil.rmtree(path)


def test_one_writer_needs_no_locks(bare: list[BareHost]) -> None:
    """So what goes wrong below does for want of them."""
    assert many_writers(bare, "vg0", writers=1, each=3) == Written(3, 3, 3)


def test_where_everything_is_granted_volumes_are_lost(bare: list[BareHost]) -> None:
    written = many_writers(bare, "vg0", writers=4, each=20)
    assert written != Written(80, 80, 80)
    assert written.volumes < written.succeeded, written
