"""A segment of an LV: which extents of PVs it takes, and which other LVs it is made of.

Only three types name extents of PVs: `striped` (which is linear with one area), `linear` and `mirror`.  All
others lie on LVs of their own, hidden ones mostly, whose segments are in the same text.  So what is taken is
known exactly for every type that LVM2 2.03 writes:

    striped, linear     stripes = [PV or LV, first extent, ...]: extent_count / stripe_count of each
    mirror              mirrors = [PV or LV, first extent, ...]: extent_count of each; mirror_log
    raid0               raid0_lvs = [image, ...]
    raid0_meta .. raid10  raids = [metadata, image, ...]; metadata may be missing (a raid1's split-off images)
    snapshot            origin; cow_store or, while it merges, merging_store
    thin-pool           pool (data), metadata; messages create = LV
    thin                thin_pool; origin, external_origin, merge
    cache-pool          data, metadata
    cache               cache_pool (or a cache volume), origin
    writecache          origin, writecache
    integrity           origin, meta_dev
    vdo-pool            data
    vdo                 vdo_pool, vdo_offset
    zero, error         nothing

Parity, copies, region sizes, chunks and the room of a reshape (`reshape_count`, `data_offset`) change how
long the images are, never what the segment itself takes.  A type may bear flags, as in `raid5+RESHAPE`; one
that is not known makes another type of it.  A type that is not known takes `extent_count` extents behind
every (PV, number) pair that it lists, and any word in it may be an LV: that can only be too much.

Source: LVM2 lib/format_text/import_vsn1.c (_read_segment, text_import_areas), flags.c (read_lvflags), and
text_import in lib/{striped,mirror,raid,snapshot,thin,cache_segtype,writecache,integrity,vdo,zero,error}."""

import enum
from collections.abc import Callable, Iterator
from itertools import pairwise

import msgspec

from ringfence.core.errors import Damaged
from ringfence.lvm2.text import Section


class Role(enum.Enum):
    """What an LV is to the one that is made of it."""

    STRIPE = "stripe"
    MIRROR_IMAGE = "mirror image"
    MIRROR_LOG = "mirror log"
    RAID_IMAGE = "RAID image"
    RAID_META = "RAID metadata"
    ORIGIN = "origin"
    """A snapshot's."""
    COW = "snapshot store"
    POOL_DATA = "pool data"
    POOL_META = "pool metadata"
    THIN_POOL = "thin pool"
    THIN_ORIGIN = "thin origin"
    EXTERNAL_ORIGIN = "external origin"
    MERGE = "merge"
    """The thin LV that this thin snapshot is merged into."""
    MESSAGE = "message"
    """A thin LV that the pool is still to be told of."""
    CACHE_POOL = "cache pool"
    CACHE_ORIGIN = "cache origin"
    WRITECACHE = "writecache"
    WRITECACHE_ORIGIN = "writecache origin"
    INTEGRITY_ORIGIN = "integrity origin"
    INTEGRITY_META = "integrity metadata"
    VDO_DATA = "VDO pool data"
    VDO_POOL = "VDO pool"
    PERHAPS = "perhaps"
    """A word in a segment of a type that is not known."""


class Stripe(msgspec.Struct, frozen=True, gc=False):
    """Extents of one PV that a segment uses."""

    pv: str
    start_extent: int
    extent_count: int


class Part(msgspec.Struct, frozen=True, gc=False):
    """Another LV that a segment is made of."""

    lv: str
    role: Role
    start_extent: int = 0
    area: int = -1
    """Its number among the segment's areas; -1: it is none of them."""


_NOTHING = Section()


class Segment(msgspec.Struct, frozen=True, gc=False):
    start_extent: int
    extent_count: int
    kind: str
    """The type as written, known flags behind a `+` cut off."""
    stripes: tuple[Stripe, ...]
    exact: bool = True
    """False: the type is not known, and `stripes` may be too much."""
    parts: tuple[Part, ...] = ()
    flags: tuple[str, ...] = ()
    merging: bool = False
    """A snapshot on its way back into its origin."""
    body: Section = _NOTHING
    """All that was written of it, chunk sizes and the like; nothing for a plain piece of a PV."""
    stripe_sectors: int = 0
    """How much of the LV lies on one stripe before the next one's turn comes; 0: it has one alone."""

    @property
    def words(self) -> tuple[str, ...]:
        """Names that are, or may be, those of other LVs."""
        return tuple(part.lv for part in self.parts)

    @property
    def areas(self) -> "tuple[Stripe | Part, ...]":
        """PVs and LVs that share the segment's data, in their order; of a type that is not known, nothing."""
        if not self.exact:
            return ()
        areas: list[Stripe | Part] = list(self.stripes)
        for part in self.parts:
            if part.area >= 0:
                areas.insert(part.area, part)
        return tuple(areas)

    @property
    def type_name(self) -> str:
        """As reports show it."""
        one = self.kind == "striped" and len(self.stripes) + len(self.parts) == 1
        return "linear" if one else self.kind


