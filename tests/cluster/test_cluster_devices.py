"""Hosts that fence one another with real agents: in the middle of it, both at once, and by a lie.

The devices are simulated (`lab up --devices`); what speaks to them is Debian's."""

import json
from collections.abc import Iterator

import pytest
from cluster_lab import ONE, TWO, eventually, make_volume, ringfence, running

from ringfence.client import connect
from ringfence.lab import trees
from ringfence.lab.cluster import Lab

pytestmark = pytest.mark.long

FOUR, FIVE = "an-a01n04", "an-a01n05"


@pytest.fixture(scope="module")
def two() -> Iterator[Lab]:
    with running(2, devices=("ipmi", "apc-snmp")) as lab:
        make_volume(lab, ONE)
        yield lab


def off(lab: Lab) -> list[str]:
    return [node for node, host in lab.status()["hosts"].items() if host["power"] == "off"]


def attempts(lab: Lab, node: str, victim: str) -> list[str]:
    """Who has begun to fence the victim, in order."""
    with connect(lab.socket(node)) as daemon:
        fields = [one["fields"] for one in daemon.events() if one["kind"] == "attempt"]
    number = lab.nodes.index(victim) + 1
    return [lab.nodes[one["actor"] - 1] for one in fields if one["node"] == number]


def settled(lab: Lab, node: str) -> bool:
    told = ringfence(lab, node, "status", "--json").stdout
    found = json.loads(told) if told else {"ready": False}  # it may be switched off just now
    return bool(found["ready"]) and not found["victims"] and found["authority"]["grant"] == "valid"


def test_two_that_shoot_each_other_leave_one_or_none_and_never_two(two: Lab) -> None:
    two.cut(ONE)
    eventually(lambda: off(two) != [])
    eventually(lambda: all(settled(two, node) for node in two.nodes if node not in off(two)))
    two.heal()
    survivors = [node for node in two.nodes if node not in off(two)]
    assert len(survivors) < 2
    for survivor in survivors:
        taken = ringfence(two, survivor, "lvchange", "-aey", "--wait", "60", "vg0/vm1")
        assert taken.returncode == 0, taken.stderr
    for node in off(two):
        two.power(node, "on")
    two.wait_ready(60)


def test_the_one_whose_devices_lie_survives_and_the_other_writes_nothing(two: Lab) -> None:
    """Each is told that the other is off.  It is true of one; the one that is not off has shot the other."""
    for device in ("bmc", "pdu"):
        two.lie(ONE, device, "perfect")
    two.cut(ONE)
    eventually(lambda: TWO in off(two))
    eventually(lambda: settled(two, ONE))
    assert off(two) == [TWO]
    two.heal()
    for device in ("bmc", "pdu"):
        two.lie(ONE, device, "none")
    two.power(TWO, "on")
    two.wait_ready(60)


@pytest.fixture
def five() -> Iterator[Lab]:
    with running(5, devices=("ipmi", "apc-snmp")) as lab:
        yield lab


def agents_of(lab: Lab, node: str) -> list[int]:
    """Tools of fence agents that the host runs."""
    return [one.pid for one in lab.tree(node) if "ipmitool" in trees.command(one.pid).split(" ")[0]]


def test_where_the_acting_host_dies_in_the_middle_the_next_goes_on_and_nothing_comes_late(five: Lab) -> None:
    make_volume(five, FIVE)
    five.lie(FIVE, "bmc", "hang")
    five.freeze(FIVE)
    eventually(lambda: agents_of(five, ONE) != [])
    tools = agents_of(five, ONE)
    five.power(ONE, "off")
    assert not any(trees.command(pid) for pid in tools), "they died with their host"
    five.lie(FIVE, "bmc", "none")
    taken = ringfence(five, TWO, "lvchange", "-aey", "--wait", "60", "vg0/vm1")
    assert taken.returncode == 0, taken.stderr
    assert off(five) == [ONE, FIVE]
    assert attempts(five, TWO, FIVE) == [ONE, TWO], "the next began again at the first level"
    for node in (ONE, FIVE):
        five.power(node, "on")
    five.wait_ready(40)
    assert off(five) == []
