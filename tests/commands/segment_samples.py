"""For every segment type of LVM2 2.03: the LVs that stock LVM2 makes for it, with made-up names and places.

Most need device-mapper to be made; where there is none, `vgcfgrestore` puts their text on disks.  What an LV
takes of PVs is dealt out here, so any of the samples can stand in one VG together."""

import re
from collections.abc import Callable, Sequence

from ringfence.lvm2.text import Section, Value

Items = list[tuple[str, Value | Section]]

_RMETA_EXTENTS = 1


class Deal:
    """Deals out extents of the PVs, and collects LVs."""

    def __init__(self, next: Sequence[int] = (0, 0)) -> None:
        self._next = list(next)
        """By PV: the first extent that is not taken."""
        self.lvs: dict[str, Section] = {}
        self.historical: dict[str, Section] = {}

    def take(self, count: int, pv: int = 0) -> tuple[str, int]:
        start = self._next[pv]
        self._next[pv] += count
        return f"pv{pv}", start

    def lv(
        self,
        name: str,
        *segments: Items,
        visible: bool = True,
        status: tuple[str, ...] = (),
        flags: tuple[str, ...] = (),
        write: bool = True,
        locked: bool = True,
    ) -> str:
        """Add an LV.

        status, flags: beside READ, VISIBLE and WRITE_LOCKED.  locked: it has a lock of its own."""
        start, sections = 0, []
        for number, items in enumerate(segments, 1):
            (_, count), *rest = items
            assert isinstance(count, int)
            lead = (("start_extent", start), ("extent_count", count))
            sections.append((f"segment{number}", Section((*lead, *rest))))
            start += count
        words = ("READ", *(("VISIBLE",) if visible else ()), *status)
        self.lvs[name] = Section((
            ("id", uuid_of(name)),
            ("status", words),
            ("flags", (*(("WRITE_LOCKED",) if write else ()), *flags)),
            ("creation_time", 1_700_000_000),
            ("creation_host", "an-a01n01"),
            *((("lock_args", "dlm"),) if visible and locked else ()),
            ("segment_count", len(sections)),
            *sections,
        ))  # fmt: skip
        return name

    def plain(self, name: str, count: int, pv: int = 0, **options: object) -> str:
        return self.lv(name, striped(count, self.take(count, pv)), **options)  # type: ignore[arg-type]

    def hidden(self, name: str, count: int, pv: int = 0, **options: object) -> str:
        return self.plain(name, count, pv, visible=False, **options)


def uuid_of(name: str) -> str:
    bare = re.sub(r"[^a-zA-Z0-9]", "", name.replace("_", "Z"))
    text = (bare + "x" * 32)[:32]
    return "-".join(text[a:b] for a, b in ((0, 6), (6, 10), (10, 14), (14, 18), (18, 22), (22, 26), (26, 32)))


def segment(count: int, kind: str, *items: tuple[str, Value | Section]) -> Items:
    return [("extent_count", count), ("type", kind), *items]


def striped(count: int, *areas: tuple[str, int], kind: str = "striped") -> Items:
    stripes = tuple(word for area in areas for word in area)
    size = (("stripe_size", 128),) if len(areas) > 1 else ()
    return segment(count, kind, ("stripe_count", len(areas)), *size, ("stripes", stripes))


# -- the samples -----------------------------------------------------------------


def linear(deal: Deal) -> None:
    deal.lv("lin", striped(3, deal.take(3)), striped(2, deal.take(2, 1)), striped(1, deal.take(1)))
    deal.plain("lin_ro", 1, write=False)
    deal.plain("lin_skip", 1, flags=("ACTIVATION_SKIP",))


def stripes(deal: Deal) -> None:
    deal.lv("str", striped(6, deal.take(3), deal.take(3, 1)))


def mirror_disk_log(deal: Deal) -> None:
    images = [deal.hidden(f"mir_mimage_{n}", 3, n) for n in (0, 1)]
    log = deal.hidden("mir_mlog", 1)
    deal.lv("mir", mirror(3, images, ("mirror_log", log)))


