"""What is on a device or an LV, by the marks that file systems, swap, partition tables and others put there.

A table of facts: where each kind writes which bytes.  Read are the first 256 KiB and the last 128 KiB, no
more; what hides elsewhere (VMFS, say) only libblkid finds, which is asked first where a host has it
(`storage.probe`).  Kinds go by libblkid's names, so that both say the same of the same bytes.

Sources: each kind's on-disk format as its project documents it (ext4: kernel.org ext4 disk layout; xfs:
XFS Algorithms & Data Structures; btrfs wiki; LUKS1 and LUKS2 specifications; gfs2_ondisk.h; ocfs2_fs.h;
md_p.h; UEFI, GPT; Microsoft, FAT and NTFS boot sectors; DRBD's md_on_disk; ZFS On-Disk Specification)."""

import enum

import msgspec

HEAD_BYTES = 256 << 10
TAIL_BYTES = 128 << 10


class Use(enum.Enum):
    """What the bytes are for, as far as it matters for who may write them at once."""

    CLUSTER = "file system of a cluster"
    """Hosts that mount it together agree among themselves."""
    READ_ONLY = "file system that nobody writes"
    SINGLE_HOST = "file system of a single host"
    SWAP = "swap space"
    ENCRYPTED = "encrypted volume"
    MEMBER = "member of a set of disks"
    """A PV, a leg of a RAID, a pool's disk."""
    PARTITIONS = "partition table"
    IMAGE = "disk image"


SHAREABLE = (Use.CLUSTER, Use.READ_ONLY)
"""Several hosts may have these open at once."""


class Signature(msgspec.Struct, frozen=True):
    kind: str
    use: Use
    offset_bytes: int | None = None
    """Where its mark stands; None: whoever found it does not tell."""

    def __str__(self) -> str:
        at = "" if self.offset_bytes is None else f" at offset {self.offset_bytes}"
        return f"{self.kind} ({self.use.value}){at}"


class Prober(enum.Enum):
    """Who has looked."""

    LIBBLKID = "libblkid"
    OWN_TABLE = "ringfence's own table"


class Probed(msgspec.Struct, frozen=True):
    signatures: tuple[Signature, ...]
    by: Prober
    busy: bool = False
    """Of a whole device: somebody on this host has it for himself, as who has it mounted."""


