"""From what was read of the disks to PVs and VGs: which texts count, which areas lag behind.

Of all areas of a VG's PVs, the valid text with the highest seqno is the VG.  Areas that say less
(an older text, a damaged one, nothing) lag: the next change writes them anew.

Source: LVM2 lib/cache/lvmcache.c, lib/metadata/metadata.c (_vg_read)."""

from collections.abc import Iterable

import msgspec

from ringfence.core.errors import Damaged, DeviceFailed, NotFound, RingfenceError
from ringfence.lvm2.area import MdaHeader
from ringfence.lvm2.label import Area, PvLabel
from ringfence.lvm2.names import without_dashes
from ringfence.volumes.model import SECTOR_BYTES, Pv, Vg


class AreaOnDisk(msgspec.Struct, frozen=True):
    """One metadata area as it was found."""

    path: str
    place: Area
    header: MdaHeader | None
    """None: damaged, or unread."""
    vg: Vg | None = None
    """The committed text; None if there is none or it is damaged."""
    crc: int = 0
    """The committed text's, if there is one that is valid."""
    problem: str = ""
    """Why header or text could not be read."""
    unread: bool = False
    """The device did not give it: nobody knows what it holds, so nothing may be written over it."""

    @property
    def empty(self) -> bool:
        """In order, and without a VG."""
        return self.header is not None and self.header.committed.empty

    @property
    def in_use(self) -> bool:
        return self.header is None or not self.header.ignored


class PvOnDisk(msgspec.Struct, frozen=True):
    """A device with a PV label."""

    path: str
    device_bytes: int
    start: bytes
    """Its first sectors, label included."""
    label: PvLabel
    areas: tuple[AreaOnDisk, ...]


class VgOnDisk(msgspec.Struct, frozen=True):
    """A VG and the devices that it was found on."""

    vg: Vg
    crc: int
    """Of its text."""
    pvs: dict[str, PvOnDisk]
    """By PV name ("pv0").  A PV that was not found is not there."""
    areas: tuple[AreaOnDisk, ...]
    """Every area in use on its PVs, damaged ones too."""
    twins: dict[str, tuple[str, str]] = {}
    """PVs that two devices claim to be: PV name -> both paths."""
    partial: bool = False
    """An LV may be used without those of its pieces whose PVs are missing."""

    @property
    def missing(self) -> tuple[Pv, ...]:
        return tuple(pv for pv in self.vg.pvs if pv.name not in self.pvs)

    @property
    def lost(self) -> frozenset[str]:
        """PVs that were not found, or were away while the VG was changed: what those hold may be old."""
        return frozenset(pv.name for pv in self.vg.pvs if pv.missing or pv.name not in self.pvs)

    @property
    def lagging(self) -> tuple[AreaOnDisk, ...]:
        return tuple(
            area
            for area in self.areas
            if area.vg is None or (area.vg.seqno, area.crc) != (self.vg.seqno, self.crc)
        )


class Disks(msgspec.Struct, frozen=True):
    """Everything that a scan found."""

    pvs: tuple[PvOnDisk, ...]
    vgs: tuple[VgOnDisk, ...]
    """By name."""
    bare: dict[str, int]
    """Devices without a label: path -> size in bytes."""
    problems: dict[str, str]
    """Devices that could not be read or have a damaged label: path -> why."""
    aliases: dict[str, str]
    """Other names of a device -> the path that is used here."""
    sizes: dict[str, int]

    def pv_at(self, path: str) -> PvOnDisk | None:
        return next((pv for pv in self.pvs if pv.path == path), None)

    def vg_of(self, pv: PvOnDisk) -> VgOnDisk | None:
        """The VG that lists this PV."""
        return next((one for one in self.vgs if any(have is pv for have in one.pvs.values())), None)

    def vg_named(self, name: str) -> VgOnDisk:
        """Raises NotFound, or Damaged if two VGs bear the name or none of its texts is valid."""
        found = [one for one in self.vgs if one.vg.name == name]
        if len(found) > 1:
            places = " and ".join(", ".join(pv.path for pv in one.pvs.values()) for one in found)
            raise Damaged(
                f'Multiple VGs found with the same name "{name}": on {places}',
                next="rename one of them: vgrename UUID NEWNAME (vgs -o +vg_uuid)",
            )
        if not found:
            raise NotFound(f'Volume group "{name}" not found', next=self._where_else())
        return found[0]

    def _where_else(self) -> str:
        problems = [
            f"{path}: {why}" if path not in why else why for path, why in sorted(self.problems.items())
        ]
        problems += [area.problem for pv in self.pvs for area in pv.areas if area.problem]
        if problems:
            return f"note: {problems[0]}"
        return "see: vgs; are its devices among [devices] paths?"


