"""vgextend, vgreduce, vgrename, vgck."""

from __future__ import annotations

from ringfence.cli.verbs.pv import LABEL, METADATA, path
from ringfence.cli.verbs.table import CHANGE, Given, Option, Stock, Verb, Work, call, ignored
from ringfence.cli.verbs.words import bare
from ringfence.core.errors import BadInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence.client.brief import Brief


def _vgextend(given: Given) -> Work:
    vg, *devices = given.names
    extend = call(
        "VgExtend", vg=vg, devices=[path(one) for one in devices], force=bool(given["force"]) or None,
        metadata_size_bytes=given["metadatasize"], restore_missing=bool(given["restoremissing"]) or None,
    )  # fmt: skip
    return [(vg, extend)]


def _vgreduce(given: Given) -> Work:
    vg, *devices = given.names
    if bool(devices) + bool(given["all"]) + bool(given["removemissing"]) != 1:
        raise BadInput("give one of PVs, --all and --removemissing")
    reduce = call(
        "VgReduce", vg=vg, devices=[path(one) for one in devices] or None, all=bool(given["all"]) or None,
        remove_missing=bool(given["removemissing"]) or None, force=bool(given["force"]) or None,
    )  # fmt: skip
    return [(vg, reduce)]


def _vgrename(given: Given) -> Work:
    old, new = given.names[0], bare(given.names[1])
    return [(old, call("VgRename", vg=old, new=new))]


def _vgck(given: Given) -> Work:
    update = bool(given["updatemetadata"]) or None
    return [(vg, call("VgCk", vg=vg, update_metadata=update)) for vg in given.names or ("",)]


def each_vg(daemon: Brief, work: Work) -> Work:
    """No name stands for every VG."""
    if work[0][0]:
        return work
    rows = daemon.call(call("Vgs"))["rows"]
    return [(row["vg_name"], work[0][1] | {"vg": row["vg_name"]}) for row in rows]


VERBS = {
    "vgextend": Verb(
        "vgextend", "Add PVs to a VG.", "VG DEVICE...",
        (
            Option("force", ("-f", "--force"), "Over other signatures and damaged labels."),
            Option("restoremissing", ("--restoremissing",),
                "They were missing, and are to be trusted again."),
            METADATA, *LABEL, *CHANGE,
        ),
        _vgextend,
        "Devices that are no PVs become PVs.",
        (("vgextend vg0 /dev/sdd", "vg0 has more room, on every host at once"),),
        least=2,
        stock=(
            Stock(("--dataalignment",), "another alignment"), Stock(("--labelsector",),
                "another label sector"),
            Stock(("--metadatacopies",), "another number of metadata areas"),
            Stock(("--pvmetadatacopies",), "another number of metadata areas"),
            Stock(("--bootloaderareasize",), "a bootloader area"),
            Stock(("--metadataignore",), "an ignored metadata area"),
            Stock(("--dataalignmentoffset",), "another alignment"),
        ),
        names="vg",
    ),
    "vgreduce": Verb(
        "vgreduce", "Take PVs out of a VG.", "VG [PV...]",
        (
            Option("all", ("-a", "--all"), "All PVs that are not in use."),
            Option("removemissing", ("--removemissing",), "PVs whose devices are missing."),
            Option("force", ("-f", "--force"), "With --removemissing: also LVs that are partly on them."),
            *CHANGE,
        ),
        _vgreduce,
        "Nothing of an LV may be on them; pvmove empties a PV.",
        (
            ("vgreduce vg0 /dev/sdd", "a PV that no LV is on"),
            ("vgreduce --removemissing vg0", "what is gone for good"),
        ),
        least=1,
        stock=(Stock(("--mirrorsonly",), "mirrors", False),),
        names="vg",
    ),
    "vgrename": Verb(
        "vgrename", "Give a VG another name.", "VG|UUID NEW",
        (ignored("-f", "--force"), *CHANGE),
        _vgrename,
        "No LV of it may be active on any host.",
        (("vgrename vg0 store", "its lockspace has the new name, too"),),
        least=2, most=2,
        names="vg",
    ),
    "vgck": Verb(
        "vgck", "Check VGs' metadata.", "[VG...]",
        (
            Option("updatemetadata", ("--updatemetadata",),
                "Write it anew everywhere; clear PVs taken out of it."),
            *CHANGE,
        ),
        _vgck,
        "Without names: of all VGs.",
        (("vgck --updatemetadata vg0", "after one of its PVs had lagged behind"),),
        expand=each_vg,
        names="vg",
    ),
}  # fmt: skip
