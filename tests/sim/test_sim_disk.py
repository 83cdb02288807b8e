"""The simulated disks, and how a host writes to them: what is promised, and what is not."""

from collections.abc import Callable

import pytest

from ringfence.engine import inputs, orders
from ringfence.lvm2.area import MdaHeader, RawLocn, print_header, text_writes
from ringfence.lvm2.checksum import crc32
from ringfence.sim.disk import DISKS, Disks, blank_disks, make_small_pvs
from ringfence.sim.metadata import Metadata
from ringfence.sim.safety import SafetyViolation
from ringfence.sim.scheduler import Scheduler
from ringfence.sim.storage import Storage, Trouble

ONE, TWO = DISKS
SECTOR = 512


class Writer:
    """A host with nothing but storage."""

    def __init__(self, seed: int = 1) -> None:
        self.scheduler = Scheduler(seed)
        self.disks = blank_disks(1 << 16)
        self.frozen: list[Callable[[], None]] | None = None
        self.valid = True
        self.done: list[inputs.OrderDone] = []
        self.storage = Storage(self.scheduler, self.disks, self._awake)

    def _awake(self, what: Callable[[], None]) -> None:
        if self.frozen is None:
            what()
        else:
            self.frozen.append(what)

    def thaw(self) -> None:
        frozen, self.frozen = self.frozen or [], None
        for what in frozen:
            what()

    def do(self, body: orders.StorageOrder) -> None:
        self.storage.do(len(self.done) + 1, body, lambda page: self.valid, self.done.append)

    def run(self) -> None:
        while self.scheduler.step():
            pass

    def write(self, *writes: tuple[int, bytes], what: str = "text") -> None:
        pieces = tuple(orders.Write(ONE, at, data) for at, data in writes)
        self.do(orders.WriteBlocks(pieces, "vg1", what))

    def sectors(self, count: int) -> set[int]:
        return {self.disks.disks[ONE].data[number * SECTOR] for number in range(count)}


def filled(byte: int, sectors: int = 1) -> bytes:
    return bytes([byte]) * SECTOR * sectors


def test_orders_are_carried_out_in_order_and_answered_once() -> None:
    writer = Writer()
    writer.write((0, filled(1)), (0, filled(2)))
    reads = orders.Read(ONE, 0, 1), orders.Read(ONE, 1 << 16, 1), orders.Read("/x", 0, 1)
    writer.do(orders.ReadBlocks(reads))
    writer.do(orders.ScanDevices())
    writer.run()
    assert [one.error for one in writer.done] == [None] * 3
    assert writer.done[1].answer == (b"\2", None, None)
    assert [device.path for device in writer.done[2].answer] == [ONE, TWO]


def test_an_order_that_is_given_when_one_is_answered_is_carried_out_once() -> None:
    """As an engine does: its next order comes within the answer to the last."""
    writer = Writer()
    landed: list[str] = []
    writer.disks.wrote = landed.append

    def then(done: inputs.OrderDone) -> None:
        writer.write((0, filled(2)), what="second")

    order = orders.WriteBlocks((orders.Write(ONE, 0, filled(1)),), "", "first")
    writer.storage.do(1, order, lambda page: True, then)
    writer.run()
    assert landed == ["first", "second"]


def test_without_authority_nothing_is_written() -> None:
    writer = Writer()
    writer.valid = False
    writer.write((0, filled(1)))
    writer.run()
    assert writer.done[0].error["code"] == "no-authority"
    assert writer.sectors(1) == {0}


def test_authority_that_lapses_on_the_way_stops_what_follows() -> None:
    writer = Writer()
    writer.write((0, filled(1)), (SECTOR, filled(1)))
    writer.storage.fault = lambda: setattr(writer, "valid", False)
    writer.run()
    assert writer.done[0].error["code"] == "no-authority"
    assert [writer.disks.disks[ONE].data[at] for at in (0, SECTOR)] == [1, 0]


def test_a_text_lands_after_a_freeze_and_a_header_at_once() -> None:
    for what, lands in (("text", False), ("commit", True)):
        writer = Writer()
        writer.storage.fault = lambda writer=writer: setattr(writer, "frozen", [])
        writer.write((0, filled(1)), what=what)
        writer.run()
        assert (writer.sectors(1) == {1}) is lands
        assert not writer.done
        writer.thaw()
        writer.run()
        assert writer.sectors(1) == {1}
        assert len(writer.done) == 1