def mirror(count: int, images: list[str], *more: tuple[str, Value]) -> Items:
    words = tuple(word for name in images for word in (name, 0))
    return segment(
        count, "mirror", ("mirror_count", len(images)), *more, ("region_size", 1024), ("mirrors", words)
    )


def mirror_core_log(deal: Deal) -> None:
    deal.lv("mcl", mirror(2, [deal.hidden(f"mcl_mimage_{n}", 2, n) for n in (0, 1)]), status=("NOTSYNCED",))


def mirror_growing(deal: Deal) -> None:
    """A third image is being copied: lvconvert -m2."""
    first = deal.lv(
        "mgr_mimagetmp_2",
        mirror(2, [deal.hidden(f"mgr_mimage_{n}", 2, n) for n in (0, 1)]),
        visible=False,
    )
    third = deal.hidden("mgr_mimage_2", 2)
    deal.lv("mgr", mirror(2, [first, third]))


def pvmove(deal: Deal) -> None:
    old, new = deal.take(2), deal.take(2, 1)
    words: Value = (*old, *new)
    move = segment(
        2, "mirror", ("mirror_count", 2), ("extents_moved", 0), ("region_size", 1024), ("mirrors", words)
    )
    deal.lv("pvmove0", move, visible=False, status=("PVMOVE", "LOCKED"))
    deal.lv("moving", striped(2, ("pvmove0", 0)), status=("LOCKED",))


def snapshot(deal: Deal) -> None:
    deal.plain("org", 4)
    for number, (key, name) in enumerate((("cow_store", "snap"), ("cow_store", "snap_two"))):
        deal.hidden(name, 2)
        deal.lv(
            f"snapshot{number}",
            segment(4, "snapshot", ("chunk_size", 8), ("origin", "org"), (key, name)),
            locked=False,
        )


def snapshot_merging(deal: Deal) -> None:
    deal.plain("morg", 4)
    deal.hidden("msnap", 2)
    store = (("chunk_size", 8), ("origin", "morg"), ("merging_store", "msnap"))
    deal.lv("snapshot7", segment(4, "snapshot", *store), visible=False)


def sparse(deal: Deal) -> None:
    """lvcreate -s -V: the origin is zeros."""
    deal.lv("spa_vorigin", segment(40, "zero"), visible=False)
    deal.hidden("spa", 2)
    store = (("chunk_size", 8), ("origin", "spa_vorigin"), ("cow_store", "spa"))
    deal.lv("snapshot8", segment(40, "snapshot", *store), locked=False)


def raid(
    deal: Deal,
    name: str,
    kind: str,
    count: int,
    images: int,
    each: int,
    *more: tuple[str, Value],
    meta: bool = True,
    flags: str = "",
    reshape: int = 0,
) -> None:
    raid0 = kind.startswith("raid0")
    words: list[str] = []
    for number in range(images):
        if meta:
            words.append(deal.hidden(f"{name}_rmeta_{number}", _RMETA_EXTENTS, number % 2))
        words.append(deal.hidden(f"{name}_rimage_{number}", each, number % 2))
    counted = "stripe_count" if raid0 else "device_count"
    listed = "raid0_lvs" if kind == "raid0" else "raids"
    items = segment(count, kind + flags, (counted, images), *more, (listed, tuple(words)))
    if reshape:
        items.insert(1, ("reshape_count", reshape))
    deal.lv(name, items)


REGION = ("region_size", 1024)
STRIPE = ("stripe_size", 128)


def raid0(deal: Deal) -> None:
    raid(deal, "r0", "raid0", 4, 2, 2, STRIPE, meta=False)


def raid0_meta(deal: Deal) -> None:
    raid(deal, "r0m", "raid0_meta", 4, 2, 2, STRIPE)


