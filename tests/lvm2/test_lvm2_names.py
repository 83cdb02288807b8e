"""LVM2's rules for names, tags and uuids."""

import pytest

from ringfence.core.errors import BadInput
from ringfence.lvm2 import names


@pytest.mark.parametrize("name", ["vm1", "a", "+x", "_", "a.b-c_d+e", "1", "lvol0", "x" * 120, ".hidden"])
def test_names_that_lvm2_accepts(name: str) -> None:
    names.check_lv_name(name, "vg0")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty"),
        (".", "reserved"),
        ("..", "reserved"),
        ("-x", "hyphen"),
        ("a b", "invalid character"),
        ("a/b", "invalid character"),
        ("vm\n", "invalid character"),
        ("vm\u00e9", "invalid character"),
        ("x" * 128, "too long"),
        ("x" * 127, "too long for device-mapper"),
        ("snapshot1", 'starting "snapshot"'),
        ("pvmove0", 'starting "pvmove"'),
        ("a_tdata", 'including "_tdata"'),
        ("a_mimage_0", 'including "_mimage"'),
    ],
)
def test_names_that_lvm2_refuses(name: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        names.check_lv_name(name, "vg0")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shared_vgs_name_must_fit_its_lockspace() -> None:
    names.check_vg_name("v" * 60)
    with pytest.raises(BadInput, match="too long to be shared"):
        names.check_vg_name("v" * 61)
    with pytest.raises(BadInput, match="hyphen"):
        names.check_vg_name("-v")
    with pytest.raises(BadInput, match="global lock"):
        names.check_vg_name("global")


def test_mapper_names_double_hyphens() -> None:
    assert names.mapper_name("vg-0", "a-b") == "vg--0-a--b"


def test_tags() -> None:
    names.check_tag("a/b=c!:#&+._-")
    for tag in ("", "-a", "a b", "x" * 1025):
        with pytest.raises(BadInput):
            names.check_tag(tag)


def test_uuids_go_both_ways() -> None:
    bare = "9m6Z9uafhKttpoZ1osF2SLoU5uowyiZa"
    dashed = "9m6Z9u-afhK-ttpo-Z1os-F2SL-oU5u-owyiZa"
    assert names.with_dashes(bare) == dashed
    assert names.without_dashes(dashed) == names.without_dashes(bare) == bare
    for wrong in ("", bare[:-1], dashed.replace("u-a", "ua-"), bare + "x", "-" * 32):
        with pytest.raises(BadInput):
            names.without_dashes(wrong)
