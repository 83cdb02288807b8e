"""What changes from one version of a VG's text to the next, small enough to be told to everybody.

A host that knows the version before makes the new one of it, and believes that only if its text has the CRC
and the size which the writer wrote to the disks.  It is a view; whoever changes the VG reads the disks."""

from itertools import takewhile

from ringfence.core.errors import Damaged
from ringfence.lvm2.checksum import crc32
from ringfence.volumes.known import Known
from ringfence.volumes.model import Vg
from ringfence.volumes.parts import Lv
from ringfence.wire.entries import Splice, VgDelta

MOST_BYTES = 16 << 10
MOST_LVS = 16


def delta_between(before: Known, after: Known) -> VgDelta | None:
    """None: it would be too long to tell."""
    splices = _splices(before.vg, after.vg)
    head, tail = after.vg.ends
    size_bytes = len(head) + len(tail) + sum(len(lv) for one in splices for lv in one.lvs)
    lvs = sum(one.gone + len(one.lvs) for one in splices)
    if size_bytes > MOST_BYTES or lvs > MOST_LVS:
        return None
    return VgDelta(before.size_bytes, before.crc, after.size_bytes, head, tail, splices)


def _splices(before: Vg, after: Vg) -> tuple[Splice, ...]:
    """LVs are told from one another by their text, which has their uuid in it."""
    same = sum(1 for _ in takewhile(_alike, zip(before.lvs, after.lvs, strict=False)))
    old, new = before.lvs[same:], after.lvs[same:]
    tail = sum(1 for _ in takewhile(_alike, zip(reversed(old), reversed(new), strict=False)))
    places = {lv.text: at for at, lv in enumerate(old[: len(old) - tail], same)}
    splices: list[Splice] = []
    come: list[bytes] = []
    position = same
    for lv in new[: len(new) - tail]:
        at = places.get(lv.text, -1)
        if at < position:
            come.append(lv.text)
            continue
        if come or at > position:
            splices.append(Splice(position, at - position, tuple(come)))
            come = []
        position = at + 1
    end = len(before.lvs) - tail
    if come or position < end:
        splices.append(Splice(position, end - position, tuple(come)))
    return tuple(splices)


def _alike(pair: tuple[Lv, Lv]) -> bool:
    return pair[0] is pair[1] or pair[0].text == pair[1].text


def follow(known: Known, delta: VgDelta, seqno: int, crc: int) -> Known | None:
    """The version that a delta makes of the one before; None: it is not of this one, or does not fit it."""
    if (known.size_bytes, known.crc) != (delta.base_bytes, delta.base_crc):
        return None
    try:
        vg = known.vg.spliced(delta.head, delta.tail, [(one.at, one.gone, one.lvs) for one in delta.splices])
    except Damaged:
        return None
    text = vg.text
    if vg.seqno != seqno or len(text) != delta.size_bytes or crc32(text) != crc:
        return None
    return Known(vg, crc, delta.size_bytes)
