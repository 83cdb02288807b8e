"""What the supplies' sensors say about cables."""

import pytest

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Use
from ringfence.fencing.cabling import Cable, all_back, anything_lost, judge, one_outlet_twice, unfit
from ringfence.wire.proving import Current, Supply

FED, LOST, BAD = Current.FED, Current.LOST, Current.BAD


def uses(plug: str) -> tuple[Use, ...]:
    return Use("apc-a", {"plug": plug}), Use("apc-b", {"plug": plug})


CONFIG = ClusterConfig(
    "c",
    nodes=tuple(
        NodeConfig(id, f"n{id}", levels=(Level((f"ipmi-n{id}",)), Level(uses(str(id))))) for id in (1, 2)
    ),
    devices=(
        *(DeviceConfig(f"apc-{x}", "fence_apc_snmp", Confirms.OUTLET_OFF, {"ip": x}) for x in "ab"),
        *(DeviceConfig(f"ipmi-n{id}", "fence_ipmilan", Confirms.HOST_OFF, {"ip": str(id)}) for id in (1, 2)),
    ),
)


def supplies(first: Current = FED, second: Current = FED) -> tuple[Supply, ...]:
    return Supply("PS1", first), Supply("PS2", second)


BEFORE = {1: supplies(), 2: supplies()}


@pytest.mark.parametrize(
    ("index", "mine", "theirs", "cable", "what"),
    [
        (0, (LOST, FED), (FED, FED), Cable.CORRECT, "apc-a[1] feeds PS1 of n1, and nothing else"),
        (1, (FED, LOST), (FED, FED), Cable.CORRECT, "apc-b[1] feeds PS2 of n1, and nothing else"),
        (0, (FED, LOST), (FED, FED), Cable.SWAPPED,
         "apc-a[1] feeds PS2 of n1; in its place in the level PS1 was expected"),
        (0, (FED, FED), (LOST, FED), Cable.MOVED, "apc-a[1] feeds PS1 of n2, and nothing of n1"),
        (0, (FED, FED), (FED, FED), Cable.NOTHING,
         "apc-a[1] is off, and no controller saw a supply of n1, or of another host, lose its mains"),
        (0, (LOST, LOST), (FED, FED), Cable.BOTH,
         "apc-a[1] feeds more than one supply: PS1 of n1, PS2 of n1"),
        (0, (LOST, FED), (LOST, FED), Cable.BOTH,
         "apc-a[1] feeds more than one supply: PS1 of n1, PS1 of n2"),
        (0, (BAD, FED), (FED, FED), Cable.NOTHING,
         "apc-a[1] is off, and no controller saw a supply of n1, or of another host, lose its mains"),
    ],
)  # fmt: skip
def test_what_was_seen_tells_where_the_cable_is(
    index: int, mine: tuple[Current, Current], theirs: tuple[Current, Current], cable: Cable, what: str
) -> None:
    after = {1: supplies(*mine), 2: supplies(*theirs)}
    found = judge(CONFIG, 1, uses("1"), index, BEFORE, after)
    assert (found.cable, found.what) == (cable, what)
    assert anything_lost(BEFORE, after) is (cable is not Cable.NOTHING)


def test_a_supply_that_another_host_lacked_before_says_nothing() -> None:
    before = {1: supplies(), 2: supplies(LOST, FED)}
    found = judge(CONFIG, 1, uses("1"), 0, before, {1: supplies(LOST), 2: supplies(LOST, FED)})
    assert found.cable is Cable.CORRECT


def test_a_controller_that_falls_silent_is_no_lost_supply_and_none_that_came_back() -> None:
    assert not anything_lost(BEFORE, {1: supplies()})
    assert not all_back(BEFORE, {1: supplies()})
    assert not all_back(BEFORE, {1: supplies(LOST), 2: supplies()})
    assert all_back(BEFORE, {1: supplies(), 2: supplies()})


@pytest.mark.parametrize(
    ("supplies", "why"),
    [
        ((Supply("PS1", FED),), "n1 has 1 power supply that its controller tells of: two are needed"),
        ((), "n1 has no power supply that its controller tells of: two are needed"),
        ((Supply("PS1", FED), Supply("PS2", LOST, "AC lost")),
         "n1 runs on what is left already: PS2 (AC lost)"),
        ((Supply("PS1", BAD), Supply("PS2", FED)), "n1 runs on what is left already: PS1 (bad)"),
        ((Supply("PS1", FED), Supply("PS2", FED)), ""),
    ],
)  # fmt: skip
def test_nothing_begins_unless_every_supply_is_fed(supplies: tuple[Supply, ...], why: str) -> None:
    assert unfit("n1", supplies) == why


def test_one_outlet_under_two_names_is_found() -> None:
    assert one_outlet_twice(CONFIG, uses("1")) == ""
    twice = (Use("apc-a", {"plug": "1"}), Use("apc-a", {"port": "1"}))
    assert one_outlet_twice(CONFIG, twice) == "apc-a[1] and apc-a[1] are one outlet"
