"""Device-mapper's tables of LVM2's LVs: found by uuid or name, cut, and looked at again."""

from pathlib import Path

import pytest
from fake_mapper import FakeMapper

from ringfence.core.errors import Unavailable
from ringfence.host import mapper
from ringfence.host.mapper import SharedVg

VG, OTHER = "V" * 32, "o" * 32
DASHED = "VVVVVV-VVVV-VVVV-VVVV-VVVV-VVVV-VVVVVV"


def lv(letter: str) -> str:
    return letter * 32


@pytest.fixture
def fake(tmp_path: Path) -> FakeMapper:
    """vg-0 has a plain LV and a RAID; a thin pool's parts; beside it the host's own root, and a multipath."""
    fake = FakeMapper(tmp_path)
    fake.add(0, "mpatha", "mpath-3600a", "sda", "sdb")
    fake.add(1, "vg--0-vm1", f"LVM-{VG}{lv('a')}", "dm-0")
    fake.add(2, "vg--0-raid_rimage_0", f"LVM-{VG}{lv('b')}", "sda")
    fake.add(3, "vg--0-raid", f"LVM-{VG}{lv('c')}", "dm-2")
    fake.add(4, "vg--0-pool-tpool", f"LVM-{VG}{lv('d')}-tpool", "dm-5")
    fake.add(5, "vg--0-pool_tdata", f"LVM-{VG}{lv('e')}-tdata", "sda")
    fake.add(6, "vg--0-thin", f"LVM-{VG}{lv('f')}", "dm-4")
    fake.add(7, "host-root", f"LVM-{OTHER}{lv('a')[:-1]}z", "sdb")
    fake.add(8, "vg--0-vm1p1", f"part1-LVM-{VG}{lv('a')}", "dm-1")
    fake.add(9, "vg-0-vm1", f"LVM-{OTHER}{lv('g')}", "sdb")
    return fake


OURS = {1, 2, 3, 4, 5, 6}


def numbers(fake: FakeMapper, *vgs: SharedVg) -> set[int]:
    return {int(one.kernel.removeprefix("dm-")) for one in fake.mapper().standing(vgs)}


@pytest.mark.parametrize(
    "vg",
    [
        SharedVg("renamed", DASHED),
        SharedVg("renamed", "", ("dddddd-dddd-dddd-dddd-dddd-dddd-dddddd",)),
        SharedVg("vg-0"),
    ],
    ids=["by its uuid", "by an LV's", "by its name"],
)
def test_all_tables_of_a_vg_are_found(fake: FakeMapper, vg: SharedVg) -> None:
    assert numbers(fake, vg) == OURS


def test_another_vg_of_that_name_is_not_meant_where_the_uuid_is_known(fake: FakeMapper) -> None:
    assert numbers(fake, SharedVg("host", DASHED)) == OURS
    assert numbers(fake, SharedVg("host", "x" * 32)) == set()
    assert numbers(fake) == set()


def test_a_lab_touches_no_vg_of_its_machine_s_that_has_the_same_name(fake: FakeMapper) -> None:
    of_a_lab = mapper.Mapper(fake.block, by_name=False)
    assert of_a_lab.standing([SharedVg("host", "", ("xxxxxx-xxxx-xxxx-xxxx-xxxx-xxxx-xxxxxx",))]) == ()
    assert len(of_a_lab.standing([SharedVg("vg-0", DASHED)])) == len(OURS)


def test_tables_are_cut_from_the_top_down_and_looked_at_again(fake: FakeMapper) -> None:
    assert fake.mapper().cut([SharedVg("vg-0", DASHED)]) == ()
    assert numbers(fake, SharedVg("vg-0", DASHED)) == set()
    order = fake.cut
    assert sorted(order) == [
        "vg--0-pool-tpool", "vg--0-pool_tdata", "vg--0-raid", "vg--0-raid_rimage_0",
        "vg--0-thin", "vg--0-vm1",
    ]  # fmt: skip
    assert order.index("vg--0-thin") < order.index("vg--0-pool-tpool") < order.index("vg--0-pool_tdata")
    assert order.index("vg--0-raid") < order.index("vg--0-raid_rimage_0")
    assert numbers(fake, SharedVg("host")) == {7}, "the host's own is left alone"


def test_a_table_that_fails_all_io_need_not_be_cut(fake: FakeMapper) -> None:
    fake.mapper().cut([SharedVg("vg-0")])
    said = fake.cut
    assert fake.mapper().cut([SharedVg("vg-0")]) == ()
    assert fake.cut == said


def test_one_that_hangs_is_told_of_and_the_others_are_cut(
    fake: FakeMapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapper, "CUT_S", 2.0)
    fake.hangs("vg--0-thin")
    one = fake.mapper()
    assert [table.name for table in one.cut([SharedVg("vg-0")])] == ["vg--0-thin"]
    assert [table.name for table in one.cut([SharedVg("vg-0")])] == ["vg--0-thin"]
    assert fake.cut.count("vg--0-thin") == 1, "it is not told twice while it hangs"
    one.close()
    fake.hangs("vg--0-thin", now=False)
    assert fake.mapper().cut([SharedVg("vg-0")]) == ()


def test_an_exit_code_is_no_evidence_either_way(fake: FakeMapper) -> None:
    fake.fails()
    assert len(fake.mapper().cut([SharedVg("vg-0")])) == len(OURS)


def test_a_device_that_goes_away_meanwhile_is_none(fake: FakeMapper) -> None:
    fake.remove(6)
    (fake.block / "dm-77").mkdir()
    (fake.block / "dm-77").rmdir()
    assert numbers(fake, SharedVg("vg-0")) == OURS - {6}


def test_what_cannot_be_read_is_not_read_as_none(fake: FakeMapper, tmp_path: Path) -> None:
    (fake.block / "dm-1/dm/uuid").unlink()
    with pytest.raises(Unavailable, match="cannot read device-mapper's tables"):
        fake.mapper().standing([SharedVg("vg-0")])
    with pytest.raises(Unavailable, match="cannot read"):
        mapper.Mapper(tmp_path / "nowhere").standing([SharedVg("vg-0")])


def test_without_dmsetup_nothing_is_known_to_be_cut(fake: FakeMapper) -> None:
    fake.dmsetup.unlink()
    with pytest.raises(Unavailable, match="cannot start"):
        fake.mapper().cut([SharedVg("vg-0")])


def test_uuids_as_libdevmapper_writes_old_ones(tmp_path: Path) -> None:
    fake = FakeMapper(tmp_path)
    fake.add(0, "vg-lv", f"LVM-{VG[:-1]}\\x21{lv('a')}", "sda")
    assert numbers(fake, SharedVg("other", VG[:-1] + "!")) == {0}
