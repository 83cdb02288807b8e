"""Two hosts, parted: exactly one survives; and if neither can be fenced, both wait and say so."""

import time
from collections.abc import Iterator

import pytest
from faults_lab import WRITES, Cluster, eventually, running


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(2) as made:
        yield made


def test_of_two_that_are_parted_the_one_whose_fencing_takes_longer_survives(cluster: Cluster) -> None:
    """Its writes are held, and go on; the loser boots, and waits to be let in."""
    cluster.lab.lie(cluster.name(1), "bmc", "hang")  # whoever shoots host 1 takes his time
    cluster.lab.lie(cluster.name(1), "pdu", "hang")
    vm = cluster.write_on(1, "before")
    token = cluster.stage.token(cluster.name(1))
    life = cluster.life(1)
    cluster.lab.partition([cluster.name(1)], [cluster.name(2)])
    eventually(lambda: cluster.off(2), what=cluster.tell)
    eventually(lambda: cluster.ready(1), what=cluster.tell)
    assert cluster.life(1) == life
    cluster.stage.let_write(vm, WRITES)
    cluster.lab.power(cluster.name(2), "on")
    eventually(lambda: f"no quorum: {cluster.name(1)} missing" in cluster.why(2), what=cluster.tell)
    time.sleep(3)
    assert f"no quorum: {cluster.name(1)} missing" in cluster.why(2)
    assert not cluster.off(1)
    eventually(lambda: cluster.ready(1), what=cluster.tell)
    cluster.lab.heal()
    eventually(lambda: cluster.ready(1, 2) and cluster.ready(2, 1), what=cluster.tell)
    assert cluster.life(1) == life
    assert cluster.stage.token(cluster.name(1)) >= token
    cluster.stage.stop_vm(vm)
    verdict = cluster.stage.judge(cluster.name(1))
    assert verdict.clean, verdict
    assert verdict.refused_writes == 0


def test_of_two_that_nobody_can_fence_both_say_so_and_write_on_what_they_have(cluster: Cluster) -> None:
    cluster.dead_devices(1, 2)
    vm = cluster.write_on(1, "before")
    lives = [cluster.life(1), cluster.life(2)]
    cluster.lab.partition([cluster.name(1)], [cluster.name(2)])
    for one, other in ((1, 2), (2, 1)):
        name = cluster.name(other)
        eventually(lambda one=one: "every device was tried" in cluster.why(one), what=cluster.tell)
        eventually(lambda one=one: cluster.authority(one) == ("lapsed", "lapsed"), what=cluster.tell)
        said = cluster.why(one)
        assert f"{cluster.name(one)} has no authority: the other node does not answer, and is not" in said
        assert "writes are held, each for" in said
        assert "but where a VG's disk slots carry them" in said
        assert "still missing: evidence" in said
        assert f"make sure that {name} is off, then: ringfence fence confirm {name}" in said
    written = cluster.stage.look(vm).acknowledged
    eventually(lambda: cluster.stage.look(vm).acknowledged > written + 50, what=cluster.tell)
    cluster.lab.heal()
    eventually(lambda: cluster.ready(1, 2) and cluster.ready(2, 1), what=cluster.tell)
    assert all(cluster.life(one) != lives[one - 1] for one in (1, 2)), "each was a victim to the other"
    assert not cluster.active(1)