FLAGS = (
    "RESHAPE", "RESHAPE_DATA_OFFSET", "RESHAPE_DELTA_DISKS_PLUS", "RESHAPE_DELTA_DISKS_MINUS",
    "REMOVE_AFTER_RESHAPE", "METADATA_FORMAT", "CROP_METADATA", "CACHE_USES_CACHEVOL",
)  # fmt: skip
"""What may stand behind a type."""

PARITY = {
    "raid0": 0, "raid0_meta": 0, "raid1": 0, "raid10": 0, "raid10_near": 0,
    "raid4": 1, "raid5": 1, "raid5_n": 1, "raid5_la": 1, "raid5_ls": 1, "raid5_ra": 1, "raid5_rs": 1,
    "raid6": 2, "raid6_n_6": 2, "raid6_nc": 2, "raid6_nr": 2, "raid6_zr": 2,
    "raid6_ls_6": 2, "raid6_rs_6": 2, "raid6_la_6": 2, "raid6_ra_6": 2,
}  # fmt: skip
"""Images that hold parity alone, by RAID type."""

_PLAIN = ("striped", "linear")


class _Raw(msgspec.Struct, frozen=True):
    """A segment as it is being read."""

    body: Section
    where: str
    pvs: frozenset[str]
    count: int
    kind: str

    def damaged(self, what: str) -> Damaged:
        return Damaged(f"{self.where}: {what}")

    def part(self, key: str, role: Role, area: int = -1, start_extent: int = 0) -> Part:
        name = self.body.string(key)
        if name is None:
            raise self.damaged(f"{self.kind} without {key}")
        return Part(name, role, start_extent, area)

    def may(self, key: str, role: Role) -> Iterator[Part]:
        if self.body.get(key) is not None:
            yield self.part(key, role)


_Taken = tuple[tuple[Stripe, ...], tuple[Part, ...]]


def read_segment(body: Section, where: str, pvs: frozenset[str]) -> Segment:
    """Read one segment.

    Args:
        where: names VG, LV and segment in messages.
        pvs: the VG's PVs, as the text calls them.

    Raises:
        Damaged: it does not say what it takes, or says it twice and differently."""
    start, count, kind = body.number("start_extent"), body.number("extent_count"), body.string("type")
    if start is None or start < 0 or count is None or count < 0:
        raise Damaged(f"{where}: start_extent or extent_count is missing or not a number")
    if kind is None:
        raise Damaged(f"{where}: type is missing or not a string")
    flags: tuple[str, ...] = ()
    if "+" in kind:
        name, *words = kind.split("+")
        if all(word in FLAGS for word in words):
            kind, flags = name, tuple(words)
    raw = _Raw(body, where, pvs, count, kind)
    read = _KINDS.get(kind)
    if read is None:
        return Segment(
            start, count, kind, tuple(_guessed(raw, body)), False, tuple(_perhaps(body)), flags, False, body
        )
    stripes, parts = read(raw)
    if kind in _PLAIN and len(stripes) == 1:
        return Segment(start, count, kind, stripes)  # thousands of these: the text has the rest
    merging = kind == "snapshot" and body.get("merging_store") is not None
    merging = merging or (kind == "thin" and body.get("merge") is not None)
    stripe_sectors = (body.number("stripe_size") or 0) if kind in _PLAIN else 0
    return Segment(start, count, kind, stripes, True, parts, flags, merging, body, stripe_sectors)


# -- areas ---------------------------------------------------------------------


def _striped(raw: _Raw) -> _Taken:
    count = _area_count(raw, "stripe_count")
    each = raw.count // count
    if each * count != raw.count:
        raise raw.damaged(f"{raw.count} extents cannot be shared by {count} stripes")
    if count > 1 and not raw.body.number("stripe_size"):
        raise raw.damaged(f"{count} stripes without stripe_size")
    return _areas(raw, "stripes", count, each, Role.STRIPE)


def _mirror(raw: _Raw) -> _Taken:
    count = _area_count(raw, "mirror_count")
    stripes, parts = _areas(raw, "mirrors", count, raw.count, Role.MIRROR_IMAGE)
    return stripes, (*parts, *raw.may("mirror_log", Role.MIRROR_LOG))


def _area_count(raw: _Raw, *keys: str) -> int:
    counts = [raw.body.number(key) for key in keys if raw.body.get(key) is not None]
    if len(counts) != 1 or counts[0] is None or counts[0] < 1:
        raise raw.damaged(f"{' or '.join(keys)} is missing or no number above 0")
    return counts[0]


