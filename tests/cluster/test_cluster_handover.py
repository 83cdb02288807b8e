"""A hand-over between hosts of real processes: a writer goes on at the other end, and no byte is lost."""

import threading
import time
from collections.abc import Iterator

import pytest
from cluster_lab import ONE, TWO, done, eventually, make_volume, running, uri_of

from ringfence.client import Connection, connect
from ringfence.core.errors import Refused
from ringfence.lab.cluster import Lab
from ringfence.lab.nbd_client import NbdClient
from ringfence.lab.parts import Part
from ringfence.wire import client as calls

VOLUME = "vg0/vm1"
BLOCKS, BLOCK = 2048, 4096


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running(2) as made:
        make_volume(made, ONE)
        yield made


class Writer:
    """A program that writes on and on, one block after the other, and goes to the other host when it is cut
    off from this one: what was not answered is written again there."""

    def __init__(self, uris: dict[str, str], begin: str) -> None:
        self._uris = uris
        self._at = begin
        self._stop = threading.Event()
        self.written: dict[int, int] = {}
        """Block -> the number of the last write of it that was answered."""
        self.count = 0
        self.places: list[str] = []
        self.longest_s = 0.0
        """Between two answers."""
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive(), "its last write is not answered"

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.is_set():
            try:
                with NbdClient(self._uris[self._at], timeout_s=60) as client:
                    self.places.append(self._at)
                    while not self._stop.is_set():
                        number = self.count
                        client.write(number % BLOCKS * BLOCK, content(number), fua=number % 16 == 0)
                        self.written[number % BLOCKS] = number
                        self.count += 1
                        now = time.monotonic()
                        self.longest_s, last = max(self.longest_s, now - last), now
            except OSError:
                self._at = next(one for one in self._uris if one != self._at)
                time.sleep(0.002)

    def goes_on(self, blocks: int = 50) -> None:
        before = self.count
        eventually(lambda: self.count >= before + blocks)

    def compare(self, uri: str) -> None:
        with NbdClient(uri) as client:
            for block, number in self.written.items():
                assert client.read(block * BLOCK, BLOCK) == content(number), (block, number)


def content(number: int) -> bytes:
    return number.to_bytes(8, "big") * (BLOCK // 8)


def uris(lab: Lab) -> dict[str, str]:
    """Where the LV is, or would be: only the host's directory is another one."""
    uri = uri_of(lab, ONE, VOLUME)
    return {node: uri.replace(f"/{ONE}/", f"/{node}/") for node in (ONE, TWO)}


def holders(daemon: Connection) -> dict[str, str]:
    (found,) = daemon.call(calls.Lvs("vg0", "vm1", fields=("lv_holders",)))["columns"]["lv_holders"]
    return {one["node"]: one["mode"] for one in found}


def test_a_writer_goes_on_at_the_other_host_and_no_byte_is_lost(lab: Lab) -> None:
    there = uris(lab)
    with Writer(there, ONE) as writer, connect(lab.socket(ONE)) as one, connect(lab.socket(TWO)) as two:
        writer.goes_on()
        writer.longest_s = 0
        said = done(lab, ONE, "handover", VOLUME, "--to", TWO)
        assert "Logical volume vg0/vm1 handed over: it is an-a01n02's." in said
        writer.goes_on()
        pause_ms = writer.longest_s * 1000
        assert holders(one) == {TWO: "EX"}
        # Back again, prepared: the other end is there and may be read while this one is written.
        assert two.call(calls.LvHandover("vg0", "vm1", ONE, prepare=True))["state"] == "prepared"
        assert holders(one) == {ONE: "CR", TWO: "PW"}
        with NbdClient(there[ONE]) as early:
            writer.goes_on()
            early.read(0, BLOCK)
        assert "shareable" not in done(lab, ONE, "lv-xml", VOLUME)
        writer.longest_s = 0
        assert two.call(calls.LvHandover("vg0", "vm1", ONE))["state"] == "handed over"
        writer.goes_on()
        print(f"the longest a write waited: {pause_ms:.0f} ms; prepared: {writer.longest_s * 1000:.0f} ms")
        assert holders(two) == {ONE: "EX"}
        assert one.call(calls.Status())["handovers"] == []
    assert writer.places == [ONE, TWO, ONE]
    writer.compare(there[ONE])
    events = done(lab, TWO, "events").splitlines()
    assert len([line for line in events if "was handed over from" in line]) == 2


def test_a_target_that_freezes_in_the_middle_leaves_the_writer_where_it_was(lab: Lab) -> None:
    """It is fenced, for it had a lock; until then what is written waits, and then goes on."""
    there, refused = uris(lab), []

    def hand_over() -> None:
        with connect(lab.socket(ONE)) as other:
            try:
                other.call(calls.LvHandover("vg0", "vm1", TWO))
            except Refused as error:
                refused.append(error)

    with Writer(there, ONE) as writer, connect(lab.socket(ONE)) as daemon:
        writer.goes_on()
        lab.freeze(TWO, Part.BLOCK)  # else it may be done before anybody sees it under way
        asking = threading.Thread(target=hand_over)
        asking.start()
        while not [one for one in daemon.call(calls.Status())["handovers"] if one["step"] == "open"]:
            assert asking.is_alive(), "it was too quick for this"
        lab.freeze(TWO)
        asking.join(60)
        assert "an-a01n02 was lost" in str(refused[0])
        writer.goes_on()
        kinds = [line.split()[3] for line in done(lab, ONE, "events").splitlines()]
        assert kinds[::-1].index("purged") < kinds[::-1].index("victim"), "after proof, and not before"
        assert holders(daemon) == {ONE: "EX"}
    assert writer.places == [ONE]
    writer.compare(there[ONE])
