"""fence test and fence drill on a lab whose devices are spoken to by real agents."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringfence.client import connect
from ringfence.lab.cluster import Lab

ONE, TWO = "an-a01n01", "an-a01n02"
"""The first one acts, the second is drilled."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="rflab", dir="/tmp"))
    try:
        lab = Lab.up(directory / "lab", 2, 64 << 20, devices=("ipmi", "apc-snmp"))
        try:
            yield lab
        finally:
            lab.down()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fence(lab: Lab, *words: str, code: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "ringfence", "fence", *words, "--json", "--root", str(lab.root(ONE))],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return msgspec.json.decode(done.stdout)


def status(lab: Lab) -> dict[str, Any]:
    with connect(lab.socket(ONE)) as daemon:
        return daemon.status()


def hosts(lab: Lab) -> list[tuple[int, dict[str, str]]]:
    """How often each has booted, and which of its outlets are on."""
    told = lab.status()["hosts"]
    return [(told[name]["boots"], told[name]["outlets"]) for name in (ONE, TWO)]


def test_every_way_to_fence_is_tried_without_switching(lab: Lab) -> None:
    before = hosts(lab)
    found = fence(lab, "test", TWO)
    assert [(one["tester"], one["use"], one["outcome"]) for one in found["tests"]] == [
        (ONE, f"bmc-{TWO}", "passed"), (ONE, "pdu-a[2]", "passed"), (ONE, "pdu-b[2]", "passed"),
    ]  # fmt: skip
    assert hosts(lab) == before


def test_refused_credentials_are_an_alarm_until_they_are_accepted(lab: Lab) -> None:
    lab.lie(TWO, "bmc", "no-login")
    try:
        (one,) = fence(lab, "test", f"bmc-{TWO}", code=1)["tests"]
    finally:
        lab.lie(TWO, "bmc", "none")
    assert one["outcome"] == "failed"
    assert status(lab)["fence_tests"]["alarms"] == [
        f"{ONE} could not fence {TWO} by bmc-{TWO}: {one['what']}"
    ]
    fence(lab, "test", f"bmc-{TWO}")
    assert status(lab)["fence_tests"]["alarms"] == []


def test_cables_that_were_exchanged_between_hosts_are_found_while_both_go_on(lab: Lab) -> None:
    before = hosts(lab)
    lab.plug(ONE, "psu1", "pdu-a", TWO)
    lab.plug(TWO, "psu1", "pdu-a", ONE)
    try:
        found = fence(lab, "drill", TWO, code=1)
    finally:
        lab.plug(ONE, "psu1", "pdu-a", ONE)
        lab.plug(TWO, "psu1", "pdu-a", TWO)
    assert found["lines"] == [
        f"pdu-a[2] feeds PSU1 of {ONE}, and nothing of {TWO}",
        f"pdu-b[2] feeds PSU2 of {TWO}, and nothing else",
    ]  # fmt: skip
    assert hosts(lab) == before
    assert status(lab)["drill"] is None


def test_power_is_cut_in_earnest_and_a_liar_is_told_from_an_honest_device(lab: Lab) -> None:
    before = hosts(lab)
    lab.lie(TWO, "bmc", "perfect")
    try:
        found = fence(lab, "drill", TWO, "--destructive", "--yes", code=1)
    finally:
        lab.lie(TWO, "bmc", "none")
    assert found["verdict"] == f'bmc-{TWO} said "off", and {TWO} goes on'
    assert status(lab)["quarantined"] == [f"bmc-{TWO}"]
    assert hosts(lab) == before
    assert fence(lab, "drill", TWO, "--destructive", "--yes")["passed"]
    assert status(lab)["quarantined"] == []
    assert [boots for boots, _ in hosts(lab)] == [before[0][0], before[1][0] + 1]