def _areas(raw: _Raw, key: str, count: int, each: int, role: Role) -> _Taken:
    areas = raw.body.get(key)
    if not isinstance(areas, tuple) or len(areas) != 2 * count:
        raise raw.damaged(f"{key} does not list {count} devices and extents")
    stripes, parts = [], []
    for number in range(count):
        name, extent = areas[2 * number : 2 * number + 2]
        if not isinstance(name, str) or not isinstance(extent, int) or extent < 0:
            raise raw.damaged(f"{key} does not list devices and extents")
        if name in raw.pvs:
            stripes.append(Stripe(name, extent, each))
        else:
            parts.append(Part(name, role, extent, number))
    return tuple(stripes), tuple(parts)


def _raid(raw: _Raw) -> _Taken:
    count = _area_count(raw, "device_count", "stripe_count")
    if count <= PARITY[raw.kind]:
        raise raw.damaged(f"{count} images are too few for {raw.kind}")
    key = "raid0_lvs" if raw.kind == "raid0" else "raids"
    names = raw.body.strings(key)
    parts: list[Part] = []
    images = 0
    for name in names:
        if "_rmeta_" in name:
            parts.append(Part(name, Role.RAID_META))
        else:
            parts.append(Part(name, Role.RAID_IMAGE, 0, images))
            images += 1
    if images != count:
        raise raw.damaged(f"{key} lists {images} images, not {count}")
    return (), tuple(parts)


# -- layers --------------------------------------------------------------------


def _snapshot(raw: _Raw) -> _Taken:
    stores = [key for key in ("cow_store", "merging_store") if raw.body.get(key) is not None]
    if len(stores) != 1:
        raise raw.damaged("a snapshot has one of cow_store and merging_store")
    return (), (raw.part("origin", Role.ORIGIN), raw.part(stores[0], Role.COW))


def _thin_pool(raw: _Raw) -> _Taken:
    messages = [
        Part(name, Role.MESSAGE)
        for _, message in raw.body.sections()
        if (name := message.string("create")) is not None
    ]
    return (), (raw.part("pool", Role.POOL_DATA, 0), raw.part("metadata", Role.POOL_META), *messages)


def _thin(raw: _Raw) -> _Taken:
    return (), (
        raw.part("thin_pool", Role.THIN_POOL),
        *raw.may("origin", Role.THIN_ORIGIN),
        *raw.may("external_origin", Role.EXTERNAL_ORIGIN),
        *raw.may("merge", Role.MERGE),
    )


def _cache_pool(raw: _Raw) -> _Taken:
    return (), (raw.part("data", Role.POOL_DATA, 0), raw.part("metadata", Role.POOL_META))


def _cache(raw: _Raw) -> _Taken:
    return (), (raw.part("origin", Role.CACHE_ORIGIN, 0), raw.part("cache_pool", Role.CACHE_POOL))


def _writecache(raw: _Raw) -> _Taken:
    return (), (raw.part("origin", Role.WRITECACHE_ORIGIN, 0), raw.part("writecache", Role.WRITECACHE))


def _integrity(raw: _Raw) -> _Taken:
    origin = raw.part("origin", Role.INTEGRITY_ORIGIN, 0)
    return (), (origin, *raw.may("meta_dev", Role.INTEGRITY_META))


def _vdo_pool(raw: _Raw) -> _Taken:
    return (), (raw.part("data", Role.VDO_DATA, 0),)


def _vdo(raw: _Raw) -> _Taken:
    start = raw.body.number("vdo_offset")
    if start is None:
        raise raw.damaged("vdo without vdo_offset")
    return (), (raw.part("vdo_pool", Role.VDO_POOL, 0, start),)


def _nothing(raw: _Raw) -> _Taken:
    return (), ()


_KINDS: dict[str, Callable[[_Raw], _Taken]] = {
    **dict.fromkeys(_PLAIN, _striped),
    "mirror": _mirror,
    **dict.fromkeys(PARITY, _raid),
    "snapshot": _snapshot,
    "thin-pool": _thin_pool,
    "thin": _thin,
    "cache-pool": _cache_pool,
    "cache": _cache,
    "writecache": _writecache,
    "integrity": _integrity,
    "vdo-pool": _vdo_pool,
    "vdo": _vdo,
    "zero": _nothing,
    "error": _nothing,
}


# -- types that are not known ----------------------------------------------------


def _guessed(raw: _Raw, section: Section) -> Iterator[Stripe]:
    """Every (PV, number) pair in any list."""
    for _, node in section.items:
        if isinstance(node, Section):
            yield from _guessed(raw, node)
        elif isinstance(node, tuple):
            for device, extent in pairwise(node):
                if isinstance(device, str) and device in raw.pvs and isinstance(extent, int) and extent >= 0:
                    yield Stripe(device, extent, raw.count)


def _perhaps(section: Section) -> Iterator[Part]:
    for key, node in section.items:
        if isinstance(node, Section):
            yield from _perhaps(node)
        elif key not in ("type", "tags"):
            words = node if isinstance(node, tuple) else (node,)
            yield from (Part(word, Role.PERHAPS) for word in words if isinstance(word, str))
