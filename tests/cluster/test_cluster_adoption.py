"""A daemon's death is not its host's: `kill -9`, while a machine writes through its volume."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cluster_lab import ONE, TWO, done, eventually, kinds, pid_of, refused, running, status

from ringfence.lab import stamps
from ringfence.lab.cluster import TIMING, Lab
from ringfence.lab.nbd_client import NbdClient
from ringfence.lab.parts import Part
from ringfence.lab.stage import VOLUME, Stage, Vm
from ringfence.lab.teller import Teller

TAKE = ("lvchange", "-aey", VOLUME)


@pytest.fixture(params=[2, 3])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with running(request.param, msgspec.structs.replace(TIMING, grace_ms=30_000)) as lab:
        yield lab


@pytest.fixture
def stage(lab: Lab, tmp_path: Path) -> Iterator[Stage]:
    """The volume is active on the first host."""
    stage = Stage(lab, Teller(None), tmp_path)
    stage.make_volume(ONE, "8M")
    yield stage
    stage.close()


def kill(stage: Stage) -> None:
    stage.close()
    stage.lab.kill(ONE, Part.DAEMON)


def start(stage: Stage) -> None:
    stage.lab.start(ONE, Part.DAEMON)
    eventually(lambda: status(stage.lab, ONE) != {})


def adoptions(lab: Lab, node: str) -> int:
    return kinds(lab, node).count("adopted")


def failures(vm: Vm) -> list[stamps.Failed]:
    return [one for one in stamps.read_log(vm.log) if isinstance(one, stamps.Failed)]


def test_a_killed_daemon_comes_back_and_its_machine_notices_nothing(lab: Lab, stage: Stage) -> None:
    vm = stage.start_vm(ONE, "vm")
    stage.let_write(vm, 50)
    done(lab, ONE, "lvcreate", "-an", "-L", "4m", "-n", "spare", "vg0")
    done(lab, ONE, "vgchange", "-aey", "vg0")  # nobody uses that one: it waits in the porch
    token, worker = stage.token(ONE), pid_of(lab, ONE, "ringfence.block.worker")
    before = len(kinds(lab, TWO))
    assert "an-a01n01" in refused(lab, TWO, *TAKE)
    kill(stage)
    eventually(lambda: status(lab, TWO)["victims"] != [])
    refused(lab, TWO, *TAKE)
    start(stage)
    eventually(lambda: adoptions(lab, TWO) == 1)
    stage.let_write(vm, 200)
    kill(stage)
    start(stage)
    kill(stage)  # wherever in the middle of its adoption it is
    start(stage)
    eventually(lambda: status(lab, ONE).get("ready"))
    for _ in range(8):  # longer than anything that was held, or valid, before
        stage.let_write(vm, 200)
    assert adoptions(lab, TWO) >= 2
    assert "an-a01n01" in refused(lab, TWO, *TAKE)
    assert pid_of(lab, ONE, "ringfence.block.worker") == worker
    assert stage.token(ONE) == token
    assert "an-a01n01" in refused(lab, TWO, "lvchange", "-aey", "vg0/spare")
    (uri,) = [one["uri"] for one in status(lab, ONE)["exports"] if one["lv"] == "spare"]
    with NbdClient(uri) as client:
        client.write(0, bytes(4096))
    assert failures(vm) == []
    assert {"attempt", "evidence", "purged"} & {*kinds(lab, TWO)[before:]} == set()
    assert status(lab, ONE)["blocked_by"] == []
    assert done(lab, ONE, "lvs", "--noheadings", "-o", "lv_holder").strip().startswith("an-a01n01:EX@")
    assert "is active" not in done(lab, ONE, "why", VOLUME)
    stage.stop_vm(vm)
    done(lab, ONE, "lvchange", "-an", VOLUME)
    done(lab, TWO, *TAKE)
    assert stage.judge(TWO).clean
