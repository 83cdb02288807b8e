"""An LV with another name, other tags, another access or another allocation policy.

Source: LVM2 lib/format_text/export.c (_print_lv), lib/metadata/lv_manip.c (lv_rename_update)."""

from collections.abc import Sequence

from ringfence.core.errors import BadInput, BadName, Refused
from ringfence.lvm2.names import check_lv_name, check_tag
from ringfence.lvm2.text import Section, Value
from ringfence.volumes.growth import GROWING_SUFFIX
from ringfence.volumes.model import Vg
from ringfence.volumes.moves import MOVING_SUFFIX
from ringfence.volumes.plan import find_lv
from ringfence.volumes.policies import INHERIT
from ringfence.volumes.unclean import WIPING_SUFFIX

OWN_TAGS = "ringfence."
"""Tags that begin so mean something to ringfence itself."""


def check_own_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Tags as they are typed, with or without LVM2's @.  Raises BadInput."""
    names = tuple(dict.fromkeys(tag.removeprefix("@") for tag in tags))
    for tag in names:
        check_tag(tag)
        if tag.startswith(OWN_TAGS):
            raise BadInput(f"tag {tag}: those that begin with {OWN_TAGS} are ringfence's own")
    return names


def check_own_name(name: str) -> None:
    """Raises BadName for a name that says of an LV what only ringfence makes one: that it is being wiped, or
    keeps extents for another one.  As LVM2 reserves those of the LVs that it makes itself."""
    for suffix in (WIPING_SUFFIX, GROWING_SUFFIX, MOVING_SUFFIX):
        if name.rstrip("0123456789").endswith(suffix):
            raise BadName(f'Names ending "{suffix}" are reserved', next="choose a different LV name")


def rename_lv(vg: Vg, name: str, new: str) -> Vg:
    """Raises NotFound, BadInput, Refused.  The seqno is not touched."""
    find_lv(vg, name)
    check_lv_name(new, vg.name)
    check_own_name(new)
    if new == name:
        raise BadName("Old and new logical volume names must differ")
    if vg.lv(new) is not None:
        raise BadInput(f'Logical Volume "{new}" already exists in volume group "{vg.name}"')
    return vg.with_renamed(name, new)


def with_tags(vg: Vg, name: str, add: Sequence[str], drop: Sequence[str]) -> Vg:
    """Tags that are there already, or not there, change nothing."""
    have = find_lv(vg, name).tags
    tags = tuple(dict.fromkeys((*(tag for tag in have if tag not in drop), *add)))
    section = vg.section_of(name)
    return vg.with_lv(name, put_behind(section, "tags", tags, ("flags", "status", "id")))


def with_access(vg: Vg, name: str, *, writable: bool) -> Vg:
    """As a shared VG has it: what may be written has the flag WRITE_LOCKED in the status WRITE's place."""
    lv = find_lv(vg, name)
    section = vg.section_of(name)
    status = tuple(one for one in lv.status if one != "WRITE")
    flags = tuple(one for one in lv.flags if one != "WRITE_LOCKED")
    if writable:
        flags = ("WRITE_LOCKED", *flags)
    section = put_behind(section.put("status", status), "flags", flags, ("status",), keep=True)
    return vg.with_lv(name, section)


def with_policy(vg: Vg, name: str, policy: str) -> Vg:
    section = vg.section_of(name)
    if policy == INHERIT:
        return vg.with_lv(name, section.drop("allocation_policy"))
    behind = ("lock_args", "creation_host", "tags", "flags", "status")
    return vg.with_lv(name, put_behind(section, "allocation_policy", policy, behind))


def put_behind(
    section: Section, key: str, value: Value, behind: Sequence[str], *, keep: bool = False
) -> Section:
    """With a key replaced, or put behind the first of `behind` that is there; an empty list is left out,
    unless `keep`."""
    if value == () and not keep:
        return section.drop(key)
    if section.get(key) is not None:
        return section.put(key, value)
    after = next(one for one in behind if section.get(one) is not None)
    at = next(number for number, (name, _) in enumerate(section.items) if name == after) + 1
    return Section((*section.items[:at], (key, value), *section.items[at:]))


def check_movable(vg: Vg, name: str) -> None:
    """Raises Refused for LVs whose name or tags are ringfence's own business."""
    lv = find_lv(vg, name)
    if lv.slots:
        raise Refused(
            f"Logical volume {vg.name}/{name} holds the disk slots of the VG",
            next=f"leave it alone; see: ringfence slots show {vg.name}",
        )
