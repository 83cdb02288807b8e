"""What the LVs of a VG are to each other, and what follows from it: who is shown, what `lv_attr` says.

LVM2 tells an LV's kind by the segments that refer to it more than by its own: an image of a RAID is a plain
linear LV that a raid segment names.  Snapshots are upside down: LVM2 keeps, beside the LV with the user's
name that stores the changes, an LV `snapshotN` that no report shows, whose segment joins origin and store.

Source: LVM2 lib/metadata/lv.c (lv_attr_dup_with_info_and_seg_status, lv_pool_lv, lv_origin_lv),
snapshot_manip.c (lv_is_visible, init_snapshot_seg), and the lv_is_... of its headers, 2.03.16."""

from collections.abc import Container, Iterator

import msgspec

from ringfence.volumes.model import Vg
from ringfence.volumes.parts import Lv
from ringfence.volumes.segments import PARITY, Part, Role, Segment

_TEMPORARY_MIRROR = "_mimagetmp"
_SPARE = "_pmspare"
_METADATA = (Role.POOL_META, Role.RAID_META, Role.INTEGRITY_META)
_ORIGINS = (
    Role.THIN_ORIGIN, Role.EXTERNAL_ORIGIN, Role.CACHE_ORIGIN, Role.WRITECACHE_ORIGIN, Role.INTEGRITY_ORIGIN,
)  # fmt: skip
_CACHES = ("cache", "cache-pool", "writecache")
_PLAIN = ("-", "-", "-")
_VIRTUAL = ("zero", "error", "snapshot", "thin", "vdo")


class Use(msgspec.Struct, frozen=True, gc=False):
    """An LV is part of another one's segment."""

    user: Lv
    segment: Segment
    part: Part


