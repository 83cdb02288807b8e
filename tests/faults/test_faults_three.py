"""Three hosts on corosync: what each fault must come to.

Wherever the volume moves: no acknowledged write is lost, no block is foreign, and the token goes up."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults_lab import WRITES, Cluster, eventually, running

from ringfence.lab.cluster import TIMING
from ringfence.lab.parts import Part
from ringfence.lab.stage import VOLUME, newer

FLOOD = Path(__file__).parent / "faults_flood.py"
SILENCE = (
    "do not come back from the ring",
    "nothing passes in it",
    "does not deliver this node's own words",
    "messages get lost",
)
"""How a host says that its corosync delivers nothing: in a view, in none, before it can tell, and where the
ring re-forms all the time without it."""
DETECTION_S = TIMING.detection_ms / 1000


def told_silence(said: str) -> bool:
    return (
        any(words in said for words in SILENCE)
        and "write authority ran out" in said
        and "corosync-cfgtool -n" in said
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(3) as made:
        yield made


def moved(cluster: Cluster, number: int, before: str) -> None:
    """The volume is on that host now, under a higher token; every write is accounted for."""
    stage = cluster.stage
    assert newer(before, stage.token(cluster.name(number)))
    vm = stage.start_vm(cluster.name(number), "after")
    stage.let_write(vm, WRITES)
    stage.stop_vm(vm)
    verdict = stage.judge(cluster.name(number))
    assert verdict.clean, verdict
    assert verdict.acknowledged_writes >= 2 * WRITES


def test_a_host_that_loses_power_is_fenced_and_its_volume_moves(cluster: Cluster) -> None:
    """Its devices do not answer until what is said of it was read: it may be fenced between two looks."""
    cluster.dead_devices(1)
    cluster.write_on(1, "before")
    token = cluster.stage.token(cluster.name(1))
    cluster.lab.power(cluster.name(1), "off")
    asked = cluster.ask_for_volume(2)
    eventually(lambda: cluster.victims(2) == [cluster.name(1)])
    said = cluster.why(2, VOLUME)
    assert f"{cluster.name(1)} suspected since" in said
    assert "lost from view" in said
    cluster.honest_devices()
    eventually(lambda: asked.granted, what=cluster.tell)
    moved(cluster, 2, token)
    eventually(lambda: cluster.ready(2, 3), what=cluster.tell)


def test_a_host_that_freezes_with_much_to_say_is_out_when_it_thaws(cluster: Cluster) -> None:
    """Daemon and corosync stand still for 5 s, with messages on their way; no device can fence the host.

    Some of them are delivered to it alone, in the old view; others to everybody, late.  Neither counts."""
    cluster.dead_devices(1)
    cluster.write_on(1, "before")
    token = cluster.stage.token(cluster.name(1))
    flood = cluster.lab.root(cluster.name(1)) / "flood.log"
    words = [sys.executable, str(FLOOD), str(flood)]
    cluster.lab.spawn(cluster.name(1), words, flood.with_suffix(".out"), cluster.lab.env(cluster.name(1)))
    eventually(lambda: flood.exists() and flood.read_text().count("\n") > 50)
    life = cluster.life(1)
    since = cluster.position(2)
    cluster.lab.freeze(cluster.name(1))
    asked = cluster.ask_for_volume(2)
    time.sleep(5)
    assert not asked.granted, "there is no evidence"
    said = cluster.why(2, VOLUME)
    assert "still missing: evidence" in said
    assert "lost from view" in said
    cluster.lab.thaw(cluster.name(1))
    eventually(lambda: asked.granted)
    eventually(lambda: cluster.ready(1, 2, 3))
    assert cluster.life(1) != life, "it goes on as a new life"
    assert "fence-lied" not in cluster.kinds(2, since)
    moved(cluster, 2, token)
    told = [line.split()[0] for line in flood.read_text().splitlines()]
    tokens = [tuple(int(part) for part in token.split(".")) for token in told]
    assert tokens == sorted(set(tokens)), "a token went back"


def test_a_corosync_that_alone_freezes_is_told_of_by_its_own_host(cluster: Cluster) -> None:
    """Its daemon's sends go on to succeed, and nobody tells it anything: its authority runs out."""
    cluster.dead_devices(1)
    vm = cluster.write_on(1, "before")
    token = cluster.stage.token(cluster.name(1))
    life = cluster.life(1)
    cluster.lab.freeze(cluster.name(1), Part.COROSYNC)
    asked = cluster.ask_for_volume(2)
    eventually(lambda: cluster.victims(2) == [cluster.name(1)], what=cluster.tell)
    eventually(lambda: cluster.authority(1) == ("lapsed", "lapsed"))
    said = cluster.why(1)
    assert f"messages of {cluster.name(1)} do not come back from the ring since" in said
    assert "corosync does not deliver (it is frozen, or a path between two nodes is cut)" in said
    assert "write authority ran out" in said
    assert "corosync-cfgtool -n" in said
    written = cluster.stage.look(vm).acknowledged
    time.sleep(1)
    assert cluster.stage.look(vm).acknowledged <= written + 1, "its writes are held"
    assert not asked.granted
    cluster.lab.thaw(cluster.name(1), Part.COROSYNC)
    eventually(lambda: asked.granted, what=cluster.tell)
    eventually(lambda: cluster.ready(1, 2, 3), what=cluster.tell)
    assert cluster.life(1) != life
    moved(cluster, 2, token)


