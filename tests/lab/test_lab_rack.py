"""A lab whose fence devices are simulated: real agents run by its daemons, and nothing left of any of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_watch import eventually, processes_of, scratch

from ringfence.client import connect
from ringfence.core.errors import BadInput
from ringfence.host.processes import process
from ringfence.lab import trees
from ringfence.lab.cluster import Lab
from ringfence.lab.layout import Ring

pytestmark = pytest.mark.long

SIZE = 64 << 20
ONE, TWO = "an-a01n01", "an-a01n02"


@pytest.fixture
def directory() -> Iterator[Path]:
    with scratch("rfrack") as path:
        yield path


def ringfence(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringfence", *words, "--dir", str(directory / "lab")],
        text=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip


def fenced(lab: Lab, node: str, by: str) -> dict[str, Any]:
    """Freeze it; the evidence that the other host finds."""
    with connect(lab.socket(by), retry_ms=5000) as daemon:
        since = max((int(event["seq"]) for event in daemon.events()), default=0)
        lab.freeze(node)
        give_up = time.monotonic() + 100
        while time.monotonic() < give_up:
            for event in daemon.events(since=since):
                if event["kind"] == "evidence":
                    return dict(event)
            time.sleep(0.1)
    raise AssertionError(f"no evidence about {node}")


def test_stock_agents_fence_through_simulated_devices(directory: Path) -> None:
    up = ringfence(directory, "lab", "up", "--devices", "ipmi,apc-snmp", "--json")
    assert up.returncode == 0, up.stderr
    lab = Lab.open(directory / "lab")
    try:
        status = json.loads(ringfence(directory, "lab", "status", "--json").stdout)
        assert status["rack"] is True
        assert {one["name"]: (one["kind"], one["state"]) for one in status["devices"]} == {
            f"bmc-{ONE}": ("ipmi", "answers"), f"bmc-{TWO}": ("ipmi", "answers"),
            "pdu-a": ("apc-snmp", "answers"), "pdu-b": ("apc-snmp", "answers"),
        }  # fmt: skip
        assert "pdu-b            apc-snmp  127.0.0.1:" in ringfence(directory, "lab", "status").stdout
        secret = (directory / "lab/power.secret").read_text().strip()
        for pid in processes_of(directory):
            assert secret not in trees.command(pid)
        refused = ringfence(directory, "lab", "lie", ONE, "bmc", "pending")
        assert (refused.returncode, "cannot lie by pending; one of none" in refused.stderr) == (5, True)

        seen = subprocess.run(
            [sys.executable, "-m", "ringfence", "doctor"], env={**os.environ, **lab.env(ONE)},
            text=True, capture_output=True, timeout=60, check=False,
        ).stdout  # fmt: skip
        assert "looked at" in seen
        assert "error" not in seen.replace("0 errors", ""), seen

        assert "bmc-an-a01n01 said \"off\"" in fenced(lab, ONE, TWO)["what"]
        lab.power(ONE, "on")
        lab.plug(ONE, "psu2", "pdu-b", TWO)
        cables = {"psu1": ["pdu-a", ONE], "psu2": ["pdu-b", TWO]}
        assert lab.status()["hosts"][ONE]["cables"] == cables
        lab.plug(ONE, "psu2", "pdu-b", ONE)
        lab.wait_ready(60)
        lab.lie(TWO, "bmc", "hang")
        assert "pdu-a[2], pdu-b[2] said \"off\"" in fenced(lab, TWO, ONE)["what"]
        states = {one["name"]: one["state"] for one in lab.status()["devices"]}
        assert states == {
            f"bmc-{ONE}": "answers", f"bmc-{TWO}": "silent", "pdu-a": "answers", "pdu-b": "answers",
        }  # fmt: skip
        assert lab.status()["hosts"][TWO]["power"] == "off"
    finally:
        lab.down()
    assert processes_of(directory) == []


def test_devices_of_a_lab_on_corosync_are_reached_through_a_network_of_their_own(directory: Path) -> None:
    lab = Lab.up(directory / "lab", 2, SIZE, ring=Ring("corosync"), devices=["redfish", "apc"])
    try:
        assert {one["address"] for one in lab.status()["devices"]} == {"10.77.100.254"}
        assert "bmc-an-a01n01 said \"off\"" in fenced(lab, ONE, TWO)["what"]
    finally:
        lab.down()
    assert processes_of(directory) == []


def test_devices_end_with_the_lab_though_their_rack_was_killed(directory: Path) -> None:
    lab = Lab.up(directory / "lab", 1, SIZE, devices=["ipmi", "apc-snmp"])
    rack = process(lab._places.kept().rack[0])
    assert rack is not None
    simulators = trees.tree(rack)
    assert len(simulators) >= 4
    trees.send(rack, signal.SIGKILL)
    eventually(lambda: not trees.alive(rack))
    assert {one["state"] for one in lab.status()["devices"]} == {"ended"}
    assert lab.status()["hosts"][ONE]["power"] == "on"
    lab.down()
    assert not any(trees.alive(one) for one in simulators)
    assert processes_of(directory) == []


def test_a_lab_of_unknown_devices_or_in_an_odd_place_is_not_begun(directory: Path) -> None:
    with pytest.raises(BadInput, match="know no quotes"):
        Lab.up(directory / "a,b", 1, SIZE, devices=["apc-snmp"])
    refused = ringfence(directory, "lab", "up", "--devices", "ipmi,toaster")
    assert refused.returncode == 5
    assert "'toaster' is no kind of device; some of ipmi, " in refused.stderr
    assert not (directory / "lab").exists()