_S, _M, _R = Use.SINGLE_HOST, Use.MEMBER, Use.READ_ONLY
_MAGICS: tuple[tuple[str, Use, int, bytes], ...] = (
    ("gfs2", Use.CLUSTER, 0x10000, b"\x01\x16\x19\x70"),
    *(("ocfs2", Use.CLUSTER, block * 2, b"OCFSV2") for block in (512, 1024, 2048, 4096)),
    ("ext4", _S, 0x438, b"\x53\xef"), ("xfs", _S, 0, b"XFSB"), ("btrfs", _S, 0x10040, b"_BHRfS_M"),
    ("jfs", _S, 0x8000, b"JFS1"), ("f2fs", _S, 0x400, b"\x10\x20\xf5\xf2"),
    ("reiserfs", _S, 0x10034, b"ReIsEr"), ("ufs", _S, 0x1055C, b"\x19\x01\x54\x19"),
    ("ntfs", _S, 3, b"NTFS    "), ("exfat", _S, 3, b"EXFAT   "),
    ("vfat", _S, 54, b"FAT12   "), ("vfat", _S, 54, b"FAT16   "), ("vfat", _S, 82, b"FAT32   "),
    ("apfs", _S, 32, b"NXSB"), ("hfsplus", _S, 0x400, b"H+"), ("hfsplus", _S, 0x400, b"HX"),
    ("bcachefs", _S, 0x1018, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
    ("udf", _S, 0x8001, b"BEA01"),
    ("iso9660", _R, 0x8001, b"CD001"), ("squashfs", _R, 0, b"hsqs"),
    ("erofs", _R, 0x400, b"\xe2\xe1\xf5\xe0"),
    ("crypto_LUKS", Use.ENCRYPTED, 0, b"LUKS\xba\xbe"),
    ("crypto_LUKS", Use.ENCRYPTED, 0x4000, b"SKUL\xba\xbe"),
    ("BitLocker", Use.ENCRYPTED, 3, b"-FVE-FS-"),
    ("linux_raid_member", _M, 0, b"\xfc\x4e\x2b\xa9"), ("linux_raid_member", _M, 0x1000, b"\xfc\x4e\x2b\xa9"),
    ("bcache", _M, 0x1018, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    ("ceph_bluestore", _M, 0, b"bluestore block device"), ("vdo", _M, 0, b"dmvdo001"),
    ("stratis", _M, 0x204, b"!Stra0tis\x86\xff\x02"),
    ("gpt", Use.PARTITIONS, 512, b"EFI PART"), ("gpt", Use.PARTITIONS, 4096, b"EFI PART"),
    ("qcow2", Use.IMAGE, 0, b"QFI\xfb"),
)  # fmt: skip
_SWAPS = (b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND")
_PAGES = (4096, 8192, 16384, 65536)
"""Sizes of a page of memory: swap's mark stands at the end of the first."""
_MD_END = b"\xfc\x4e\x2b\xa9"
_ZFS = (b"\x0c\xb1\xba\x00\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\xba\xb1\x0c")
_DRBD = (b"\x83\x74\x02\x6b", b"\x83\x74\x02\x6c", b"\x83\x74\x02\x6d")


def parts_read(size_bytes: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(offset, length) of what `identify` wants of something this large: its head and its tail."""
    tail = max(0, size_bytes // 4096 * 4096 - TAIL_BYTES)
    return (0, min(HEAD_BYTES, size_bytes)), (tail, size_bytes - tail)


def identify(size_bytes: int, head: bytes, tail: bytes) -> tuple[Signature, ...]:
    """Every kind that has left its mark, in the order of the table; none: it is empty, or not known.

    Args:
        head, tail: the bytes of `parts_read`."""
    found = [
        Signature(kind, use, offset)
        for kind, use, offset, magic in _MAGICS
        if head[offset : offset + len(magic)] == magic
    ]
    for page in _PAGES:
        if head[page - 10 : page].startswith(_SWAPS):
            found.append(Signature("swap", Use.SWAP, page - 10))
    for sector in range(4):
        at = sector * 512
        if head[at : at + 8] == b"LABELONE" and head[at + 24 : at + 28] == b"LVM2":
            found.append(Signature("LVM2_member", Use.MEMBER, at))
    uberblocks = range(128 << 10, min(len(head), HEAD_BYTES) - 7, 1024)
    zfs = next((at for at in uberblocks if head[at : at + 8] in _ZFS), None)
    if zfs is not None:
        found.append(Signature("zfs_member", Use.MEMBER, zfs))
    found += _at_end(size_bytes, tail)
    if _is_mbr(head) and not any(one.kind in ("vfat", "ntfs", "exfat", "BitLocker") for one in found):
        found.append(Signature("dos", Use.PARTITIONS, 510))
    return tuple({one.kind: one for one in reversed(found)}.values())[::-1]


def _at_end(size_bytes: int, tail: bytes) -> list[Signature]:
    """Metadata that stands before the end of a disk: md 0.90 and 1.0, DRBD's internal."""
    start = size_bytes - len(tail)
    found = []
    for at in (size_bytes // 65536 * 65536 - 65536, (size_bytes // 512 - 16) // 8 * 8 * 512):
        if at >= start and tail[at - start : at - start + 4] == _MD_END:
            found.append(Signature("linux_raid_member", Use.MEMBER, at))
    at = size_bytes // 4096 * 4096 - 4096 + 60
    if at >= start and tail[at - start : at - start + 4] in _DRBD:
        found.append(Signature("drbd", Use.MEMBER, at))
    return found


def _is_mbr(head: bytes) -> bool:
    """A boot sector's mark alone is also that of file systems: the table's entries must make sense."""
    flags = [head[446 + 16 * number : 447 + 16 * number] for number in range(4)]
    return head[510:512] == b"\x55\xaa" and all(flag in (b"\0", b"\x80") for flag in flags)


_BLKID_USES = {
    "filesystem": Use.SINGLE_HOST, "crypto": Use.ENCRYPTED, "raid": Use.MEMBER, "other": Use.SWAP,
}  # fmt: skip
_BLKID_KINDS = {
    "gfs": Use.CLUSTER, "gfs2": Use.CLUSTER, "ocfs": Use.CLUSTER, "ocfs2": Use.CLUSTER,
    "oracleasm": Use.CLUSTER, "VMFS": Use.CLUSTER, "VMFS_volume_member": Use.CLUSTER,
    "iso9660": Use.READ_ONLY, "squashfs": Use.READ_ONLY, "squashfs3": Use.READ_ONLY, "erofs": Use.READ_ONLY,
    "cramfs": Use.READ_ONLY, "romfs": Use.READ_ONLY,
}  # fmt: skip


def read_blkid(output: str) -> tuple[Signature, ...]:
    """What `blkid -p -o export` says of one device: KEY=value, one a line.

    Whatever it calls by a name that is not known here counts as one host's alone."""
    said = dict(line.partition("=")[::2] for line in output.splitlines() if "=" in line)
    found = []
    if "TYPE" in said:
        kind = said["TYPE"]
        use = _BLKID_KINDS.get(kind) or _BLKID_USES.get(said.get("USAGE", ""), Use.SINGLE_HOST)
        found.append(Signature(kind, use))
    if "PTTYPE" in said:
        found.append(Signature(said["PTTYPE"], Use.PARTITIONS))
    return tuple(found)