def raid1(deal: Deal) -> None:
    raid(deal, "r1", "raid1", 2, 3, 2, REGION, ("writebehind", 256), ("min_recovery_rate", 128))
    image = deal.lvs["r1_rimage_2"]
    deal.lvs["r1_rimage_2"] = image.put("status", ("READ", "WRITEMOSTLY"))
    raid(deal, "r1n", "raid1", 2, 2, 2, REGION)
    deal.lvs["r1n"] = deal.lvs["r1n"].put("status", ("READ", "VISIBLE", "NOTSYNCED"))


def raid1_tracked(deal: Deal) -> None:
    """lvconvert --splitmirrors 1 --trackchanges: an image stands for itself, read-only."""
    raid(deal, "r1t", "raid1", 2, 2, 2, REGION)
    image = deal.lvs["r1t_rimage_1"]
    deal.lvs["r1t_rimage_1"] = image.put("status", ("READ", "VISIBLE")).put("flags", ())


def raid4(deal: Deal) -> None:
    raid(deal, "r4", "raid4", 4, 3, 2, REGION, STRIPE)


def raid5(deal: Deal) -> None:
    for number, kind in enumerate(("raid5", "raid5_ls", "raid5_la", "raid5_rs", "raid5_ra", "raid5_n")):
        raid(deal, f"r5{number}", kind, 4, 3, 2, REGION, STRIPE)


def raid5_reshaping(deal: Deal) -> None:
    """lvconvert --stripes 3: one more image, room for the move in front of the data."""
    more = (REGION, STRIPE, ("data_offset", 2048))
    raid(
        deal, "r5r", "raid5_ls", 9, 4, 4, *more,
        flags="+RESHAPE+RESHAPE_DATA_OFFSET+RESHAPE_DELTA_DISKS_PLUS", reshape=1,
    )  # fmt: skip


def raid6(deal: Deal) -> None:
    kinds = (
        "raid6", "raid6_zr", "raid6_nr", "raid6_nc", "raid6_n_6", "raid6_ls_6", "raid6_rs_6", "raid6_la_6",
        "raid6_ra_6",
    )  # fmt: skip
    for number, kind in enumerate(kinds):
        raid(deal, f"r6{number}", kind, 3, 5, 1, REGION, STRIPE)


def raid10(deal: Deal) -> None:
    raid(deal, "r10", "raid10", 4, 4, 2, ("data_copies", 2), REGION, STRIPE)


def thin(deal: Deal) -> None:
    deal.hidden("lvol0_pmspare", 1)
    deal.plain("ext", 2, write=False)
    deal.hidden("tp_tdata", 4)
    deal.hidden("tp_tmeta", 1, 1)
    message = Section((("create", "thin_new"),))
    deal.lv(
        "tp",
        segment(
            4, "thin-pool", ("metadata", "tp_tmeta"), ("pool", "tp_tdata"), ("transaction_id", 5),
            ("chunk_size", 128), ("discards", "passdown"), ("zero_new_blocks", 1), ("message1", message),
        ),
    )  # fmt: skip

    def volume(name: str, device: int, *more: tuple[str, Value], flags: tuple[str, ...] = ()) -> None:
        items = segment(
            8, "thin", ("thin_pool", "tp"), ("transaction_id", device), ("device_id", device), *more
        )
        deal.lv(name, items, flags=flags, locked=False)

    volume("thin1", 1)
    volume("thin_snap", 2, ("origin", "thin1"), flags=("ACTIVATION_SKIP",))
    volume("thin_ext", 3, ("external_origin", "ext"))
    volume("thin_new", 4)


def thin_merging(deal: Deal) -> None:
    deal.hidden("tm_tdata", 4)
    deal.hidden("tm_tmeta", 1, 1)
    pool = (
        ("metadata", "tm_tmeta"), ("pool", "tm_tdata"), ("transaction_id", 3), ("chunk_size", 256),
        ("discards", "nopassdown"), ("crop_metadata", 1),
    )  # fmt: skip
    deal.lv("tm", segment(4, "thin-pool+CROP_METADATA", *pool), flags=("ERROR_WHEN_FULL",))
    volume = (("thin_pool", "tm"), ("transaction_id", 1))
    deal.lv("tmorg", segment(4, "thin", *volume, ("device_id", 1)), locked=False)
    snap = (*volume, ("device_id", 2), ("origin", "tmorg"), ("merge", "tmorg"))
    deal.lv("tmsnap", segment(4, "thin", *snap), visible=False)


