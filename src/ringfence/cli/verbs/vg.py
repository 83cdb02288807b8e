"""vgcreate, vgchange, vgremove."""

from ringfence.cli.verbs.kinds import activation, size, wait_ms
from ringfence.cli.verbs.pv import METADATA, path
from ringfence.cli.verbs.table import CHANGE, Given, Option, Stock, Verb, Work, call
from ringfence.core.errors import BadInput

NOW = Option(
    "wait", ("--wait",), "How long to queue for a lock: seconds, or forever.  [default: 0]", "SECONDS",
    wait_ms, 0, ours=True,
)  # fmt: skip
ACTIVATE = Option(
    "activate", ("-a", "--activate"), "ey: exclusive, sy: shared, n: no more.", "ey|sy|n", activation,
    choices=("ey", "sy", "n"),
)  # fmt: skip


def _vgcreate(given: Given) -> Work:
    vg, *devices = given.names
    made = call(
        "VgCreate", vg=vg, devices=[path(one) for one in devices], shared=bool(given["shared"]) or None,
        extent_size_bytes=given["physicalextentsize"], metadata_size_bytes=given["metadatasize"],
    )  # fmt: skip
    return [(vg, made)]


def _vgchange(given: Given) -> Work:
    asked = [key for key in ("lockstart", "lockstop") if given[key]]
    if len(asked) + (given["activate"] is not None) != 1:
        raise BadInput("give one of --lockstart, --lockstop and --activate")
    if asked:
        return [(vg, call("VgChange", action=asked[0], vg=vg or None)) for vg in given.names or ("",)]
    if not given.names:
        raise BadInput("--activate needs the names of VGs")
    return [
        (vg, call("LvChange", vg=vg, lv="", activate=given["activate"]) | {"wait_ms": given["wait"]})
        for vg in given.names
    ]


def _vgremove(given: Given) -> Work:
    force = bool(given["force"] or given["yes"]) or None
    return [(vg, call("VgRemove", vg=vg, force=force)) for vg in given.names]


VERBS = {
    "vgcreate": Verb(
        "vgcreate", "Make a shared VG.", "VG DEVICE...",
        (
            Option("shared", ("--shared",), "For several hosts; other VGs are not made here."),
            Option(
                "physicalextentsize", ("-s", "--physicalextentsize"), "[default: 4m]", "SIZE", size
            ),
            METADATA, *CHANGE,
        ),
        _vgcreate,
        "Devices that are no PVs become PVs.",
        (("vgcreate --shared vg0 /dev/sdb /dev/sdc", "a VG for all hosts of the cluster"),),
        least=2,
        stock=(
            Stock(("--systemid",), "a VG of one host"),
            Stock(("-c", "--clustered"), "a VG under clvmd"),
            Stock(("--locktype",), "another lock type"),
            Stock(("--vgmetadatacopies",), "another number of metadata areas"),
            Stock(("--metadatacopies",), "another number of metadata areas"),
            Stock(("--alloc",), "another allocation policy"),
            Stock(("--dataalignment",), "another alignment"),
        ),
        names="path",
    ),
    "vgchange": Verb(
        "vgchange", "Start or stop a VG's lockspace; (de)activate its LVs.", "[VG...]",
        (
            Option("lockstart", ("--lockstart", "--lock-start"), "Start the VGs' lockspaces here."),
            Option("lockstop", ("--lockstop", "--lock-stop"), "Stop them here; no LV may be active."),
            ACTIVATE, NOW, *CHANGE,
        ),
        _vgchange,
        "Without names: the lockspaces of all VGs of this cluster.",
        (
            ("vgchange --lockstart vg0", "this host takes part in vg0"),
            ("vgchange -an vg0", "no LV of vg0 is active here any more"),
        ),
        names="vg",
    ),
    "vgremove": Verb(
        "vgremove", "Remove VGs.", "VG...",
        (Option("force", ("-f", "--force"), "With all its LVs."), *CHANGE),
        _vgremove,
        "Their devices stay PVs.",
        (("vgremove -f vg0", "vg0 with all that is in it"),),
        least=1,
        names="vg",
    ),
}  # fmt: skip
