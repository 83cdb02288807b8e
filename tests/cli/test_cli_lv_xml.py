"""lv-xml: what libvirt and qemu are told of an LV."""

import json
from typing import Any
from xml.etree import ElementTree

import pytest
from cli_daemon import CannedDaemon
from cli_run import Run

from ringfence.wire import client as calls

SOCKET = "/run/ringfence/dev/vg0/vm1"


def columns(**changes: Any) -> dict[str, Any]:
    row = {
        "lv_name": "vm1", "lv_path": SOCKET, "lv_uri": f"nbd+unix:///vm1?socket={SOCKET}",
        "lv_attr": "-wi-a-----", "lv_active": "active", "lv_holders": [{"mode": "EX"}],
    } | changes  # fmt: skip
    return {"columns": {field: [value] for field, value in row.items()}}


def test_an_nbd_export_is_a_network_disk(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: columns()
    ran = run("lv-xml", "vg0/vm1", "--target", "sda", "--bus", "scsi")
    assert daemon.calls[-1].vg == "vg0"
    assert isinstance(daemon.calls[-1], calls.Lvs)
    disk = ElementTree.fromstring(ran.out)
    assert disk.attrib == {"type": "network", "device": "disk"}
    assert disk.find("source").attrib == {"protocol": "nbd", "name": "vm1"}
    assert disk.find("source/host").attrib == {"transport": "unix", "socket": SOCKET}
    assert disk.find("target").attrib == {"dev": "sda", "bus": "scsi"}
    assert disk.find("readonly") is None
    assert disk.find("shareable") is None


def test_a_device_is_a_block_disk(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: columns(lv_uri=f"file://{SOCKET}", lv_attr="-ri-a-----", lv_holders=[])
    disk = ElementTree.fromstring(run("lv-xml", "vg0/vm1").out)
    assert disk.attrib["type"] == "block"
    assert disk.find("source").attrib == {"dev": SOCKET}
    assert disk.find("readonly") is not None
    assert disk.find("shareable") is not None
    assert json.loads(run("lv-xml", "--qemu", "vg0/vm1").out) == {
        "driver": "host_device", "node-name": "lv-vm1", "filename": SOCKET, "aio": "native",
        "cache": {"direct": True}, "read-only": True,
    }  # fmt: skip


def test_qemu_s_blockdev(daemon: CannedDaemon, run: Run) -> None:
    name = "a+b" + "x" * 40
    daemon.answer = lambda call: columns(lv_name=name)
    said = json.loads(run("lv-xml", "--qemu", "vg0/vm1").out)
    assert said["driver"] == "nbd"
    assert said["export"] == name
    assert said["server"] == {"type": "unix", "path": SOCKET}
    assert said["node-name"] == ("lv-a_b" + "x" * 40)[:31], "qemu takes no other name"


@pytest.mark.parametrize("words", ["vg0", "vg0/", "vg0/a/b"])
def test_one_lv_is_named(daemon: CannedDaemon, run: Run, words: str) -> None:
    ran = run("lv-xml", words)
    assert (ran.code, daemon.calls) == (3, [])


def test_what_has_no_path_here_cannot_be_used(daemon: CannedDaemon, run: Run) -> None:
    daemon.answer = lambda call: columns(lv_path="")
    ran = run("lv-xml", "vg0/vm1")
    assert ran.code == 5
    assert "lvchange -aey vg0/vm1" in ran.err
