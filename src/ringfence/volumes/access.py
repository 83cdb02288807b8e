"""Whose a VG is: may this cluster write it at all, and if not, what makes it so.

Source: LVM2 lib/metadata/metadata.c (vg_read: _access_vg_clustered, _access_vg_lock_type,
_access_vg_systemid), lib/format_text/flags.c (read_flags), lib/locking/lvmlockd.c."""

from ringfence.core.errors import Refused, printable
from ringfence.volumes.model import Vg

DLM = "dlm"

_VG_STATUS = ("EXPORTED", "RESIZEABLE", "PVMOVE", "READ", "WRITE", "CLUSTERED", "SHARED", "PARTIAL")
_PV_STATUS = ("ALLOCATABLE", "EXPORTED", "MISSING")
_LV_STATUS = (
    "READ", "WRITE", "FIXED_MINOR", "VISIBLE", "PVMOVE", "LOCKED", "NOTSYNCED", "REBUILD", "WRITEMOSTLY",
    "CACHE_VOL",
)  # fmt: skip
_ARGS_VERSION = "1.0.0"


def lock_args_of(cluster: str) -> str:
    """What `lock_args` says in a VG that is shared by this cluster."""
    return f"{_ARGS_VERSION}:{cluster}"


def is_ours(vg: Vg, cluster: str) -> bool:
    """A shared VG of this cluster."""
    return vg.lock_type == DLM and vg.lock_args.partition(":")[2] == cluster


def check_ours(vg: Vg, cluster: str) -> None:
    """Raises Refused unless the VG is shared by this cluster, naming the command that makes it so."""
    name = vg.name
    if "CLUSTERED" in vg.status:
        raise Refused(
            f"Cannot access clustered VG {name}: it was made for clvmd",
            next=f"convert it with stock LVM2: vgchange --locktype none --lockopt force {name}",
        )
    if vg.system_id:
        raise Refused(
            f"Cannot access VG {name} with system ID {vg.system_id}: one host owns it",
            next=f'on that host: vgchange --systemid "" {name}',
        )
    if vg.lock_type in ("", "none"):
        raise Refused(
            f"VG {name} is not shared",
            next=f"make it so with stock LVM2, with its LVs inactive: vgchange --locktype dlm {name}",
        )
    if vg.lock_type != DLM:
        raise Refused(
            f"Cannot access VG {name} with lock type {vg.lock_type}: only {DLM} is served here",
            next=f"with its LVs inactive everywhere: vgchange --locktype none {name}, then --locktype {DLM}",
        )
    theirs = vg.lock_args.partition(":")[2]
    if theirs != cluster:
        raise Refused(
            f'VG {name} is shared by cluster "{theirs}", not by this one ("{cluster}")',
            next="use it there; two clusters cannot lock against each other (is that one gone? docs/lvm2.md)",
        )


def check_writable(vg: Vg, *, partial: bool = False, resizing: bool = False) -> None:
    """Raises Refused if the VG must not be changed as it is.

    Args:
        partial: PVs may be missing.
        resizing: what is changed needs a VG that is resizeable: its PVs, its limits, the size of its extents;
            not its LVs, as LVM2 has it (vg_bad_status_bits)."""
    _check_status(vg)
    if "EXPORTED" in vg.status:
        raise Refused(f"Volume group {vg.name} is exported", next=f"stock LVM2: vgimport {vg.name}")
    if not vg.writable:
        raise Refused(f"Volume group {vg.name} is read-only", next=f"stock LVM2: vgchange -p rw {vg.name}")
    if resizing and "RESIZEABLE" not in vg.status:
        raise Refused(f"Volume group {vg.name} is not resizeable", next=f"vgchange --resizeable y {vg.name}")
    missing = [pv.name for pv in vg.pvs if pv.missing]
    if missing and not partial:
        raise Refused(
            f"Cannot change VG {vg.name} while PVs are missing: {', '.join(missing)}",
            next=f"vgextend --restoremissing {vg.name} DEVICE, or vgreduce --removemissing {vg.name}",
        )


def _check_status(vg: Vg) -> None:
    """A status that is not known may change what all the rest means: LVM2 does not even read such a VG.  What
    may be passed over stands among the flags instead."""
    lvs = dict.fromkeys(lv.status for lv in vg.lvs)
    kinds = (
        ("VG", _VG_STATUS, [vg.status]),
        ("PV", _PV_STATUS, [pv.status for pv in vg.pvs]),
        ("LV", _LV_STATUS, list(lvs)),
    )
    for what, known, found in kinds:
        for word in (word for status in found for word in status if word not in known):
            raise Refused(
                f"Cannot change VG {vg.name}: {what} status {printable(word)} is not known here",
                next="change it with the version of LVM2 that wrote it, or a newer ringfence",
            )