def assemble(
    pvs: tuple[PvOnDisk, ...],
    bare: dict[str, int],
    problems: dict[str, str],
    aliases: dict[str, str],
    sizes: dict[str, int],
) -> Disks:
    """Group the PVs into VGs.  A PV uuid that is on two devices is a problem of both."""
    problems = dict(problems)
    by_uuid: dict[str, PvOnDisk] = {}
    for pv in pvs:
        twin = by_uuid.setdefault(pv.label.uuid, pv)
        if twin is not pv:
            problems[pv.path] = (
                f"{pv.path} has the same PV uuid as {twin.path}: a copy, or another path to it"
            )
    vgs = [_assemble_vg(uuid, pvs, by_uuid) for uuid in _vg_uuids(pvs)]
    vgs.sort(key=lambda one: (one.vg.name, one.vg.uuid))
    return Disks(pvs, tuple(vgs), bare, problems, aliases, sizes)


def _vg_uuids(pvs: tuple[PvOnDisk, ...]) -> tuple[str, ...]:
    uuids = dict.fromkeys(area.vg.uuid for pv in pvs for area in pv.areas if area.vg and area.in_use)
    return tuple(uuids)


def _assemble_vg(uuid: str, pvs: tuple[PvOnDisk, ...], by_uuid: dict[str, PvOnDisk]) -> VgOnDisk:
    texts = [area for pv in pvs for area in pv.areas if area.vg and area.in_use and area.vg.uuid == uuid]
    # Of two texts with the same seqno (a backup was restored over one of them) the same one must
    # win on every host: the order of the areas' checksums is as good as any.
    best = max(texts, key=lambda area: (area.vg.seqno if area.vg else 0, area.crc))
    assert best.vg is not None
    members = {}
    for pv in best.vg.pvs:
        found = by_uuid.get(_bare(pv.uuid))
        if found is not None:
            members[pv.name] = found
    areas = tuple(area for pv in members.values() for area in pv.areas if area.in_use)
    twins = {
        name: (have.path, other.path)
        for name, have in members.items()
        for other in pvs
        if other is not have and other.label.uuid == have.label.uuid
    }
    return VgOnDisk(best.vg, best.crc, members, areas, twins)


def check_twins(found: VgOnDisk, pvs: Iterable[str]) -> None:
    """Raises Damaged if two devices claim to be one of these PVs: which one others use is not known."""
    for name in pvs:
        if name in found.twins:
            one, other = found.twins[name]
            raise Damaged(
                f"{one} and {other} have the same PV uuid: one is a copy of the other, or a path to it",
                next=f"name only one of them in [devices] paths (PV {name} of VG {found.vg.name})",
            )


def _bare(uuid: str) -> str:
    try:
        return without_dashes(uuid)
    except RingfenceError:
        return uuid


def shrunk(found: VgOnDisk) -> list[str]:
    """What LVM2 says of PVs whose device is smaller than it was.  Source: LVM2 lib/metadata/metadata.c
    (check_pv_dev_sizes)."""
    told = []
    for name, have in found.pvs.items():
        pv, sectors = found.vg.pv(name), have.device_bytes // SECTOR_BYTES
        if pv is not None and sectors < pv.device_sectors:
            told.append(
                f"Device {have.path} has size of {sectors} sectors which is smaller than corresponding PV "
                f"size of {pv.device_sectors} sectors. Was device resized?"
            )
    return told


def check_ends(found: VgOnDisk) -> None:
    """Raises Damaged if an extent of the VG lies behind the end of its device."""
    for name, have in found.pvs.items():
        pv = found.vg.pv(name)
        if pv is None:
            continue
        end_bytes = (pv.start_sectors + pv.extent_count * found.vg.extent_sectors) * SECTOR_BYTES
        if end_bytes > have.device_bytes:
            raise Damaged(
                f"{have.path} ends at {have.device_bytes} bytes, and PV {pv.uuid} of VG {found.vg.name} "
                f"at {end_bytes}",
                next=f"give the device its size back; if nothing lies behind its end: pvresize {have.path}",
            )


def check_complete(found: VgOnDisk, *, partial: bool = False) -> None:
    """Raises unless every PV of the VG is here, once, every area of it was read, and none is another VG's.

    Args: partial: PVs may be missing; of those that are here the rest must hold."""
    vg = found.vg
    unread = next((area for area in found.areas if area.unread), None)
    if unread is not None:  # it may hold a later version, and where its text lies is not known
        raise DeviceFailed(
            f"Cannot change VG {vg.name}: {unread.problem}",
            next="look at the device and its paths (dmesg), then try again",
            retry=True,
        )
    if found.missing and not partial:
        missing = ", ".join(f"{pv.uuid} (last seen as {pv.device})" for pv in found.missing)
        raise Damaged(
            f"Cannot change VG {vg.name} while PVs are missing: {missing}",
            next="make the device visible to this host: [devices] paths; if it is gone for good: "
            f"vgreduce --removemissing {vg.name}",
        )
    check_twins(found, found.pvs)
    for pv in found.pvs.values():
        foreign = [area.vg.name for area in pv.areas if area.vg and area.vg.uuid != vg.uuid]
        if foreign:
            raise Damaged(
                f"{pv.path} is listed by VG {vg.name} but carries VG {foreign[0]}",
                next=f"look at both with: pvck --dump metadata {pv.path}",
            )
    if not found.areas:
        raise Damaged(f"VG {vg.name} has no metadata area in use")