CACHE = (("chunk_size", 128), ("cache_mode", "writethrough"), ("policy", "smq"))


def cache(deal: Deal) -> None:
    for name in ("cp_free", "cp_cpool"):
        deal.hidden(f"{name}_cdata", 2)
        deal.hidden(f"{name}_cmeta", 1, 1)
        settings = Section((("migration_threshold", 2048),))
        pool = (("data", f"{name}_cdata"), ("metadata", f"{name}_cmeta"), ("metadata_format", 2))
        deal.lv(
            name,
            segment(2, "cache-pool+METADATA_FORMAT", *pool, *CACHE, ("policy_settings", settings)),
            visible=name == "cp_free",
            locked=False,
        )
    deal.hidden("cac_corig", 6)
    deal.lv("cac", segment(6, "cache", ("cache_pool", "cp_cpool"), ("origin", "cac_corig")))


def cache_volume(deal: Deal) -> None:
    deal.hidden("cvf_cvol", 2, 1, flags=("CACHE_VOL",))
    deal.hidden("cv_corig", 6)
    places = (("metadata_format", 2), ("metadata_start", 0), ("metadata_len", 8192))
    data = (("data_start", 8192), ("data_len", 8192))
    items = segment(
        6,
        "cache+CACHE_USES_CACHEVOL",
        ("cache_pool", "cvf_cvol"),
        ("origin", "cv_corig"),
        *CACHE,
        *places,
        *data,
    )
    deal.lv("cv", items)


def writecache(deal: Deal) -> None:
    deal.hidden("wcf_cvol", 2, 1, flags=("CACHE_VOL",))
    deal.hidden("wc_wcorig", 4)
    items = (("writecache", "wcf_cvol"), ("origin", "wc_wcorig"), ("writecache_block_size", 4096))
    deal.lv("wc", segment(4, "writecache", *items, ("high_watermark", 50), ("low_watermark", 40)))


def integrity(deal: Deal) -> None:
    """A raid1 whose images check themselves: lvconvert --raidintegrity y."""
    raid(deal, "ri", "raid1", 2, 2, 2, REGION)
    for number in (0, 1):
        image = deal.lvs.pop(f"ri_rimage_{number}")
        deal.lvs[f"ri_rimage_{number}_iorig"] = image.put("id", uuid_of(f"ri_rimage_{number}_iorig"))
        deal.hidden(f"ri_rimage_{number}_imeta", 1, number)
        items = (
            ("origin", f"ri_rimage_{number}_iorig"), ("data_sectors", 4096), ("mode", "J"), ("tag_size", 4),
            ("block_size", 512), ("internal_hash", "crc32c"), ("meta_dev", f"ri_rimage_{number}_imeta"),
            ("recalculate", 1),
        )  # fmt: skip
        deal.lv(f"ri_rimage_{number}", segment(2, "integrity", *items), visible=False)


def vdo(deal: Deal) -> None:
    deal.hidden("vp_vdata", 8)
    pool = segment(
        8, "vdo-pool", ("data", "vp_vdata"), ("header_size", 1024), ("virtual_extents", 20),
        ("use_compression", 1), ("use_deduplication", 1), ("use_metadata_hints", 1),
        ("minimum_io_size", 4096),
        ("block_map_cache_size_mb", 128), ("block_map_era_length", 16380), ("index_memory_size_mb", 256),
        ("max_discard", 1), ("slab_size_mb", 2048), ("ack_threads", 1), ("bio_threads", 4),
        ("bio_rotation", 64), ("cpu_threads", 2), ("hash_zone_threads", 1), ("logical_threads", 1),
        ("physical_threads", 1),
    )  # fmt: skip
    deal.lv("vp", pool, visible=False)
    deal.lv("vd", segment(20, "vdo", ("vdo_pool", "vp"), ("vdo_offset", 0)), locked=False)


