"""Ranges are zeroed whatever the device can do, behind the guard; and what is on a device is found out."""

import errno
import subprocess
from pathlib import Path

import pytest

from ringfence.core.errors import DeviceFailed, NoAuthority
from ringfence.engine.orders import Probe, Write, WriteVersion, ZeroBlocks
from ringfence.storage import Storage, direct, driver
from ringfence.storage import probe as probing
from ringfence.volumes.signatures import Probed, Prober, Signature, Use
from ringfence.wire.block import Extent

MIB = 1 << 20
SIZE = 4 * MIB


@pytest.fixture
def image(directory: Path) -> str:
    path = directory / "a.img"
    path.write_bytes(b"\xaa" * SIZE)
    return str(path)


def allow(vg: str) -> None:
    pass


@pytest.mark.parametrize("able", [0x02 | 0x10, 0x10, 0], ids=["punches", "zeroes", "only writes"])
@pytest.mark.parametrize("kind", ["file", "block device"])
def test_a_range_reads_as_zeros(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, image: str, kind: str, able: int
) -> None:
    real, modes = direct._libc.fallocate, []

    class Kernel:
        @staticmethod
        def fallocate(fd: int, mode: int, offset: int, length: int) -> int:
            if not mode & able:
                direct.ctypes.set_errno(errno.EOPNOTSUPP)
                return -1
            modes.append(mode & ~0x01)
            return int(real(fd, mode, offset, length))

    monkeypatch.setattr(direct, "_libc", Kernel)
    path = image if kind == "file" else request.getfixturevalue("loop")
    Storage([path], allow).do(ZeroBlocks(path, 512, 2 * MIB + 1024, "vg0"))
    assert Path(image).read_bytes() == b"\xaa" * 512 + bytes(2 * MIB + 1024) + b"\xaa" * (2 * MIB - 1536)
    assert modes == {0x12: [0x02], 0x10: [0x10], 0: []}[able]
    assert Path(image).stat().st_size == SIZE


def test_beyond_the_end_nothing_is_zeroed(image: str) -> None:
    with pytest.raises(DeviceFailed, match="beyond the end"):
        Storage([image], allow).do(ZeroBlocks(image, SIZE - 512, 1024, "vg0"))
    assert Path(image).read_bytes() == b"\xaa" * SIZE


def test_without_authority_nothing_further_is_zeroed(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ZERO_STEP_BYTES", MIB)
    calls = []

    def guard(vg: str) -> None:
        calls.append(vg)
        if len(calls) == 4:
            raise NoAuthority("lapsed")

    with pytest.raises(NoAuthority):
        Storage([image], guard).do(ZeroBlocks(image, 0, SIZE, "vg0"))
    assert calls == ["vg0"] * 4
    assert Path(image).read_bytes() == bytes(2 * MIB) + b"\xaa" * (2 * MIB)


# -- probes ----------------------------------------------------------------------------


def probe(path: str, *extents: tuple[int, int]) -> Probed:
    order = Probe(tuple(Extent(path, start, length) for start, length in extents or [(0, SIZE)]))
    answer: Probed = Storage([path], allow).do(order)
    return answer


def empty(image: str) -> None:
    Path(image).write_bytes(bytes(SIZE))


def test_libblkid_looks_at_one_range_of_a_device(directory: Path, image: str) -> None:
    empty(image)
    inner = directory / "inner"
    inner.write_bytes(bytes(2 * MIB))
    subprocess.run(["mkfs.ext4", "-q", "-F", str(inner)], check=True, capture_output=True)
    with open(image, "r+b") as file:
        file.seek(MIB)
        file.write(inner.read_bytes())
    assert probe(image, (MIB, 2 * MIB)) == Probed((Signature("ext4", Use.SINGLE_HOST),), Prober.LIBBLKID)
    assert probe(image, (0, MIB)) == Probed((), Prober.LIBBLKID)


def test_an_lv_in_pieces_is_read_through_them(image: str) -> None:
    """The mark of gfs2 stands at 64 KiB, in the second piece; a PV's label of the guest in the first."""
    empty(image)
    with open(image, "r+b") as file:
        file.seek(2 * MIB)
        file.write(b"\x01\x16\x19\x70")
    pieces = ((MIB, 64 << 10), (2 * MIB, 64 << 10), (0, MIB))
    assert probe(image, *pieces) == Probed((Signature("gfs2", Use.CLUSTER, 0x10000),), Prober.OWN_TABLE)


@pytest.mark.parametrize("trouble", ["none", "absent", "ambivalent", "hangs"])
def test_where_libblkid_cannot_tell_the_own_table_does(
    directory: Path, image: str, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    empty(image)
    with open(image, "r+b") as file:
        file.write(b"XFSB")  # no whole file system: libblkid says nothing of it
    tools = directory / "bin"
    tools.mkdir()
    if trouble != "absent":
        blkid = tools / "blkid"
        ends = {"none": "exit 2", "ambivalent": "exit 8", "hangs": "exec sleep 60"}[trouble]
        blkid.write_text(f"#!/bin/sh\n{ends}\n")
        blkid.chmod(0o755)
    monkeypatch.setattr(probing, "_PATH", f"{tools}:/bin" if trouble != "absent" else str(tools))
    monkeypatch.setattr(probing, "LIMIT_S", 0.2)
    assert probe(image) == Probed((Signature("xfs", Use.SINGLE_HOST, 0),), Prober.OWN_TABLE)


def test_what_is_zeroed_along_with_a_version_comes_before_all_of_it(image: str) -> None:
    """Without authority for it nothing of the version is written."""
    text, commit = Write(image, MIB, b"t" * 512), Write(image, MIB + 512, b"c" * 512)
    order = WriteVersion((text,), (), (commit,), "vg0", (ZeroBlocks(image, 0, 1024, "vg0"),))
    seen = []
    Storage([image], allow, lambda moment, what, index, write: seen.append((moment, what))).do(order)
    assert [what for moment, what in seen if moment is driver.Moment.BEFORE] == ["zero", "text", "commit"]
    written = bytes(1024) + b"\xaa" * (MIB - 1024) + b"t" * 512 + b"c" * 512
    assert Path(image).read_bytes()[: len(written)] == written

    Path(image).write_bytes(b"\xaa" * SIZE)

    def guard(vg: str) -> None:
        raise NoAuthority("lapsed")

    with pytest.raises(NoAuthority):
        Storage([image], guard).do(order)
    assert Path(image).read_bytes() == b"\xaa" * SIZE
