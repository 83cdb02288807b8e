"""A volume moves to other extents under a writing client; and when its host is killed, another goes on."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from os import environ
from pathlib import Path
from typing import Any

import pytest
from cluster_lab import ONE, TWO, done, eventually, report, running, status, uri_of

from ringfence.client import connect
from ringfence.lab.cluster import Lab
from ringfence.lab.nbd_client import NbdClient
from ringfence.wire import client as calls

MIB = 1 << 20
SIZE = 48
OTHERS = 6
"""More LVs, that nobody has open, of 8 MiB each."""
BEHIND = 30
"""The lab has one disk: everything goes to extents behind this one."""
BLOCK = 4096


@pytest.fixture
def lab() -> Iterator[Lab]:
    with running(2) as made:
        done(made, ONE, "vgcreate", "--shared", "vg0", str(made.disk))
        yield made


class Client:
    """Writes random blocks until it is told to stop; knows what must be read."""

    def __init__(self, uri: str) -> None:
        self._nbd = NbdClient(uri, timeout_s=60)
        self._rng = random.Random(3)
        self.data = bytearray(self._rng.randbytes(SIZE * MIB))
        for at in range(0, len(self.data), MIB):
            self._nbd.write(at, bytes(self.data[at : at + MIB]))
        self.wrote = 0
        self.unsure: tuple[int, bytes] | None = None
        """What was sent last, and not answered."""
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            at = self._rng.randrange(SIZE * MIB // BLOCK) * BLOCK
            block = self._rng.randbytes(BLOCK)
            self.unsure = at, block
            try:
                self._nbd.write(at, block)
            except OSError:
                return  # its host is gone
            self.data[at : at + BLOCK] = block
            self.unsure = None
            self.wrote += 1

    def accepts(self, read: bytes) -> bool:
        if read == self.data:
            return True
        if self.unsure is None:
            return False
        at, block = self.unsure
        landed = bytearray(self.data)
        landed[at : at + BLOCK] = block
        return read == landed


def ranges(lab: Lab, node: str, lv: str) -> list[tuple[int, int]]:
    rows = report(lab, node, "lvs", "-a", "-o", "lv_name,seg_pe_ranges")
    found = []
    for row in rows:
        if row["lv_name"].strip("[]") == lv:
            for word in row["seg_pe_ranges"].split():
                first, last = word.rpartition(":")[2].split("-")
                found.append((int(first), int(last)))
    return found


def moves(lab: Lab, node: str, lv: str) -> bool:
    """Whether it is being moved.  Nothing is started to ask: it may soon be over."""
    with connect(lab.socket(node)) as daemon:
        rows = daemon.call(calls.Lvs("vg0", all=True))["rows"]
    return any(row["lv_name"].strip("[]") == f"{lv}_moving" for row in rows)


def on_disk(lab: Lab, node: str, lv: str) -> bytes:
    (row,) = report(lab, node, "pvs", "-o", "pe_start", "--units", "b", "--nosuffix")
    start, data = int(row["pe_start"]), Path(lab.disk).read_bytes()
    return b"".join(
        data[start + first * 4 * MIB : start + (last + 1) * 4 * MIB] for first, last in ranges(lab, node, lv)
    )


def read_all(lab: Lab, node: str, volume: str) -> bytes:
    with NbdClient(uri_of(lab, node, volume), timeout_s=60) as client:
        return b"".join(client.read(at, MIB) for at in range(0, SIZE * MIB, MIB))


def pvmove(lab: Lab, *words: str) -> list[str]:
    """Everything before BEHIND goes behind it."""
    disk = str(lab.disk)
    return ["pvmove", "--alloc", "anywhere", *words, f"{disk}:0-{BEHIND - 1}", f"{disk}:{BEHIND}-"]


def test_no_byte_is_lost_while_a_volume_moves_under_its_writer(lab: Lab) -> None:
    done(lab, ONE, "lvcreate", "-L", f"{SIZE}M", "-n", "vm1", "vg0")
    client = Client(uri_of(lab, ONE, "vg0/vm1"))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(client.run)
        try:
            eventually(lambda: client.wrote > 50)
            # The other host asks for it, and waits for who has it open.
            told = done(lab, TWO, *pvmove(lab, "-n", "vm1"))
            after = client.wrote
            eventually(lambda: client.wrote > after + 50)
        finally:
            client.stop.set()
        writing.result(60)
    assert "Moved: 100.00%" in told
    assert all(first >= BEHIND for first, _ in ranges(lab, ONE, "vm1"))
    assert ranges(lab, ONE, "vm1_moving") == []
    assert client.unsure is None
    assert read_all(lab, ONE, "vg0/vm1") == client.data
    done(lab, ONE, "lvchange", "-an", "--disconnect", "vg0/vm1")
    assert on_disk(lab, TWO, "vm1") == client.data
    assert "lv-moved" in done(lab, ONE, "events")


def test_another_host_goes_on_when_the_one_that_moves_is_killed(lab: Lab) -> None:
    done(lab, ONE, "lvcreate", "-L", f"{SIZE}M", "-n", "vm1", "vg0")
    for number in range(OTHERS):
        done(lab, ONE, "lvcreate", "-an", "-L", "8M", "-n", f"other{number}", "vg0")
    client = Client(uri_of(lab, ONE, "vg0/vm1"))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(client.run)
        try:
            words = [sys.executable, "-m", "ringfence", *pvmove(lab)]
            env = {**environ, **lab.env(ONE)}
            with subprocess.Popen(words, env=env, stderr=subprocess.DEVNULL) as moving:
                eventually(lambda: moves(lab, TWO, "vm1"))
                assert moving.poll() is None
                lab.power(ONE, "off")
                assert moving.wait(60) != 0
        finally:
            client.stop.set()
        writing.result(60)
    done(lab, TWO, "lvchange", "-aey", "--wait", "60", "vg0/vm1")
    done(lab, TWO, "pvmove")
    for lv in ("vm1", *(f"other{number}" for number in range(OTHERS))):
        assert all(first >= BEHIND for first, _ in ranges(lab, TWO, lv)), lv
        assert ranges(lab, TWO, f"{lv}_moving") == []
    assert client.accepts(read_all(lab, TWO, "vg0/vm1"))
    assert rows_left(lab) == []


def rows_left(lab: Lab) -> list[dict[str, Any]]:
    return list(status(lab, TWO)["wiping"])
