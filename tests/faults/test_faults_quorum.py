"""Quorum is lost on all sides, and found again elsewhere, on four and five hosts."""

import time
from collections.abc import Iterator

import pytest
from faults_lab import WRITES, Cluster, eventually, running

from ringfence.lab.stage import VOLUME


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(4) as made:
        yield made


@pytest.mark.parametrize("sides", [[[1, 2], [3, 4]], [[1], [2], [3], [4]]], ids=["halves", "outage"])
def test_all_are_suspended_for_5_s_and_then_everybody_goes_on(
    cluster: Cluster, sides: list[list[int]]
) -> None:
    """Nothing is closed, no one stale, nobody fenced; what was held meanwhile is written."""
    vm = cluster.write_on(1, "before")
    token = cluster.stage.token(cluster.name(1))
    lives = [cluster.life(one) for one in cluster.numbers]
    since = [cluster.position(one) for one in cluster.numbers]
    cluster.lab.partition(*([cluster.name(one) for one in side] for side in sides))
    began = time.monotonic()
    for one in cluster.numbers:
        side = next(side for side in sides if one in side)
        absent = ", ".join(cluster.name(other) for other in cluster.numbers if other not in side)
        eventually(lambda one=one: cluster.status(one)["state"] == "suspended", what=cluster.tell)
        assert f"no quorum: {absent} missing" in cluster.why(one)
    eventually(lambda: cluster.authority(1)[1] == "lapsed", what=cluster.tell)
    assert "writes are held" in cluster.why(1)
    time.sleep(max(0.0, 5 - (time.monotonic() - began)))
    written = cluster.stage.look(vm).acknowledged
    cluster.lab.heal()
    cluster.stage.let_write(vm, WRITES)
    assert vm.acknowledged > written
    everybody = set(cluster.numbers)
    eventually(lambda: all(cluster.ready(one, *everybody - {one}) for one in everybody), what=cluster.tell)
    assert [cluster.life(one) for one in cluster.numbers] == lives, "somebody went stale"
    for one in cluster.numbers:
        kinds = cluster.kinds(one, since[one - 1])
        assert not {"victim", "attempt", "stale"} & set(kinds), "somebody was to be fenced"
    assert cluster.stage.token(cluster.name(1)) >= token
    cluster.stage.stop_vm(vm)
    verdict = cluster.stage.judge(cluster.name(1))
    assert verdict.clean, verdict
    assert verdict.refused_writes == 0


def test_no_victim_is_forgotten_where_quorum_is_found_with_others() -> None:
    """{V, A} | {B}, then C and D join B: V and A were never lost from a primary view before that one."""
    with running(5) as cluster:
        for absent in (4, 5):
            cluster.stage.type(cluster.name(absent), "leave")
            cluster.lab.power(cluster.name(absent), "off")
        eventually(lambda: cluster.ready(1, 2, 3), what=cluster.tell)
        cluster.dead_devices(2)
        cluster.write_on(1, "before")
        cluster.lab.partition([cluster.name(1), cluster.name(2)])
        eventually(lambda: cluster.status(3)["state"] == "suspended", what=cluster.tell)
        assert cluster.victims(3) == []
        asked = cluster.ask_for_volume(3)
        for comes in (4, 5):
            cluster.lab.power(cluster.name(comes), "on")
        eventually(lambda: cluster.victims(3) == [cluster.name(1), cluster.name(2)], what=cluster.tell)
        eventually(lambda: "unreachable" in cluster.why(4, cluster.name(2)), what=cluster.tell)
        assert "still missing: evidence" in cluster.why(4, cluster.name(2))
        assert not asked.granted, "host 2 may hold it, for all that is known"
        cluster.honest_devices()
        eventually(lambda: asked.granted, what=cluster.tell)
        assert cluster.off(1)
        assert cluster.off(2)
        eventually(lambda: cluster.ready(3, 4, 5), what=cluster.tell)
        assert f"held EX by {cluster.name(3)}" in cluster.why(5, VOLUME)
