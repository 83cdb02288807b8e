"""What doctor finds out by itself: device-mapper's volumes, fence devices, a host without a daemon."""

import os
from pathlib import Path

import pytest

from ringfence.config import Paths
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Use
from ringfence.core.evidence import Power
from ringfence.doctor.checks import judge
from ringfence.doctor.devices import ask_devices
from ringfence.doctor.gather import gather
from ringfence.doctor.mapper import volumes
from ringfence.host.mapper import Table

VG, GUEST = "a" * 32, "b" * 32
LV = "AAAAAA" + "0" * 26
DASHED = "AAAAAA-0000-0000-0000-0000-0000-000000"


def test_volumes_of_device_mapper() -> None:
    found = volumes(
        [
            Table("dm-0", "vg--0-vm1", f"LVM-{VG}{LV}", ("sda",)),
            Table("dm-1", "vg--0-vm1p2", f"part2-LVM-{VG}{LV}", ("dm-0",)),
            Table("dm-2", "guest-root", f"LVM-{GUEST}{LV}", ("dm-1",)),
            Table("dm-3", "vg--0-pool_tmeta", f"LVM-{VG}{LV}-tmeta", ("sda",)),
            Table("dm-4", "mpatha", "mpath-3600a", ("sdb",)),
        ]
    )
    assert [(one.vg, one.lv, one.uuid, one.above) for one in found] == [
        ("vg-0", "vm1", DASHED, ()),
        ("guest", "root", DASHED, ("vg-0",)),
    ]


def agent(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\ncat > {path}.stdin\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_every_device_is_asked_for_its_status_and_nothing_else(tmp_path: Path) -> None:
    paths, unseen = Paths(tmp_path / "root"), []
    agents = {
        "on": agent(tmp_path / "on", "echo Status: ON; exit 0"),
        "off": agent(tmp_path / "off", "echo Status: OFF; exit 2"),
        "broken": agent(tmp_path / "broken", "echo Unable to connect >&2; exit 1"),
        "slow": agent(tmp_path / "slow", "exec sleep 60"),
        "none": str(tmp_path / "none"),
    }
    devices = tuple(
        DeviceConfig(name, agents[name], Confirms.HOST_OFF, timeout_ms=1000 if name == "slow" else 0)
        for name in sorted(agents)
    )
    levels = (Level(("on", "off")), Level(("broken", "slow", "none")))
    cluster = ClusterConfig("ring", nodes=(NodeConfig(1, "n1", levels=levels),), devices=devices)
    said: list[str] = []
    found = {one.device: one for one in ask_devices(paths, cluster, unseen, said.append)}
    assert {name: one.power for name, one in found.items()} == {
        "on": Power.ON, "off": Power.OFF,
        "broken": Power.UNKNOWN, "slow": Power.UNKNOWN, "none": Power.UNKNOWN,
    }  # fmt: skip
    assert found["broken"].words == "Unable to connect"
    assert found["slow"].words.startswith("no answer within 1 s")
    assert "is not installed" in found["none"].agent_missing
    assert (said, unseen) == (["asking 5 fence devices for their status"], [])
    for name in ("on", "off", "broken"):
        asked = (tmp_path / f"{name}.stdin").read_text().splitlines()
        assert [line for line in asked if line.startswith("action=")] == ["action=status"]


def test_each_plug_of_a_device_is_asked_for_and_no_two_at_once(tmp_path: Path) -> None:
    paths, unseen = Paths(tmp_path / "root"), []
    body = f"mkdir {tmp_path}/busy || exit 1; sleep 0.1; rmdir {tmp_path}/busy; exit 0"
    apc = DeviceConfig("apc", agent(tmp_path / "apc", body), Confirms.OUTLET_OFF)
    levels = [(Level(tuple(Use("apc", {"plug": f"{node}{outlet}"}) for outlet in "12")),) for node in "12"]
    nodes = tuple(NodeConfig(id, f"n{id}", levels=level) for id, level in enumerate(levels, 1))
    cluster = ClusterConfig("ring", nodes=nodes, devices=(apc,))
    found = ask_devices(paths, cluster, unseen, lambda line: None)
    assert [(one.named, one.node, one.power) for one in found] == [
        (f"apc[{node}{outlet}]", f"n{node}", Power.ON) for node in "12" for outlet in "12"
    ]


def test_without_daemon_or_configuration_it_says_so(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    facts = gather(paths, str(paths.socket))
    assert facts.daemon is None
    assert str(paths.socket) in facts.daemon_trouble
    assert facts.own.file_trouble == f"there is no {paths.file}"
    assert any(line.startswith("the daemon and other hosts: ") for line in facts.unseen)
    assert "daemon-down" in [one.id for one in judge(facts)]


def test_who_may_not_ask_the_daemon_does_not_call_it_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(tmp_path)
    paths.run.mkdir(parents=True)
    paths.socket.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    facts = gather(paths, str(paths.socket))
    assert "daemon-down" not in [one.id for one in judge(facts)]
    assert any(line.startswith("the daemon and other hosts: ") for line in facts.unseen)