def virtual(deal: Deal) -> None:
    deal.lv("zer", segment(5, "zero"))
    deal.lv("err", segment(2, "error"), striped(1, deal.take(1)))


def of_tomorrow(deal: Deal) -> None:
    """A type, keys and sections that nobody has heard of."""
    device, start = deal.take(2)
    deeper = Section((("speed", 3), ("words", ("a", "b"))))
    deal.lv("fut", segment(2, "of_tomorrow", ("things", (device, start)), ("deeper", deeper)))


def stacked(deal: Deal) -> None:
    """A thin pool on RAID, with a cached origin."""
    raid(deal, "st_tdata", "raid1", 4, 2, 4, REGION)
    raid(deal, "st_tmeta", "raid1", 1, 2, 1, REGION)
    for name in ("st_tdata", "st_tmeta"):
        lv = deal.lvs[name].put("status", ("READ",)).drop("lock_args")
        deal.lvs[name] = lv
    pool = (
        ("metadata", "st_tmeta"), ("pool", "st_tdata"), ("transaction_id", 1), ("chunk_size", 128),
        ("discards", "ignore"),
    )  # fmt: skip
    deal.lv("st", segment(4, "thin-pool", *pool))
    volume = (("thin_pool", "st"), ("transaction_id", 0), ("device_id", 1))
    deal.lv("st1", segment(8, "thin", *volume), locked=False)
    deal.plain("st_org", 3)
    deal.hidden("st_cow", 1)
    store = (("chunk_size", 8), ("origin", "st_org"), ("cow_store", "st_cow"))
    deal.lv("snapshot9", segment(3, "snapshot", *store), locked=False)


def historical(deal: Deal) -> None:
    """Removed thin LVs that others descend from (metadata/record_lvs_history)."""
    deal.hidden("hi_tdata", 2)
    deal.hidden("hi_tmeta", 1)
    pool = (
        ("metadata", "hi_tmeta"), ("pool", "hi_tdata"), ("transaction_id", 4), ("chunk_size", 128),
        ("discards", "passdown"),
    )  # fmt: skip
    deal.lv("hi", segment(2, "thin-pool", *pool))
    volume = (("thin_pool", "hi"), ("transaction_id", 3), ("device_id", 3))
    deal.lv("hi_now", segment(2, "thin", *volume), locked=False)
    deal.historical["hi_first"] = Section((
        ("id", uuid_of("hi_first")), ("creation_time", 1_600_000_000), ("removal_time", 1_600_000_100),
        ("origin", "-hi_before"), ("descendants", ("hi_now",)),
    ))  # fmt: skip
    deal.historical["hi_before"] = Section((
        ("id", uuid_of("hi_before")), ("creation_time", 1_500_000_000), ("removal_time", 1_600_000_050),
    ))  # fmt: skip


SAMPLES: dict[str, Callable[[Deal], None]] = {
    "linear": linear,
    "striped": stripes,
    "mirror, disk log": mirror_disk_log,
    "mirror, core log": mirror_core_log,
    "mirror, growing": mirror_growing,
    "pvmove": pvmove,
    "snapshot": snapshot,
    "snapshot, merging": snapshot_merging,
    "snapshot of zeros": sparse,
    "raid0": raid0,
    "raid0_meta": raid0_meta,
    "raid1": raid1,
    "raid1, tracked split": raid1_tracked,
    "raid4": raid4,
    "raid5": raid5,
    "raid5, reshaping": raid5_reshaping,
    "raid6": raid6,
    "raid10": raid10,
    "thin": thin,
    "thin, merging": thin_merging,
    "cache, cache-pool": cache,
    "cache volume": cache_volume,
    "writecache": writecache,
    "integrity": integrity,
    "vdo, vdo-pool": vdo,
    "zero, error": virtual,
    "unknown": of_tomorrow,
    "stacked": stacked,
    "historical": historical,
}
