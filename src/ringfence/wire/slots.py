"""Disk slots: what nodes say to one another through a disk of a shared VG.

A small LV of the VG, made for nothing else, is an array of blocks of 4096 bytes:

    block 0             header: which VG these slots belong to, and to which node id they reach
    block 2 n - 1       node n's own block: only node n writes it (its life, a counter, a clean end)
    block 2 n           node n's mark: only others write it (the life of node n that was given up for fenced)

Each block is whole sectors of 512 and of 4096 bytes, so that no two writers ever share a sector:

    +0    8  "RFSLHEAD", "RFSLLIFE" or "RFSLMARK"
    +8    4  version of the format, 1
    +12   4  CRC-32 (zlib's) of the bytes +16..+4095
    +16   4  number of the block; so that one that was written to another place is found out
    +20   4  length of the body
    +24      the body: a MessagePack map; zeros after it

A block of nothing but zeros was never written.  A write that was torn (its host lost power in the middle)
leaves a block that fails its CRC: it is damaged, and says nothing.  A mark that says nothing is *not* the
absence of a mark: whoever reads it has no authority by it.  After a crash at each step of

    making the LV:      zeros first, the header last: without a header nobody uses the slots
    an own block:       the old one, the new one, or a damaged one (nobody can tell whether its node is alive)
    a mark:             the old one, the new one, or a damaged one, which takes authority away as a mark does

All numbers are little-endian.  Source: Disk Paxos (Gafni and Lamport, 2003) and sanlock's delta leases for
one writer a block; o2hb_disk_heartbeat_block in Linux fs/ocfs2/cluster/ocfs2_heartbeat.h for a generation in
it; what is new is the second block, in which others say that they have given a life up."""

import struct
import zlib

import msgspec

from ringfence.core.errors import Damaged, Refused
from ringfence.core.ids import Epoch, Life

BLOCK_BYTES = 4096
VERSION = 1
LEAST_NODES = 8
"""So many node ids have room wherever slots are made."""

_FRAME = struct.Struct("<8sIIII")
_CRC_FROM = 16
_ZEROS = bytes(BLOCK_BYTES)


class Header(msgspec.Struct, frozen=True):
    """Block 0, written last when the slots are made."""

    cluster: str
    vg_uuid: str
    """With dashes."""
    nodes: int
    """The highest node id that has room."""
    lv_uuid: str
    """With dashes: slots that were made anew are others, with other marks."""


class Own(msgspec.Struct, frozen=True):
    """What a node says of itself, again and again while it has the VG started."""

    life: Life
    counter: int
    """Grows with each write of this life."""
    clean: bool = False
    """The last word: this life has stopped the VG, and none of its volumes is open."""
    wall_ms: int = 0
    """The writer's wall clock; for people, never compared."""


class Mark(msgspec.Struct, frozen=True):
    """What others say of a node: this life is given up for fenced.  Never cleared, only replaced."""

    life: Life
    """Unknown: every life that was let in before `epoch`."""
    epoch: Epoch
    """Since which the life is a victim, in the order of whoever wrote this."""
    cut: bool
    """Its power was said to be cut: whoever lives to read this has found out a lie."""
    by: int
    """The node that wrote it."""

    def hits(self, life: Life, admitted: Epoch) -> bool:
        """Whether this mark means that `life` was given up.

        Args:
            admitted: the first epoch in which `life` was a ready member; the lowest if it never was.

        (Without the rule for unknown lives the safety model finds two writers in 18 steps.)"""
        if self.life.node != life.node:
            return False
        if self.life.unknown:
            return admitted < self.epoch
        # (A later incarnation was let in by those who know what became of this one.)
        return self.life.same_boot(life) and life.incarnation <= self.life.incarnation


Block = Header | Own | Mark
_KINDS: dict[type, bytes] = {Header: b"RFSLHEAD", Own: b"RFSLLIFE", Mark: b"RFSLMARK"}


def own_offset(node: int) -> int:
    """Where a node's own block begins, in bytes from the start of the LV."""
    return (2 * node - 1) * BLOCK_BYTES


def mark_offset(node: int) -> int:
    """Where the mark of a node begins."""
    return 2 * node * BLOCK_BYTES


def size_bytes(nodes: int) -> int:
    """What slots for node ids up to `nodes` take."""
    return (1 + 2 * nodes) * BLOCK_BYTES


def nodes_in(lv_bytes: int) -> int:
    """The highest node id that has room in an LV of that size."""
    return max(0, (lv_bytes // BLOCK_BYTES - 1) // 2)


def check_room(header: Header, node: int, vg: str) -> None:
    """Raises Refused for a node id that these slots have no room for."""
    if not 1 <= node <= header.nodes:
        raise Refused(
            f"the disk slots of VG {vg} have room for node ids 1 to {header.nodes}, not for {node}",
            next="give the node a lower id; without its slot the VG works, but protects it less",
        )


def print_block(block: Block, offset_bytes: int) -> bytes:
    """The block's 4096 bytes, for this place."""
    body = msgspec.msgpack.encode(block)
    assert offset_bytes % BLOCK_BYTES == 0
    assert _FRAME.size + len(body) <= BLOCK_BYTES
    number = offset_bytes // BLOCK_BYTES
    rest = struct.pack("<II", number, len(body)) + body
    rest = rest.ljust(BLOCK_BYTES - _CRC_FROM, b"\0")
    return struct.pack("<8sII", _KINDS[type(block)], VERSION, zlib.crc32(rest)) + rest


def parse_header(data: bytes, where: str) -> Header | None:
    """None: there are no slots here (yet).  Raises Damaged."""
    block = _parse(data, 0, Header, where)
    assert block is None or isinstance(block, Header)
    return block


def parse_own(data: bytes, node: int, where: str) -> Own | None:
    """None: the node never wrote it.  Raises Damaged."""
    block = _parse(data, own_offset(node), Own, where)
    assert block is None or isinstance(block, Own)
    if block is not None and block.life.node != node:
        raise Damaged(f"{where}: the slot of node {node} tells of node {block.life.node}")
    return block


def parse_mark(data: bytes, node: int, where: str) -> Mark | None:
    """None: the node was never marked.  Raises Damaged: that is as little authority as a mark."""
    block = _parse(data, mark_offset(node), Mark, where)
    assert block is None or isinstance(block, Mark)
    if block is not None and block.life.node != node:
        raise Damaged(f"{where}: the mark of node {node} tells of node {block.life.node}")
    return block


def _parse(data: bytes, offset_bytes: int, kind: type, where: str) -> Block | None:
    number = offset_bytes // BLOCK_BYTES
    if len(data) != BLOCK_BYTES:
        raise Damaged(f"{where}: slot block {number} was read in part only")
    if data == _ZEROS:
        return None
    magic, version, crc, place, length = _FRAME.unpack_from(data)
    if magic != _KINDS[kind]:
        raise Damaged(f"{where}: slot block {number} is none of that kind")
    if zlib.crc32(data[_CRC_FROM:]) != crc:
        raise Damaged(f"{where}: slot block {number} has a wrong checksum: its write was torn")
    if version != VERSION:
        raise Damaged(f"{where}: slot block {number} has version {version} of the format, which is not known")
    if place != number or _FRAME.size + length > BLOCK_BYTES:
        raise Damaged(f"{where}: slot block {number} was written for block {place}")
    try:
        block: Block = msgspec.msgpack.decode(data[_FRAME.size : _FRAME.size + length], type=kind)
    except msgspec.MsgspecError as error:
        raise Damaged(f"{where}: slot block {number} cannot be read: {error}") from None
    return block
