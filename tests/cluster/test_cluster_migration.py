"""A real qemu migrates a running guest to another host, with a prepared hand-over of its volume."""

import json
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_lab import ONE, TWO, done, eventually, make_volume, running, tool, uri_of

from ringfence.client import connect
from ringfence.lab.nbd_client import NbdClient
from ringfence.wire import client as calls

SECTOR, FIRST, RING = 512, 64, 32
"""guest.s writes its numbers to a ring of sectors."""


class Qemu:
    """A machine whose one disk is the LV, and its monitor (QMP)."""

    def __init__(self, monitor: Path, blockdev: str, *options: str) -> None:
        words = ["qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "16", "-nodefaults", "-nographic"]
        disk = ["-blockdev", blockdev, "-device", f"virtio-blk-pci,drive={json.loads(blockdev)['node-name']}"]
        qmp = ["-qmp", f"unix:{monitor},server=on,wait=off"]
        self.process = subprocess.Popen([*words, *disk, *qmp, *options])
        self._socket = socket.socket(socket.AF_UNIX)
        eventually(lambda: self._socket.connect_ex(str(monitor)) == 0)
        self._lines = self._socket.makefile("r")
        self._lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: str) -> Any:
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while "return" not in (answer := json.loads(self._lines.readline())):
            assert "error" not in answer, answer
        return answer["return"]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._lines.close()
        self._socket.close()


@contextmanager
def qemu(monitor: Path, blockdev: str, *options: str) -> Iterator[Qemu]:
    machine = Qemu(monitor, blockdev, *options)
    try:
        yield machine
    finally:
        machine.close()


def numbers(uri: str) -> list[int]:
    with NbdClient(uri) as client:
        data = client.read(FIRST * SECTOR, RING * SECTOR)
    return sorted(struct.unpack_from("<I", data, at)[0] for at in range(0, len(data), SECTOR))


def boot_sector(directory: Path) -> bytes:
    made, sector = directory / "guest.o", directory / "guest.bin"
    tool("as", "--32", "-o", made, Path(__file__).with_name("guest.s"))
    tool("ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", sector, made)
    return sector.read_bytes()


@pytest.mark.long
def test_a_guest_that_writes_goes_on_at_the_other_host(tmp_path: Path) -> None:
    give = calls.LvHandover("vg0", "vm1", TWO)
    with running(2) as lab:
        make_volume(lab, ONE)
        here = uri_of(lab, ONE, "vg0/vm1")
        there = here.replace(f"/{ONE}/", f"/{TWO}/")
        with NbdClient(here) as client:
            client.write(0, boot_sector(tmp_path))
        with (
            qemu(tmp_path / "one", done(lab, ONE, "lv-xml", "--qemu", "vg0/vm1")) as first,
            connect(lab.socket(ONE)) as daemon,
        ):
            eventually(lambda: numbers(here)[0] > 0, 60)  # all of the ring is written
            assert daemon.call(calls.LvHandover("vg0", "vm1", TWO, prepare=True))["state"] == "prepared"
            incoming = f"unix:{tmp_path}/migration"
            blockdev = done(lab, TWO, "lv-xml", "--qemu", "vg0/vm1")
            with qemu(tmp_path / "two", blockdev, "-incoming", incoming) as second:
                first.ask("migrate", uri=incoming)
                eventually(lambda: first.ask("query-migrate").get("status") == "completed")
                eventually(lambda: second.ask("query-status")["status"] == "running")
                last = numbers(there)[-1]
                time.sleep(0.2)
                assert numbers(there)[-1] == last, "its writes wait"
                assert daemon.call(give)["state"] == "handed over"
                eventually(lambda: numbers(there)[-1] > last + 2 * RING, 60)
                second.ask("stop")
                found = numbers(there)
    assert found == list(range(found[0], found[0] + RING)), "each one, and none of before"
