"""What a VG is made of: PVs and LVs (their segments: `volumes.segments`).

Values, as the metadata has them; `volumes.model` reads them, `volumes.index` keeps account of them."""

import msgspec

from ringfence.volumes.segments import Segment

SLOTS_TAG = "ringfence.slots"
ZEROING_TAG = "ringfence.zeroing"
"""Of a new LV that still shows what was on its extents before."""
WIPING_TAG = "ringfence.wiping"
"""Of a removed LV whose extents are still to be wiped."""
MOVING_TAG = "ringfence.moving."
"""Of an LV that keeps extents for another one that moves, whose uuid follows."""
_PLAIN = ("striped", "linear")


class Pv(msgspec.Struct, frozen=True, gc=False):
    name: str
    """Its name in the metadata: "pv0"."""
    uuid: str
    """With dashes, as everywhere in metadata."""
    device: str
    """Where it was when the metadata was written; a hint."""
    device_sectors: int
    start_sectors: int
    """Where extent 0 begins."""
    extent_count: int
    status: tuple[str, ...]
    flags: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def allocatable(self) -> bool:
        return "ALLOCATABLE" in self.status

    @property
    def missing(self) -> bool:
        return "MISSING" in self.flags or "MISSING" in self.status


class Lv(msgspec.Struct, frozen=True, gc=False):
    name: str
    uuid: str
    status: tuple[str, ...]
    flags: tuple[str, ...]
    tags: tuple[str, ...]
    lock_args: str
    creation_time_s: int
    creation_host: str
    segments: tuple[Segment, ...]
    policy: str = ""
    """Its own allocation policy; empty: it has none."""
    text: bytes = b""
    """Its section as it stands in the metadata text."""

    @property
    def extent_count(self) -> int:
        if len(self.segments) == 1:
            return self.segments[0].extent_count
        return sum(segment.extent_count for segment in self.segments)

    @property
    def visible(self) -> bool:
        return "VISIBLE" in self.status

    @property
    def writable(self) -> bool:
        return "WRITE" in self.status or "WRITE_LOCKED" in self.flags

    @property
    def slots(self) -> bool:
        """Holds the VG's disk slots (`volumes.slots`), and must be left alone."""
        return SLOTS_TAG in self.tags

    @property
    def zeroing(self) -> bool:
        """It may not be opened yet: others' data may stand in it (`volumes.unclean`)."""
        return ZEROING_TAG in self.tags

    @property
    def wiping(self) -> bool:
        """It is removed, and keeps its extents only until they are wiped (`volumes.unclean`)."""
        return WIPING_TAG in self.tags

    @property
    def unclean(self) -> bool:
        """It is being zeroed or wiped, and nobody may open it."""
        return self.zeroing or self.wiping

    @property
    def keeps_for(self) -> str:
        """The uuid of an LV that moves, if this one keeps extents for it (`volumes.moves`), and may not be
        opened; else empty."""
        return next((tag.removeprefix(MOVING_TAG) for tag in self.tags if tag.startswith(MOVING_TAG)), "")

    @property
    def linear(self) -> bool:
        """Made of plain pieces of PVs, one behind the other."""
        return all(
            segment.kind in ("striped", "linear") and len(segment.stripes) == 1 for segment in self.segments
        )

    @property
    def plain(self) -> bool:
        """Linear or striped, on PVs alone."""
        segments = self.segments
        return _is_plain(segments[0]) if len(segments) == 1 else all(map(_is_plain, segments))


def _is_plain(segment: Segment) -> bool:
    if segment.kind not in _PLAIN:
        return False
    if len(segment.stripes) == 1:
        return segment.stripes[0].extent_count == segment.extent_count
    extents = sum(stripe.extent_count for stripe in segment.stripes)
    return extents == segment.extent_count and segment.stripe_sectors > 0