class Relations:
    """Of all LVs of one VG; made in one pass."""

    def __init__(self, vg: Vg) -> None:
        self._lvs = vg.by_name
        self._uses: dict[str, list[Use]] = {}
        for name in vg.index.composed:
            lv = self._lvs[name]
            for segment in lv.segments:
                for part in segment.parts:
                    if part.lv in self._lvs and part.lv != name:
                        self._uses.setdefault(part.lv, []).append(Use(lv, segment, part))

    def uses(self, lv: Lv, *roles: Role) -> tuple[Use, ...]:
        """Where the LV is part of another; roles: only as one of these."""
        found = self._uses.get(lv.name, ())
        return tuple(use for use in found if not roles or use.part.role in roles)

    def users(self, lv: Lv) -> tuple[str, ...]:
        """Names of LVs that are made of this one."""
        return tuple(dict.fromkeys(use.user.name for use in self._uses.get(lv.name, ())))

    def parts(self, lv: Lv, *roles: Role) -> Iterator[Lv]:
        """LVs that this one is made of; roles: only as one of these."""
        for segment in lv.segments:
            for part in segment.parts:
                if part.lv in self._lvs and (not roles or part.role in roles):
                    yield self._lvs[part.lv]

    def partial(self, lv: Lv, missing: frozenset[str]) -> bool:
        """Whether the LV, or one that it is made of, has extents on one of these PVs."""
        seen: dict[str, bool] = {}
        todo = [lv]
        while todo:
            one = todo.pop()
            if one.name in seen:
                continue
            seen[one.name] = True
            if any(stripe.pv in missing for segment in one.segments for stripe in segment.stripes):
                return True
            todo += self.parts(one)
        return False

    def in_raid(self, lv: Lv) -> bool:
        """A RAID, or a part of one."""
        return _raids(lv) or bool(self.uses(lv, Role.RAID_IMAGE, Role.RAID_META))

    # -- who is shown ----------------------------------------------------------

    def exists(self, lv: Lv) -> bool:
        """False for the `snapshotN` behind a snapshot: no report knows it."""
        return not any(segment.kind == "snapshot" for segment in lv.segments)

    def shown(self, lv: Lv) -> bool:
        """Whether users see it without asking for hidden LVs."""
        if not self.exists(lv):
            return False
        for use in self.uses(lv, Role.COW):
            origin = next(self.parts(use.user, Role.ORIGIN), None)
            if origin is not None:
                return not use.segment.merging and (not origin.visible or self.shown(origin))
        return lv.visible

    # -- columns of a report -----------------------------------------------------

    def size_extents(self, lv: Lv) -> int:
        """lvs: lv_size; without the room that a RAID has for its reshape."""
        first = lv.segments[0] if lv.segments else None
        if first is None or first.kind not in PARITY:
            return lv.extent_count
        reshape = first.body.number("reshape_count") or 0
        images = len(first.areas)
        return lv.extent_count - reshape * (images - PARITY[first.kind] if images > 2 else 1)

    def origin(self, lv: Lv) -> str:
        """lvs: origin."""
        for use in self.uses(lv, Role.COW):
            return next((one.name for one in self.parts(use.user, Role.ORIGIN)), "")
        return next((one.name for one in self.parts(lv, *_ORIGINS)), "")

    def pool(self, lv: Lv) -> str:
        """lvs: pool_lv."""
        roles = (Role.THIN_POOL, Role.CACHE_POOL, Role.WRITECACHE, Role.VDO_POOL)
        return next((one.name for one in self.parts(lv, *roles)), "")

    def attributes(self, lv: Lv) -> tuple[str, str, str]:
        """Characters 1 (type), 7 (target) and 8 (zeroes new blocks) of lv_attr."""
        if lv.linear and lv.visible and lv.name not in self._uses and "CACHE_VOL" not in lv.flags:
            return _PLAIN
        kinds = tuple(dict.fromkeys(segment.kind for segment in lv.segments))
        roles = tuple(dict.fromkeys(use.part.role for use in self.uses(lv)))
        return self._type(lv, kinds, roles), self._target(lv, kinds, roles), self._zeroes(lv, kinds)

    def _type(self, lv: Lv, kinds: tuple[str, ...], roles: tuple[Role, ...]) -> str:
        unsynced = "NOTSYNCED" in lv.status
        if "PVMOVE" in lv.status:
            return "p"
        if _converting(lv):
            return "c"
        if Role.ORIGIN in roles or Role.EXTERNAL_ORIGIN in roles:
            return "O" if self._merged_into(lv) else "o"
        if any(role in _METADATA for role in roles) or _is_spare(lv):
            return "e"
        if _any(kinds, _CACHES) or self._caches(lv, roles):
            return "C"
        if "integrity" in kinds:
            return "g"
        if _raids(lv):
            return "R" if unsynced else "r"
        if "mirror" in kinds:
            return "M" if unsynced else "m"
        if "thin" in kinds:
            if self._merged_into(lv):
                return "O"
            return "S" if any(segment.merging for segment in lv.segments) else "V"
        return _data_type(lv, kinds, roles, self._cow(lv))

    def _caches(self, lv: Lv, roles: tuple[Role, ...]) -> bool:
        """Parts of caches that bear their letter."""
        if "CACHE_VOL" in lv.flags or "CACHE_VOL" in lv.status or Role.CACHE_POOL in roles:
            return True
        return any(use.segment.kind == "cache-pool" for use in self.uses(lv, Role.POOL_DATA))

    def _cow(self, lv: Lv) -> Use | None:
        return next(iter(self.uses(lv, Role.COW)), None)

    def _merged_into(self, lv: Lv) -> bool:
        return any(use.segment.merging for use in self.uses(lv, Role.ORIGIN, Role.MERGE))

    def _target(self, lv: Lv, kinds: tuple[str, ...], roles: tuple[Role, ...]) -> str:
        if "thin" in kinds or "thin-pool" in kinds:
            return "t"
        volume = "CACHE_VOL" in lv.flags or "CACHE_VOL" in lv.status
        if _any(kinds, _CACHES) or volume or Role.CACHE_ORIGIN in roles or Role.WRITECACHE_ORIGIN in roles:
            return "C"
        if self.in_raid(lv):
            return "r"
        mirrors = (Role.MIRROR_IMAGE, Role.MIRROR_LOG)
        if "mirror" in kinds or "PVMOVE" in lv.status or any(role in roles for role in mirrors):
            return "m"
        if Role.COW in roles or Role.ORIGIN in roles:
            return "s"
        if not all(segment.exact for segment in lv.segments):
            return "u"
        return "v" if _any(kinds, _VIRTUAL) else "-"

    def _zeroes(self, lv: Lv, kinds: tuple[str, ...]) -> str:
        pools = [lv] if "thin-pool" in kinds else list(self.parts(lv, Role.THIN_POOL))
        zero = any(segment.body.number("zero_new_blocks") for pool in pools for segment in pool.segments)
        return "z" if zero else "-"


def _data_type(lv: Lv, kinds: tuple[str, ...], roles: tuple[Role, ...], cow: Use | None) -> str:
    """The type of an LV that is no layer itself."""
    if "vdo-pool" in kinds:
        return "d"
    if Role.VDO_DATA in roles:
        return "D"
    if _any(kinds, _VIRTUAL) or not all(segment.exact for segment in lv.segments):
        return "v"
    if "thin-pool" in kinds:
        return "t"
    if Role.POOL_DATA in roles:
        return "T"
    if Role.MIRROR_IMAGE in roles:
        return "I"  # whether it is in sync only the kernel knows
    if Role.RAID_IMAGE in roles:
        return "I"
    if Role.MIRROR_LOG in roles:
        return "l"
    if cow is not None:
        return "S" if cow.segment.merging else "s"
    return "o" if Role.CACHE_ORIGIN in roles or Role.WRITECACHE_ORIGIN in roles else "-"


def _raids(lv: Lv) -> bool:
    return any(segment.kind in PARITY for segment in lv.segments)


def _converting(lv: Lv) -> bool:
    """A mirror whose first image is a mirror that is being filled."""
    first = lv.segments[0] if lv.segments else None
    if first is None or first.kind != "mirror":
        return False
    return any(part.area == 0 and _TEMPORARY_MIRROR in part.lv for part in first.parts)


def _is_spare(lv: Lv) -> bool:
    return not lv.visible and _SPARE in lv.name


def _any(kinds: tuple[str, ...], wanted: Container[str]) -> bool:
    return any(kind in wanted for kind in kinds)
