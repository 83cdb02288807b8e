"""Ranges are copied behind the guard, and nothing beside them."""

import os
from pathlib import Path

import pytest

from ringfence.core.errors import DeviceFailed, NoAuthority
from ringfence.engine.orders import CopyBlocks
from ringfence.storage import Storage, driver

MIB = 1 << 20


@pytest.fixture
def images(directory: Path) -> tuple[Path, Path]:
    one, other = directory / "a.img", directory / "b.img"
    one.write_bytes(os.urandom(4 * MIB))
    other.write_bytes(b"\xaa" * (4 * MIB))
    return one, other


def allow(vg: str) -> None:
    pass


def test_a_range_is_copied_and_nothing_beside_it(images: tuple[Path, Path]) -> None:
    one, other = images
    storage = Storage([str(one), str(other)], allow)
    storage.do(CopyBlocks(str(one), 512, 2 * MIB + 1024, str(other), MIB + 512, "vg0"))
    before, copied, behind = MIB + 512, one.read_bytes()[512 : 2 * MIB + 1536], MIB - 1536
    assert other.read_bytes() == b"\xaa" * before + copied + b"\xaa" * behind


def test_within_one_device(images: tuple[Path, Path]) -> None:
    one, _ = images
    was = one.read_bytes()
    Storage([str(one)], allow).do(CopyBlocks(str(one), 0, 2 * MIB, str(one), 2 * MIB, "vg0"))
    assert one.read_bytes() == was[: 2 * MIB] * 2


def test_beyond_the_end_is_an_error(images: tuple[Path, Path]) -> None:
    one, other = images
    storage = Storage([str(one), str(other)], allow)
    for source, target in ((4 * MIB - 512, 0), (0, 4 * MIB - 512)):
        with pytest.raises(DeviceFailed):
            storage.do(CopyBlocks(str(one), source, 1024, str(other), target, "vg0"))


def test_without_authority_nothing_further_is_copied(
    images: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "COPY_STEP_BYTES", MIB)
    one, other = images
    asked: list[str] = []

    def guard(vg: str) -> None:
        asked.append(vg)
        if len(asked) == 4:
            raise NoAuthority("its authority has ended")

    with pytest.raises(NoAuthority):
        Storage([str(one), str(other)], guard).do(CopyBlocks(str(one), 0, 4 * MIB, str(other), 0, "vg0"))
    assert set(asked) == {"vg0"}
    assert other.read_bytes() == one.read_bytes()[: 2 * MIB] + b"\xaa" * (2 * MIB), "the late one is told"
