"""LVM2's rules for names of VGs and LVs, for tags, and for uuids.

Messages are LVM2's own where it has one.  Source: LVM2 lib/misc/lvm-string.c (validate_name_detailed,
validate_tag, apply_lvname_restrictions), lib/uuid/uuid.c; DLM_LOCKSPACE_LEN in Linux dlmconstants.h."""

import re

from ringfence.core.errors import BadInput, BadName

NAME_LENGTH = 127
"""Longest name of a VG or LV."""
VG_NAME_LENGTH = 60
"""A shared VG's lockspace is `lvm_` and its name, and a DLM lockspace has at most 64 characters."""
MAPPER_LENGTH = 127
"""Longest device-mapper name, that is VG-LV with the hyphens in both doubled."""
TAG_LENGTH = 1024

UUID_LENGTH = 32
UUID_CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""LVM2 accepts `!` and `#` too (old uuids), but makes none with them."""

_NAME = re.compile(r"[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_+./=!:&#][a-zA-Z0-9_+./=!:&#-]*\Z")
_UUID = re.compile(r"[0-9a-zA-Z!#]{32}\Z")
_GROUPS = (6, 4, 4, 4, 4, 4, 6)

_RESERVED_STARTS = ("snapshot", "pvmove")
_RESERVED_PARTS = (
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_imeta", "_iorig", "_mimage", "_mlog", "_pmspare",
    "_rimage", "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_wcorig",
)  # fmt: skip


def check_name(name: str, kind: str = "VG") -> None:
    """Raises BadName unless LVM2 would accept the name.  kind: "VG" or "LV", for the message."""
    if not name:
        raise BadName(f"{kind} name is empty", next="give a name")
    if name in (".", ".."):
        raise BadName(f'{kind} name "{name}" is invalid: "." and ".." are reserved')
    if name.startswith("-"):
        raise BadName(f'{kind} name "{name}" is invalid: a name may not begin with a hyphen')
    if not _NAME.match(name):
        raise BadName(
            f"{kind} name {name!r} contains an invalid character",
            next="valid are: [a-zA-Z0-9.-_+]",
        )
    if len(name) > NAME_LENGTH:
        raise BadName(f"{kind} name is too long: {len(name)} characters, at most {NAME_LENGTH}")


def can_be_name(name: str) -> bool:
    """Whether a VG or LV can have it.  What is on a disk need not have gone through `check_name`."""
    return _NAME.match(name) is not None and name not in (".", "..") and len(name) <= NAME_LENGTH


def check_vg_name(name: str) -> None:
    """Raises BadName unless this can be the name of a shared VG."""
    check_name(name, "VG")
    if len(name) > VG_NAME_LENGTH:
        raise BadName(f"VG name is too long to be shared: {len(name)} characters, at most {VG_NAME_LENGTH}")
    if name == "global":
        raise BadName(
            'a VG called "global" would share its lockspace, lvm_global, with the global lock',
            next="choose another name (vgrename)",
        )


def check_lv_name(name: str, vg: str) -> None:
    """Raises BadName unless LVM2 would let a user create an LV of this name in `vg`."""
    check_name(name, "LV")
    for start in _RESERVED_STARTS:
        if name.startswith(start):
            raise BadName(f'Names starting "{start}" are reserved', next="choose a different LV name")
    for part in _RESERVED_PARTS:
        if part in name:
            raise BadName(f'Names including "{part}" are reserved', next="choose a different LV name")
    if len(mapper_name(vg, name)) > MAPPER_LENGTH:
        raise BadName(
            f'VG and LV name together are too long for device-mapper: "{vg}" and "{name}"',
            next="choose a shorter LV name",
        )


def check_tag(tag: str) -> None:
    """Raises BadInput unless LVM2 would accept the tag."""
    if not _TAG.match(tag) or len(tag) > TAG_LENGTH:
        raise BadInput(f"tag {tag!r} is invalid", next="valid are: [a-zA-Z0-9_+.-/=!:&#], not first a hyphen")


def mapper_name(vg: str, lv: str) -> str:
    """The device-mapper name of an LV: hyphens in either name are doubled."""
    return f"{vg.replace('-', '--')}-{lv.replace('-', '--')}"


def with_dashes(uuid: str) -> str:
    """32 characters -> the 6-4-4-4-4-4-6 form that LVM2 prints.  Raises BadInput on anything else."""
    if not _UUID.match(uuid):
        raise BadInput(f"{uuid!r} is not an LVM2 uuid of {UUID_LENGTH} characters")
    parts, start = [], 0
    for length in _GROUPS:
        parts.append(uuid[start : start + length])
        start += length
    return "-".join(parts)


def without_dashes(uuid: str) -> str:
    """The printed form -> 32 characters.  Raises BadInput on anything else."""
    bare = uuid.replace("-", "")
    if not _UUID.match(bare) or uuid not in (bare, with_dashes(bare)):
        raise BadInput(f"{uuid!r} is not an LVM2 uuid")
    return bare