def test_power_loss_tears_a_write_at_sectors() -> None:
    seen = []
    for seed in range(20):
        writer = Writer(seed)
        writer.storage.fault = lambda writer=writer: writer.storage.stop(power=True)
        writer.write((0, filled(1, 4)), (0, filled(2, 4)))
        writer.run()
        assert not writer.done
        seen.append(frozenset(writer.sectors(4)))
    assert frozenset({0, 1}) in seen, "nothing was ever torn"
    assert all(2 not in one for one in seen), "the write after it happened"


@pytest.mark.parametrize("trouble", [Trouble.WRITES_FAIL, Trouble.READS_FAIL, Trouble.SLOW])
def test_trouble_with_one_disk_is_about_that_disk(trouble: Trouble) -> None:
    writer = Writer()
    writer.storage.suffer(trouble, (TWO,))
    writer.write((0, filled(1)))
    writer.do(orders.WriteBlocks((orders.Write(TWO, 0, filled(1)),), "vg1", "text"))
    writer.do(orders.ReadBlocks((orders.Read(ONE, 0, 1), orders.Read(TWO, 0, 1))))
    writer.run()
    first, second, read = writer.done
    assert first.error is None
    assert (second.error is not None) == (trouble is Trouble.WRITES_FAIL)
    assert (read.answer[1] is None) == (trouble is Trouble.READS_FAIL)
    assert read.answer[0] == b"\1"


# -- the checker of metadata -----------------------------------------------------------

TEXT = """vg1 {{
id = "{uuid}"
seqno = {seqno}
extent_size = 8
physical_volumes {{
pv0 {{
id = "SimPv0-xxxx-xxxx-xxxx-xxxx-xxxx-xxxxxx"
pe_start = 128
pe_count = 100
}}
}}
logical_volumes {{
{lvs}
}}
}}
"""


def lv(name: str, first: int, count: int = 2) -> str:
    return (
        f'{name} {{\nid = "{name}"\nsegment_count = 1\nsegment1 {{\nstart_extent = 0\n'
        f'extent_count = {count}\ntype = "striped"\nstripe_count = 1\nstripes = [\n"pv0", {first}\n]\n}}\n}}'
    )


class Committed:
    """A VG as its writer would commit it, one version after the other, on the first disk."""

    def __init__(self) -> None:
        self.disks: Disks = blank_disks(1 << 20)
        make_small_pvs(self.disks)
        self.metadata = Metadata(self.disks)
        self.metadata.look()

    def commit(self, seqno: int, *lvs: str, uuid: str = "u", crc_off: int = 0) -> None:
        text = TEXT.format(uuid=uuid, seqno=seqno, lvs="\n".join(lvs)).encode() + b"\0"
        header = MdaHeader(4096, ((64 << 10) - 4096) >> 2)
        slot = RawLocn(512 + 2048 * (seqno % 2), len(text), crc32(text))
        disk = self.disks.disks[ONE]
        for at, data in text_writes(header, slot, text):
            disk.write(at, data)
        slot = RawLocn(slot.offset_bytes, slot.size_bytes, slot.crc ^ crc_off)
        disk.write(4096, print_header(MdaHeader(header.start_bytes, header.size_bytes, slot)))
        self.metadata.look()

    def clear(self) -> None:
        self.disks.disks[ONE].write(4096, print_header(MdaHeader(4096, ((64 << 10) - 4096) >> 2)))
        self.metadata.look()


def test_versions_that_follow_each_other_are_well() -> None:
    vg = Committed()
    vg.commit(1)
    vg.commit(2, lv("a", 0), lv("b", 2))
    assert vg.metadata.commits == 2
    assert vg.metadata.holder(ONE, (128 + 8) * 512) == "a"
    assert vg.metadata.holder(ONE, (128 + 8 * 3) * 512) == "b"
    assert vg.metadata.holder(ONE, (128 + 8 * 4) * 512) == ""
    vg.clear()
    assert vg.metadata.named("vg1") is None
    vg.commit(1, uuid="another")


def test_the_checker_sees_each_breach() -> None:
    vg = Committed()
    vg.commit(5, lv("a", 0))
    with pytest.raises(SafetyViolation, match="went back"):
        vg.commit(4, lv("a", 0))
    with pytest.raises(SafetyViolation, match="committed twice"):
        vg.commit(5, lv("b", 0))
    with pytest.raises(SafetyViolation, match="checksum"):
        vg.commit(6, crc_off=1)
    with pytest.raises(SafetyViolation, match="share the extent"):
        vg.commit(7, lv("a", 0), lv("b", 1))
    with pytest.raises(SafetyViolation, match="outside of PV"):
        vg.commit(8, lv("a", 99))
    vg.commit(9)
    vg.clear()
    with pytest.raises(SafetyViolation, match="removed and is there again"):
        vg.commit(10)