def test_a_daemon_that_alone_freezes_is_called_silent_and_its_host_fenced(cluster: Cluster) -> None:
    """The devices likewise."""
    cluster.dead_devices(1)
    cluster.write_on(1, "before")
    token = cluster.stage.token(cluster.name(1))
    time.sleep(2 * DETECTION_S)  # who calls another silent must have heard well for a while
    cluster.lab.freeze(cluster.name(1), Part.DAEMON)
    asked = cluster.ask_for_volume(2)
    eventually(lambda: cluster.victims(2) == [cluster.name(1)], what=cluster.tell)
    said = cluster.why(2, cluster.name(1))
    # The latter where the ring re-forms just then.
    assert "its daemon is silent" in said or "lost from view" in said
    assert not asked.granted, "there is no evidence"
    cluster.honest_devices()
    eventually(lambda: asked.granted, what=cluster.tell)
    assert cluster.off(1)
    moved(cluster, 2, token)


def test_a_view_begins_though_a_daemon_stands_still(cluster: Cluster) -> None:
    """The daemon of host 3 starts anew meanwhile: corosync tells of views of which host 1 is a member."""
    cluster.write_on(1, "before")
    token = cluster.stage.token(cluster.name(1))
    cluster.lab.freeze(cluster.name(1), Part.DAEMON)
    cluster.lab.kill(cluster.name(3), Part.DAEMON)
    cluster.lab.start(cluster.name(3), Part.DAEMON)
    asked = cluster.ask_for_volume(2)
    eventually(lambda: asked.granted, what=cluster.tell)
    assert cluster.off(1)
    moved(cluster, 2, token)


def test_a_host_whose_link_goes_down_is_fenced(cluster: Cluster) -> None:
    cluster.write_on(1, "before")
    token = cluster.stage.token(cluster.name(1))
    cluster.plug(1, "down")
    asked = cluster.ask_for_volume(3)
    eventually(lambda: asked.granted, what=cluster.tell)
    assert cluster.off(1)
    moved(cluster, 3, token)


def test_a_minority_that_is_back_before_it_could_be_fenced_begins_anew(cluster: Cluster) -> None:
    """1|2 and heal: two went on without host 1, and nothing of its old life counts any more."""
    cluster.dead_devices(1)
    vm = cluster.write_on(1, "before")
    token = cluster.stage.token(cluster.name(1))
    life, lives = cluster.life(1), [cluster.life(2), cluster.life(3)]
    cluster.lab.partition([cluster.name(1)], [cluster.name(2), cluster.name(3)])
    asked = cluster.ask_for_volume(2)
    eventually(lambda: "no quorum" in cluster.why(1), what=cluster.tell)
    assert f"no quorum: {cluster.name(2)}, {cluster.name(3)} missing" in cluster.why(1)
    eventually(lambda: cluster.authority(1)[1] == "lapsed")
    assert "writes are held" in cluster.why(1)
    assert cluster.active(1), "held, not closed"
    assert cluster.authority(2) == ("valid", "valid")
    assert not asked.granted
    cluster.lab.heal()
    eventually(lambda: asked.granted, what=cluster.tell)
    eventually(lambda: cluster.ready(1, 2, 3), what=cluster.tell)
    assert cluster.life(1) != life
    assert [cluster.life(2), cluster.life(3)] == lives
    assert not cluster.off(1)
    moved(cluster, 2, token)
    assert cluster.stage.look(vm).acknowledged >= WRITES


