"""Operators' words on a cluster of real processes: one lab, one story."""

from collections.abc import Iterator
from typing import Any

import pytest
from cluster_lab import ONE, THREE, TWO, done, eventually, make_volume, refused, ringfence, running, status

from ringfence.client import connect
from ringfence.lab.cluster import Lab
from ringfence.wire import client as calls


@pytest.fixture
def three() -> Iterator[Lab]:
    with running(3) as lab:
        yield lab


def fence_status(lab: Lab, node: str) -> dict[str, Any]:
    with connect(lab.socket(node)) as daemon:
        found: dict[str, Any] = daemon.call(calls.FenceStatus())
    return found


def test_maintenance_and_then_an_order(three: Lab) -> None:
    make_volume(three, THREE)
    done(three, TWO, "fence", "disarm", "--for", "1h", "--why", "new PDU")
    assert "disarmed fencing" in refused(three, ONE, "fence", THREE, "--yes")
    assert "FENCING IS DISARMED" in ringfence(three, ONE, "status").stdout
    done(three, ONE, "fence", "arm")
    done(three, TWO, "fence", "disarm", "--for", "1s", "--why", "new PDU")
    eventually(lambda: fence_status(three, ONE)["disarmed"] is None)
    before = _life(three)
    told = done(three, ONE, "fence", THREE, "--reboot", "--yes", "--who", "ann", "--why", "it smokes")
    assert "said \"off\", and a second look agrees" in told
    done(three, TWO, "lvchange", "-aey", "vg0/vm1", "--wait", "60")
    eventually(lambda: _life(three) not in ("-", before))
    history = done(three, TWO, "fence", "history", THREE)
    assert "ann (uid 0 (root)" in history
    assert "power-on-done" in history


def _life(lab: Lab) -> str:
    return next(str(one["life"]) for one in status(lab, ONE)["members"] if one["name"] == THREE)
