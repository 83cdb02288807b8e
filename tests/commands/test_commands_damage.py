"""Random damage of the disks: what is read was committed once, or it is a clear error; nothing crashes.

Damage is what disks and their paths do: bits flip, writes are torn or missing (a sector is as it was at
another version), sectors are swapped, a device is shorter than it was."""

import random
import time
from pathlib import Path

from command_world import MIB, Node, World

from ringfence.core.errors import RingfenceError
from ringfence.engine.commands.disks import read_disks
from ringfence.volumes.checks import check_vg
from ringfence.volumes.discovery import Disks
from ringfence.wire.client import LvCreate, LvRemove, Lvs, PvCreate, Pvs, VgCreate, Vgs

AREA_BYTES = 4096 + 64 * 512
"""Label, header, and the part of the ring that is written."""

CASES = 200


class Disk:
    def __init__(self, image: str) -> None:
        self.image = image
        self.versions: list[bytes] = []

    @property
    def used_sectors(self) -> int:
        return -(-len(self.versions[-1].rstrip(b"\0")) // 512)

    def read(self) -> bytes:
        with open(self.image, "rb") as file:
            return file.read(AREA_BYTES)

    def write(self, data: bytes, size_bytes: int = 64 * MIB) -> None:
        with open(self.image, "r+b") as file:
            file.write(data)
            file.truncate(size_bytes)


class History:
    """A VG of some versions: what was on the disks at each, and the texts that were committed."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory, (64 * MIB, 64 * MIB))
        self.disks = [Disk(image) for image in self.world.images]
        self.texts: dict[bytes, bool] = {}
        self.pvs: dict[str, bool] = {}
        self._run(PvCreate(tuple(self.world.images)))
        self._run(VgCreate("vg0", tuple(self.world.images), shared=True, extent_size_bytes=MIB))
        for number in range(4):
            self._run(LvCreate("vg0", f"lv{number}", extents=2 + number, activate="n"))
        self._run(LvRemove("vg0", "lv1"))

    def _run(self, call: object) -> None:
        self.world.node().run(call)
        for disk in self.disks:
            disk.versions.append(disk.read())
        found: Disks = self.world.node().drive(read_disks())
        self.texts |= {one.vg.text: True for one in found.vgs}
        self.pvs |= {pv.label.uuid: True for pv in found.pvs}


def damage(rng: random.Random, disk: Disk) -> None:
    """Some version of the disk, with a few things gone wrong with it."""
    data = bytearray(rng.choice(disk.versions))
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        # Where the bytes are that matter: label, header, texts.
        sector = rng.choice(
            (1, 8, 8, *(rng.randrange(9, disk.used_sectors) for _ in range(5)), rng.randrange(64))
        )
        at = sector * 512
        match rng.randrange(6):
            case 0:  # bits
                for _ in range(rng.choice((1, 2, 9))):
                    data[at + rng.choice((rng.randrange(512), rng.randrange(100)))] ^= 1 << rng.randrange(8)
            case 1:  # a write that never came, or another's that came late
                data[at : at + 512] = rng.choice(disk.versions)[at : at + 512]
            case 2:  # a write that was torn
                cut = rng.randrange(512)
                data[at + cut : at + 512] = rng.choice(disk.versions)[at + cut : at + 512]
            case 3:
                other = rng.choice((1, 8, rng.randrange(64))) * 512
                here, there = data[at : at + 512], data[other : other + 512]
                data[at : at + 512], data[other : other + 512] = there, here
            case 4:
                data[at : at + 512] = bytes(512) if rng.random() < 0.5 else rng.randbytes(512)
            case _:  # from a sector on it is as it was
                old = rng.choice(disk.versions)
                data[at:] = old[at:]
    short = rng.random() < 0.05
    disk.write(bytes(data), rng.choice((0, 100, 4096, 5000, 1 << 20, 3 << 20)) if short else 64 * MIB)


CALLS = (Pvs(), Vgs(), Lvs("vg0"), Lvs("vg0", all=True))


def tell(history: History, number: int) -> str:
    """One case.  Returns: what became of it."""
    rng = random.Random(number)
    world = history.world
    for disk in history.disks:
        disk.write(disk.versions[-1])
    for disk in rng.choice((history.disks, history.disks[:1], history.disks[1:])):
        damage(rng, disk)
    if rng.random() < 0.5:
        for resource in world.resources.values():
            resource.lvb = None  # as after a host was lost
    node = world.node()
    found: Disks = node.drive(read_disks())
    for one in found.vgs:
        assert one.vg.text in history.texts, "a version that nobody committed"
    assert all(pv.label.uuid in history.pvs for pv in found.pvs)
    for call in CALLS:
        refused(node, call)
    if refused(node, LvCreate("vg0", "new", extents=1, activate="n")):
        return "refused"
    (before,) = (one.vg for one in found.vgs if one.vg.name == "vg0")
    after = node.drive(read_disks()).vg_named("vg0").vg
    check_vg(after)
    assert after.lv("new") is not None
    assert [lv for lv in after.lvs if lv.name != "new"] == list(before.lvs)
    assert after.seqno > before.seqno
    return "changed"


def refused(node: Node, call: object) -> bool:
    try:
        node.run(call)
    except RingfenceError as error:
        message = str(error)
    else:
        return False
    assert message, "an error without words"
    assert "\n" not in message
    return True


def test_what_is_read_of_a_damaged_disk_was_committed_once(directory: Path) -> None:
    history = History(directory)
    first = time.time_ns() // 1000
    print(f"from case {first} on")
    lvbs = {key: one.lvb for key, one in history.world.resources.items()}
    outcomes: dict[str, int] = {}
    for number in range(first, first + CASES):
        for key, lvb in lvbs.items():
            history.world.resources[key].lvb = lvb
        try:
            outcome = tell(history, number)
        except BaseException:
            print(f"case {number}")
            raise
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes["refused"] > CASES // 20, outcomes
    assert outcomes["changed"] > CASES // 20, outcomes
