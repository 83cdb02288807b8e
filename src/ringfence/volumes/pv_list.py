"""PVs as they are named behind a command: where a new LV, or an LV's growth, may be put.

    DEVICE                 all of it
    DEVICE:0-99:200-       these extents of it; 5 is one, 10+20 are twenty, 200- is all from there on
    @TAG                   every PV that has this tag

PVs are preferred in the order in which they are named.  Source: lvm(8); LVM2 lib/metadata/pv_list.c."""

import re
from collections.abc import Mapping, Sequence

from ringfence.core.errors import BadInput, Refused
from ringfence.volumes.allocate import free_ranges
from ringfence.volumes.model import Pv, Stripe, Vg

_RANGE = re.compile(r"(\d{0,20})(?:([-+])(\d{0,20}))?")


def free_areas(vg: Vg) -> tuple[Stripe, ...]:
    """All free extents that may be allocated."""
    return tuple(area for pv in vg.pvs if usable(pv) for area in free_ranges(vg, pv))


def areas_within(vg: Vg, words: Sequence[str], at: Mapping[str, str]) -> tuple[Stripe, ...]:
    """The free extents of the PVs that are named.

    Args: at: device -> PV ("pv0"), for each name that a PV's device has here.

    Raises BadInput (what is typed), Refused (nothing may be allocated there)."""
    areas: list[Stripe] = []
    for name, ranges in _listed(vg, words, at).items():
        pv = vg.pv(name)
        assert pv is not None
        areas += [part for area in free_ranges(vg, pv) for part in _within(area, sorted(ranges))]
    if not areas:
        raise Refused(
            f"No free extents on {', '.join(words)} in volume group {vg.name}", next="see: pvs -o +pv_free"
        )
    return tuple(areas)


def runs_named(vg: Vg, word: str, at: Mapping[str, str]) -> tuple[Stripe, ...]:
    """The extents of one PV that a word names, free or not; the PV may be one on which nothing is allocated.

    Args: at: as in `areas_within`.

    Raises BadInput."""
    pv, texts = _named(vg, word, at)
    listed: dict[str, list[tuple[int, int]]] = {}
    _add(listed, pv, [_parsed(text, pv) for text in texts] or [(0, pv.extent_count)])
    return tuple(Stripe(pv.name, start, end - start) for start, end in sorted(listed[pv.name]))


def usable(pv: Pv) -> bool:
    return pv.allocatable and not pv.missing


def _listed(vg: Vg, words: Sequence[str], at: Mapping[str, str]) -> dict[str, list[tuple[int, int]]]:
    """PV -> ranges of extents, ends not included."""
    listed: dict[str, list[tuple[int, int]]] = {}
    for word in words:
        if word.startswith("@"):
            tagged = [pv for pv in vg.pvs if word[1:] in pv.tags]
            if not tagged:
                raise BadInput(f"no PV of volume group {vg.name} has tag {word}")
            for pv in tagged:
                if usable(pv):
                    _add(listed, pv, [(0, pv.extent_count)])
            continue
        found, texts = _named(vg, word, at)
        if not usable(found):
            device = _split(word, at)[0]
            raise Refused(
                f"Physical volume {device} is not allocatable", next=f"stock LVM2: pvchange -xy {device}"
            )
        _add(listed, found, [_parsed(text, found) for text in texts] or [(0, found.extent_count)])
    return listed


def _named(vg: Vg, word: str, at: Mapping[str, str]) -> tuple[Pv, list[str]]:
    """A PV, and the ranges that are named of it.  Raises BadInput."""
    device, *texts = _split(word, at)
    name = at.get(device)
    found = vg.pv(name) if name is not None else None
    if found is None:
        raise BadInput(f'Physical Volume "{device}" not found in Volume Group "{vg.name}"', next="see: pvs")
    return found, texts


def _split(word: str, at: Mapping[str, str]) -> list[str]:
    """A device's own name may have colons in it."""
    if word in at:
        return [word]
    device = max((one for one in at if word.startswith(f"{one}:")), key=len, default="")
    return [device, *word[len(device) + 1 :].split(":")] if device else word.split(":")


def _parsed(text: str, pv: Pv) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    if match is None or not text or text in "-+":
        raise BadInput(f"{text!r} is not a range of extents", next="give 5, 0-99, 10+20 or 200-")
    first = int(match[1] or 0)
    if match[2] is None:
        end = first + 1
    elif match[2] == "+":
        end = first + int(match[3] or 0)
    else:
        end = int(match[3]) + 1 if match[3] else pv.extent_count
    end = min(end, pv.extent_count)
    if first >= end:
        raise BadInput(f"PV {pv.device} has no extents {text}: it has {pv.extent_count}")
    return first, end


def _add(listed: dict[str, list[tuple[int, int]]], pv: Pv, ranges: list[tuple[int, int]]) -> None:
    have = listed.setdefault(pv.name, [])
    for start, end in ranges:
        if any(start < other_end and other < end for other, other_end in have):
            raise BadInput(f"extents {start}-{end - 1} of PV {pv.device} are named twice")
        have.append((start, end))


def _within(area: Stripe, ranges: Sequence[tuple[int, int]]) -> list[Stripe]:
    parts = []
    for start, end in ranges:
        first = max(start, area.start_extent)
        count = min(end, area.start_extent + area.extent_count) - first
        if count > 0:
            parts.append(Stripe(area.pv, first, count))
    return parts
