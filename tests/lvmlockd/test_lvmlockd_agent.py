"""Pacemaker's agent for LVs, ocf:heartbeat:LVM-activate as it is packaged, on ringfence's locks.

There is no device-mapper here, which the agent asks whether an LV is active; in its place stands a word of
the same form: active is what this host has an activation's lock of."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stock_rig import ONE, PLAIN, TWO, LabHost, Ran, done, start_vg, stock_lab

from ringfence.config import Paths
from ringfence.lab.cluster import Lab

ROOT = Path(__file__).parents[2]
AGENT = "/usr/lib/ocf/resource.d/heartbeat/LVM-activate"
SUCCESS, GENERIC, NOT_RUNNING = 0, 1, 7
"""Exit codes.  Source: OCF Resource Agent API 1.1."""
DMSETUP = "#!/bin/sh\nlvmlockctl --info | grep '^LK LV' || echo No devices found\n"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with stock_lab(2) as made:
        yield made


@pytest.fixture(scope="module")
def hosts(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LabHost, ...]]:
    """Two that share vg0, with two LVs and disk slots; and the program of lvmlockd.service runs."""
    tools = tmp_path_factory.mktemp("tools")
    ours = f"{sys.executable} -m ringfence config check --root {lab.root(ONE)}"
    text = (ROOT / "packaging/lvm2/lvmlockd").read_text().replace("/usr/bin/ringfence config check", ours)
    text = text.replace("/etc/ringfence/ringfence.toml", str(Paths(lab.root(ONE)).file))
    for name, script in (("dmsetup", DMSETUP), ("lvmlockd", text)):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    found = tuple(LabHost(lab, node, tools) for node in (ONE, TWO))
    start_vg(found, lab.disk)
    for name in ("a", "b"):
        done(found[0].start("lvcreate", "-qq", *PLAIN, "-l4", "-n", name, "vg0"))
    done(found[0].ringfence("slots", "add", "vg0"))
    words = [tools / "lvmlockd"]
    with subprocess.Popen(words, start_new_session=True, stderr=subprocess.DEVNULL) as stand_in:
        try:
            yield found
        finally:
            os.killpg(stand_in.pid, signal.SIGKILL)


def agent(host: LabHost, action: str, lv: str = "", probe: bool = False) -> Ran:
    said = {
        "ROOT": "/usr/lib/ocf", "RESOURCE_INSTANCE": "test", "CHECK_LEVEL": "0", "RESKEY_vgname": "vg0",
        "RESKEY_lvname": lv, "RESKEY_vg_access_mode": "lvmlockd",
        "RESKEY_CRM_meta_interval": "0" if probe else "10000",
    }  # fmt: skip
    words = [f"OCF_{name}={value}" for name, value in said.items() if value]
    return host.start("env", *words, AGENT, action).wait()


def holder(host: LabHost, lv: str) -> str:
    words = ("lvs", "--noheadings", "-o", "lv_holder", f"vg0/{lv}")
    return done(host.ringfence(*words)).strip().partition("@")[0]


def test_an_lv_is_started_on_one_host_alone(hosts: tuple[LabHost, ...]) -> None:
    one, two = hosts
    assert agent(one, "monitor", "a", probe=True).code == NOT_RUNNING
    started = agent(one, "start", "a")
    assert started.code == SUCCESS, started
    assert holder(two, "a") == f"{ONE}:EX"
    assert agent(one, "monitor", "a").code == SUCCESS
    second = agent(two, "start", "a")
    assert second.code == GENERIC, second
    assert "locked by other host" in second.err
    assert agent(one, "stop", "a").code == SUCCESS
    assert holder(two, "a") == ""


def test_a_whole_vg_is_started_but_for_its_disk_slots(hosts: tuple[LabHost, ...]) -> None:
    one, two = hosts
    started = agent(two, "start")
    assert started.code == SUCCESS, started
    assert [holder(one, lv) for lv in ("a", "b")] == [f"{TWO}:EX"] * 2
    stopped = agent(two, "stop")
    assert stopped.code == SUCCESS, stopped
    assert "error" not in stopped.err
    assert [holder(one, lv) for lv in ("a", "b")] == ["", ""]