def test_a_minority_is_fenced_and_is_let_in_after_the_heal(cluster: Cluster) -> None:
    """1|2, fenced, heal: as it boots beside the cut it waits; healed, it is let in."""
    cluster.write_on(1, "before")
    token = cluster.stage.token(cluster.name(1))
    cluster.lab.partition([cluster.name(1)], [cluster.name(2), cluster.name(3)])
    asked = cluster.ask_for_volume(2)
    eventually(lambda: asked.granted, what=cluster.tell)
    assert cluster.off(1)
    cluster.lab.power(cluster.name(1), "on")
    eventually(lambda: "no quorum" in cluster.why(1), what=cluster.tell)
    eventually(lambda: cluster.ready(2, 3), what=cluster.tell)
    cluster.lab.heal()
    eventually(lambda: cluster.ready(1, 2, 3), what=cluster.tell)
    moved(cluster, 2, token)


def test_a_path_between_two_of_three_is_cut(cluster: Cluster) -> None:
    """Most often the ring re-forms for ever and delivers nothing: nobody has authority, all say so, nobody
    is fenced.  If two who reach each other form one without the third, that is fenced.  Nothing else."""
    cluster.take_volume(1)
    lives = [cluster.life(one) for one in cluster.numbers]
    cluster.lab.cut(cluster.name(1), cluster.name(3))
    time.sleep(2 * DETECTION_S)
    if any(cluster.off(one) for one in cluster.numbers):
        two = [one for one in cluster.numbers if not cluster.off(one)]
        assert len(two) == 2
        eventually(lambda: cluster.ready(*two), what=cluster.tell)
        return
    for one in cluster.numbers:
        eventually(lambda one=one: cluster.authority(one) == ("lapsed", "lapsed"), what=cluster.tell)
        # Between two rings corosync may call itself not quorate for a moment.
        eventually(lambda one=one: told_silence(cluster.why(one)), what=cluster.tell)
    cluster.lab.heal()
    eventually(lambda: cluster.ready(1, 2, 3), what=cluster.tell)
    assert [cluster.life(one) for one in cluster.numbers] == lives, "who has lost nothing was given up"
    assert cluster.active(1)


def test_after_a_loss_of_all_who_is_absent_is_fenced_and_who_had_left_is_not(cluster: Cluster) -> None:
    """All go off; two come back.  The third may be anywhere with its locks, unless it had left cleanly."""
    others = [cluster.name(1), cluster.name(2)]
    for leaves in (False, True):
        if leaves:
            cluster.stage.type(cluster.name(3), "leave")
            # It is answered when its host knows; each of the others has it on disk before it tells of it.
            for one in (1, 2):
                eventually(lambda one=one: cluster.standings(one)[2] == "left", what=cluster.tell)
        for number in cluster.numbers:
            cluster.lab.power(cluster.name(number), "off")
        cluster.lab.lie(cluster.name(3), "bmc", "none")
        for node in others:
            cluster.lab.power(node, "on")
        if leaves:
            eventually(lambda: cluster.ready(1, 2), what=cluster.tell)
            time.sleep(TIMING.post_join_delay_ms / 1000 + 1)
            assert cluster.victims(1) == []
            assert cluster.standings(1)[2] == "left"
        else:
            eventually(lambda: cluster.victims(1) == [cluster.name(3)], what=cluster.tell)
            assert "absent when the cluster started" in cluster.why(1, cluster.name(3))
            took_s = eventually(lambda: cluster.ready(1, 2), what=cluster.tell)
            assert took_s > TIMING.post_join_delay_ms / 1000 / 2, "it had its time to come back"
        assert cluster.off(3)
        cluster.lab.power(cluster.name(3), "on")
        eventually(lambda: cluster.ready(1, 2, 3), what=cluster.tell)
