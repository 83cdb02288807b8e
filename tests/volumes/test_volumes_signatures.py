"""What is on a device or an LV: the table against what real tools write, and what libblkid calls it."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from ringfence.volumes.signatures import (
    HEAD_BYTES,
    SHAREABLE,
    Signature,
    Use,
    identify,
    parts_read,
    read_blkid,
)

MIB = 1 << 20
SIZE = 8 * MIB


def look(data: bytes) -> list[str]:
    head, tail = (data[offset : offset + length] for offset, length in parts_read(len(data)))
    return [one.kind for one in identify(len(data), head, tail)]


def with_bytes(offset: int, magic: bytes, size: int = SIZE) -> bytes:
    data = bytearray(size)
    data[offset : offset + len(magic)] = magic
    return bytes(data)


@pytest.mark.parametrize("size", [0, 512, 4096, HEAD_BYTES, SIZE])
def test_what_is_empty_has_none(size: int) -> None:
    assert look(bytes(size)) == []
    assert look(b"\xff" * size) == []


@pytest.mark.parametrize(
    ("kind", "offset", "magic"),
    [
        ("xfs", 0, b"XFSB"),
        ("btrfs", 0x10040, b"_BHRfS_M"),
        ("gfs2", 0x10000, b"\x01\x16\x19\x70"),
        ("ocfs2", 8192, b"OCFSV2"),
        ("swap", 65526, b"SWAPSPACE2"),
        ("LVM2_member", 512, b"LABELONE" + bytes(16) + b"LVM2 001"),
        ("LVM2_member", 0, b"LABELONE" + bytes(16) + b"LVM2 001"),
        ("zfs_member", 132 << 10, b"\x0c\xb1\xba\0\0\0\0\0"),
        ("linux_raid_member", 4096, b"\xfc\x4e\x2b\xa9"),
        ("linux_raid_member", SIZE - 65536, b"\xfc\x4e\x2b\xa9"),
        ("linux_raid_member", SIZE - 8192, b"\xfc\x4e\x2b\xa9"),
        ("drbd", SIZE - 4096 + 60, b"\x83\x74\x02\x6d"),
        ("dos", 510, b"\x55\xaa"),
    ],
)
def test_a_mark_where_its_kind_puts_it(kind: str, offset: int, magic: bytes) -> None:
    assert look(with_bytes(offset, magic)) == [kind]


def test_a_boot_sector_that_is_no_partition_table() -> None:
    assert look(with_bytes(446, struct.pack("B63xH", 7, 0xAA55))) == []
    fat = bytearray(with_bytes(510, b"\x55\xaa"))
    fat[54:62] = b"FAT16   "
    assert look(bytes(fat)) == ["vfat"]


def test_all_are_told_that_are_there() -> None:
    data = bytearray(with_bytes(0x10000, b"\x01\x16\x19\x70"))
    data[512:520] = b"EFI PART"
    data[510:512] = b"\x55\xaa"
    assert look(bytes(data)) == ["gfs2", "gpt", "dos"]


def test_only_what_is_made_for_it_may_be_shared() -> None:
    assert [use for use in Use if use in SHAREABLE] == [Use.CLUSTER, Use.READ_ONLY]


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("DEVNAME=/dev/a\nTYPE=ext4\nUSAGE=filesystem\n", [Signature("ext4", Use.SINGLE_HOST)]),
        ("TYPE=gfs2\nUSAGE=filesystem\n", [Signature("gfs2", Use.CLUSTER)]),
        ("TYPE=swap\nUSAGE=other\n", [Signature("swap", Use.SWAP)]),
        ("TYPE=crypto_LUKS\nUSAGE=crypto\n", [Signature("crypto_LUKS", Use.ENCRYPTED)]),
        ("TYPE=LVM2_member\nUSAGE=raid\n", [Signature("LVM2_member", Use.MEMBER)]),
        ("PTUUID=1-2\nPTTYPE=gpt\n", [Signature("gpt", Use.PARTITIONS)]),
        ("TYPE=newfs\n", [Signature("newfs", Use.SINGLE_HOST)]),
        ("DEVNAME=/dev/a\nPART_ENTRY_SCHEME=gpt\n", []),
        ("", []),
    ],
)
def test_libblkids_words(output: str, found: list[Signature]) -> None:
    assert list(read_blkid(output)) == found


def _mkfs(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.mark.parametrize("kind", ["ext4", "nothing", "swap"])
def test_what_real_tools_write(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "a.img"
    image.write_bytes(bytes(SIZE))
    image.chmod(0o600)
    if kind == "ext4":
        _mkfs("mkfs.ext4", "-q", "-F", str(image))
    elif kind == "swap":
        _mkfs("mkswap", str(image))
    own = look(image.read_bytes())
    assert own == ([] if kind == "nothing" else [kind])
    blkid = shutil.which("blkid", path="/usr/sbin:/sbin:/usr/bin")
    assert blkid
    said = subprocess.run([blkid, "-p", "-o", "export", image], capture_output=True, text=True, check=False)
    assert [one.kind for one in read_blkid(said.stdout)] == own, "both say the same"
