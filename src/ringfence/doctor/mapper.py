"""Which LVs device-mapper has active on this host, and what each is made of."""

import contextlib
from collections.abc import Iterable, Mapping

from ringfence.core.errors import Unavailable
from ringfence.doctor.facts import MappedVolume
from ringfence.host.mapper import Table, tables
from ringfence.lvm2.names import with_dashes


def mapped_volumes() -> tuple[MappedVolume, ...]:
    with contextlib.suppress(Unavailable):
        return volumes(tables())
    return ()


def volumes(found: Iterable[Table]) -> tuple[MappedVolume, ...]:
    """LVs that are somebody's to use: not the parts that LVM2 makes others of (their uuid has a suffix)."""
    by_kernel = {one.kernel: one for one in found}
    lvs = [one for one in by_kernel.values() if one.volume != ("", "") and not one.layer]
    return tuple(_mapped(one, by_kernel) for one in lvs)


def _mapped(one: Table, by_kernel: Mapping[str, Table]) -> MappedVolume:
    vg, lv = one.volume
    above = sorted({below for below in _below(one, by_kernel) if below != vg})
    return MappedVolume(one.name, vg, lv, with_dashes(one.lv_uuid), tuple(above))


def _below(one: Table, by_kernel: Mapping[str, Table]) -> list[str]:
    """VGs of all LVs that a device stands on, however deep."""
    found = []
    for slave in one.slaves:
        under = by_kernel.get(slave)
        if under is None:
            continue
        if under.volume != ("", ""):
            found.append(under.volume[0])
        found += _below(under, by_kernel)
    return found
