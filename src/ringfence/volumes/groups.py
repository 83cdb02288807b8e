"""Plans for a VG as a whole: its PVs, its name, its properties.  A VG in, the VG as it should be out.

Nothing is written here, and no seqno touched.  A PV that is missing stays in the metadata with the
flag MISSING, so that whoever finds its device again does not take what is on it for current.

Source: LVM2 lib/metadata/vg.c (vg_reduce_single, vg_set_*), pv_manip.c (pv_resize), metadata.c (vg_rename,
vg_extend); lib/format_text/export.c (_print_vg, _print_pvs) for the order of keys."""

from collections.abc import Collection

from ringfence.core.errors import BadInput, NotFound, Refused
from ringfence.lvm2.names import check_tag, check_vg_name
from ringfence.lvm2.text import Section, Value
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import SECTOR_BYTES, Lv, Pv, Vg
from ringfence.volumes.plan import NewPv, pv_section
from ringfence.volumes.relations import Relations

POLICIES = ("contiguous", "cling", "cling_by_tags", "normal", "anywhere")
NO_AUTOACTIVATION = "NOAUTOACTIVATE"
_MISSING = "MISSING"

# -- PVs ---------------------------------------------------------------------------


def extend(vg: Vg, pvs: tuple[NewPv, ...]) -> Vg:
    """The VG with more PVs.  Raises BadInput (too small), Refused (as many as it may have)."""
    limit = vg.header.number("max_pv") or 0
    if limit and len(vg.pvs) + len(pvs) > limit:
        raise Refused(
            f"VG {vg.name} may have at most {limit} PVs and has {len(vg.pvs)}",
            next=f"vgchange --maxphysicalvolumes 0 {vg.name}",
        )
    members = _members(vg)
    number = 1 + max((int(pv.name[2:]) for pv in vg.pvs if pv.name[2:].isdecimal()), default=-1)
    for at, pv in enumerate(pvs):
        members = members.put(f"pv{number + at}", pv_section(pv, vg.extent_sectors))
    return _with_members(vg, members)


def reduce(vg: Vg, names: Collection[str]) -> Vg:
    """The VG without these PVs.  Raises Refused while extents of one are used, or if none would be left."""
    for name in names:
        pv = _pv(vg, name)
        if users_on(vg, name):
            raise Refused(
                f'Physical volume "{pv.device}" still in use',
                next=f"move or remove what is on it: {', '.join(users_on(vg, name)[:4])}",
            )
    if len(names) >= len(vg.pvs):
        last = _pv(vg, [*names][-1])
        raise Refused(
            f'Can\'t remove final physical volume "{last.device}" from volume group "{vg.name}"',
            next=f"vgremove {vg.name}",
        )
    members = _members(vg)
    for name in names:
        members = members.drop(name)
    return _with_members(vg, members)


def users_on(vg: Vg, pv: str) -> list[str]:
    """Names of the LVs that use extents of a PV."""
    return [lv.name for lv in vg.lvs if pv in _pvs_of(lv)]


def partial(vg: Vg, missing: Collection[str]) -> list[Lv]:
    """LVs of which a part, or a part of a part, is on a PV that is missing."""
    relations, gone = Relations(vg), frozenset(missing)
    return [lv for lv in vg.lvs if relations.partial(lv, gone)]


def _pvs_of(lv: Lv) -> dict[str, bool]:
    return {stripe.pv: True for segment in lv.segments for stripe in segment.stripes}


def mark_missing(vg: Vg, names: Collection[str]) -> Vg:
    """The VG with these PVs flagged as missing, as LVM2 writes it when it does not find them."""
    wanted = [name for name in names if not _pv(vg, name).missing]
    return _flagged(vg, {name: (*_pv(vg, name).flags, _MISSING) for name in wanted})


def restore_missing(vg: Vg, names: Collection[str]) -> Vg:
    """The VG with these PVs not flagged as missing any more.  Raises BadInput for one that is not."""
    for name in names:
        if not _pv(vg, name).missing:
            raise BadInput(f"PV {_pv(vg, name).device} of VG {vg.name} is not flagged as missing")
    return _flagged(
        vg, {name: tuple(flag for flag in _pv(vg, name).flags if flag != _MISSING) for name in names}
    )


def _flagged(vg: Vg, flags: dict[str, tuple[str, ...]]) -> Vg:
    if not flags:
        return vg
    members = _members(vg)
    for name, new in flags.items():
        section = members.section(name)
        assert section is not None
        members = members.put(name, section.put("flags", new))
    return _with_members(vg, members)


