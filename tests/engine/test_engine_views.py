"""What a node knows of VGs without reading them: the versions that others tell of."""

from collections.abc import Callable
from pathlib import Path

import pytest
from engine_ring import Host, World

from ringfence.lvm2.checksum import crc32
from ringfence.volumes.known import Known, KnownVgs
from ringfence.wire import Speaks
from ringfence.wire import client as calls
from ringfence.wire.entries import VolumeNotice


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., World]:
    def make(**options: Speaks) -> World:
        world = World(tmp_path, 2, **options)
        world.pass_ms(1000)
        world.hosts[1].do(calls.PvCreate((str(world.image),)))
        world.hosts[1].do(calls.VgCreate("vg0", (str(world.image),), shared=True))
        world.pass_ms(1000)
        for host in world.hosts.values():
            host.do(calls.Lvs("vg0"))
        return world

    return make


def known(host: Host) -> Known:
    found: Known | None = host.node.context.known_vgs.named("vg0")
    assert found is not None
    return found


def test_a_change_is_known_on_the_other_host_before_it_reads_anything(made: Callable[..., World]) -> None:
    world = made()
    one, two = world.hosts[1], world.hosts[2]
    two._do = None  # type: ignore[assignment]  # whatever it ordered of its host would fail
    for call in (
        calls.LvCreate("vg0", "vm1", extents=2, activate="n"),
        calls.LvCreate("vg0", "vm2", extents=1, activate="n"),
        calls.LvRemove("vg0", "vm1"),
    ):
        one.do(call)
        world.pass_ms(10)
        assert known(two) == known(one)
        assert crc32(known(two).vg.text) == known(two).crc
    assert [lv.name for lv in known(two).vg.lvs if not lv.slots] == ["vm2"]


def test_older_nodes_are_told_no_deltas_and_read(made: Callable[..., World]) -> None:
    world = made(speaks=Speaks(1, 5))
    one, two = world.hosts[1], world.hosts[2]
    before = known(two)
    one.do(calls.LvCreate("vg0", "vm1", extents=2, activate="n"))
    world.pass_ms(10)
    assert known(two) is before
    assert [row["lv_name"] for row in two.do(calls.Lvs("vg0"))["rows"]] == ["vm1"]
    assert known(two) == known(one)


def test_who_missed_a_change_or_hears_nonsense_reads(made: Callable[..., World]) -> None:
    world = made()
    one, two = world.hosts[1], world.hosts[2]
    before = known(two)
    one.do(calls.LvCreate("vg0", "vm1", extents=2, activate="n"))
    world.pass_ms(10)
    two.node.context.known_vgs.put(before)
    one.do(calls.LvCreate("vg0", "vm2", extents=1, activate="n"))
    world.pass_ms(10)
    assert known(two) is before, "the version between the two is not known"
    two.node.context.known_vgs = KnownVgs()
    one.do(calls.LvRemove("vg0", "vm2"))
    world.pass_ms(10)
    assert two.node.context.known_vgs.named("vg0") is None
    assert [row["lv_name"] for row in two.do(calls.Lvs("vg0"))["rows"]] == ["vm1"]
    seen = known(two)
    one.node.context.submit(VolumeNotice("vg0", seen.vg.seqno + 1, 77, "stock"))
    world.pass_ms(500)
    assert known(two) is seen
    assert [row["lv_name"] for row in two.do(calls.Lvs("vg0"))["rows"]] == ["vm1"]