def resize_pv(vg: Vg, name: str, size_bytes: int) -> Vg:
    """The VG with a PV of another size.  Raises BadInput (too small), Refused (extents in use would go)."""
    pv = _pv(vg, name)
    sectors = size_bytes // SECTOR_BYTES
    extents = (sectors - pv.start_sectors) // vg.extent_sectors
    if extents < 1:
        raise BadInput(
            f"{pv.device}: {size_bytes} bytes leave no room for one extent of {vg.extent_bytes} bytes",
            next="give a larger size",
        )
    end = max(
        (
            stripe.start_extent + stripe.extent_count
            for lv in vg.lvs
            for segment in lv.segments
            for stripe in segment.stripes
            if stripe.pv == name
        ),
        default=0,
    )
    if end > extents:
        raise Refused(
            f"{pv.device}: cannot resize to {extents} extents as later ones are allocated (up to {end})",
            next="move them first: pvmove",
        )
    members = _members(vg)
    section = members.section(name)
    assert section is not None
    section = section.put("dev_size", sectors).put("pe_count", extents)
    return _with_members(vg, members.put(name, section))


def pv_at(found: VgOnDisk, path: str) -> Pv:
    """The PV of the VG that is on this device.  Raises NotFound."""
    for name, have in found.pvs.items():
        if have.path == path:
            return _pv(found.vg, name)
    raise NotFound(f'Physical volume "{path}" is not in volume group "{found.vg.name}"', next="see: pvs")


def _pv(vg: Vg, name: str) -> Pv:
    pv = vg.pv(name)
    assert pv is not None, "the PV was found in this VG"
    return pv


def _members(vg: Vg) -> Section:
    return vg.header.section("physical_volumes") or Section()


def _with_members(vg: Vg, members: Section) -> Vg:
    return vg.with_header(vg.header.put("physical_volumes", members))


# -- the VG itself -----------------------------------------------------------------


def rename(vg: Vg, name: str) -> Vg:
    """The VG under another name.  Raises BadInput."""
    check_vg_name(name)
    if name == vg.name:
        raise BadInput("New VG name must differ from the old VG name.", next="choose another name")
    items = tuple((name if key == vg.name else key, node) for key, node in vg.frame.items)
    return vg.with_frame(Section(items))


def tag(vg: Vg, add: Collection[str], drop: Collection[str]) -> Vg:
    """The VG with tags more and tags less.  Raises BadInput."""
    for one in (*add, *drop):
        check_tag(one)
    tags = tuple(dict.fromkeys(one for one in (*vg.tags, *add) if one not in drop))
    body = vg.header.drop("tags")
    return vg.with_header(_behind(body, "tags", tags, ("flags", "status")) if tags else body)


def with_properties(
    vg: Vg, policy: str, max_lv: int | None, max_pv: int | None, autoactivation: bool | None
) -> Vg:
    """The VG with those of them that are given.  Raises BadInput, Refused."""
    if policy:
        vg = set_policy(vg, policy)
    if (max_lv, max_pv) != (None, None):
        vg = set_limits(vg, max_lv, max_pv)
    return vg if autoactivation is None else set_autoactivation(vg, autoactivation)


def set_policy(vg: Vg, policy: str) -> Vg:
    """The VG with another allocation policy.  Raises BadInput."""
    if policy == "inherit":
        raise BadInput("Volume Group allocation policy cannot inherit from anything", next="give another")
    if policy not in POLICIES:
        raise BadInput(
            f"allocation policy {policy!r} is not known", next=f"give one of: {', '.join(POLICIES)}"
        )
    body = vg.header.drop("allocation_policy")
    if policy == "normal":
        return vg.with_header(body)
    return vg.with_header(_behind(body, "allocation_policy", policy, ("max_pv", "max_lv", "extent_size")))


def set_limits(vg: Vg, max_lv: int | None, max_pv: int | None) -> Vg:
    """The VG with other limits; 0 = none.  Raises BadInput, Refused (it has more already)."""
    body = vg.header
    visible = sum(lv.visible for lv in vg.lvs)
    for key, limit, have, what in (
        ("max_lv", max_lv, visible, "MaxLogicalVolume"),
        ("max_pv", max_pv, len(vg.pvs), "MaxPhysicalVolumes"),
    ):  # fmt: skip
        if limit is None:
            continue
        if limit < 0:
            raise BadInput(f"{what} {limit} is below 0", next="give 0 for no limit")
        if 0 < limit < have:
            raise Refused(f"{what} is less than the current number {have} for {vg.name}")
        body = body.put(key, limit)
    return vg.with_header(body)


def set_resizeable(vg: Vg, resizeable: bool) -> Vg:
    status = tuple(one for one in vg.status if one != "RESIZEABLE")
    return vg.with_header(vg.header.put("status", ("RESIZEABLE", *status) if resizeable else status))


def set_autoactivation(vg: Vg, wanted: bool) -> Vg:
    flags = tuple(one for one in vg.flags if one != NO_AUTOACTIVATION)
    return vg.with_header(vg.header.put("flags", flags if wanted else (*flags, NO_AUTOACTIVATION)))


def _behind(body: Section, key: str, value: Value, before: tuple[str, ...]) -> Section:
    """With `key` behind the first of `before` that is there: where LVM2 writes it."""
    place = next((one for one in before if body.get(one) is not None), "")
    items: list[tuple[str, Value | Section]] = []
    for name, node in body.items:
        items.append((name, node))
        if name == place:
            items.append((key, value))
    return Section(tuple(items)) if place else body.put(key, value)
