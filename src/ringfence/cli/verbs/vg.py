"""vgcreate, vgchange, vgremove."""

from __future__ import annotations

from ringfence.cli.verbs.kinds import (
    activation,
    activation_mode,
    policy,
    positive,
    size,
    tag,
    wait_ms,
    yes_or_no,
)
from ringfence.cli.verbs.pv import LABEL, METADATA, path
from ringfence.cli.verbs.table import CHANGE, SELECT, Given, Option, Stock, Verb, Work, call, ignored
from ringfence.core.errors import BadInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence.client.brief import Brief

NOW = Option(
    "wait", ("--wait",), "How long to queue for a lock: seconds, or forever.  [default: 0]", "SECONDS",
    wait_ms, 0, ours=True,
)  # fmt: skip
ACTIVATE = Option(
    "activate", ("-a", "--activate"), "ey: exclusive, sy: shared, n: no more.", "ey|sy|n", activation,
    choices=("ey", "sy", "n"),
)  # fmt: skip
PARTIAL = (
    Option("partial", ("-P", "--partial"), "With -a: though PVs are missing; what was there fails."),
    Option("activationmode", ("--activationmode",), "partial: as --partial.", "MODE", activation_mode,
        "complete", choices=("complete", "degraded", "partial")),
)  # fmt: skip
DISCONNECT = Option(
    "disconnect", ("--disconnect",), "With -a: what is in use here, too; its NBD clients are cut off.",
    ours=True,
)  # fmt: skip


def is_partial(given: Given) -> bool | None:
    return bool(given["partial"] or given["activationmode"] == "partial") or None


NO_EFFECT = (
    ignored("--noudevsync"), ignored("--monitor", metavar="y|n"), ignored("--ignoremonitoring"),
)  # fmt: skip
BOOT = (*NO_EFFECT, ignored("--sysinit"), ignored("--ignorelockingfailure"))
"""What units and scripts give that activate at boot."""


PROPERTIES = (
    Option("addtag", ("--addtag",), "A tag more; any number of times.", "TAG", tag, many=True),
    Option("deltag", ("--deltag",), "A tag less; any number of times.", "TAG", tag, many=True),
    Option("alloc", ("--alloc",), "How extents are chosen: contiguous, cling, normal, anywhere.", "POLICY",
        policy),
    Option("resizeable", ("-x", "--resizeable"), "May PVs be added and taken out?", "y|n", yes_or_no),
    Option("logicalvolume", ("-l", "--logicalvolume"), "So many LVs at most; 0: any number.", "NUMBER",
        positive),
    Option("maxphysicalvolumes", ("-p", "--maxphysicalvolumes"), "So many PVs at most; 0: any number.",
        "NUMBER",
        positive),
    Option("setautoactivation", ("--setautoactivation",), "May stock LVM2 activate it by itself?", "y|n",
        yes_or_no),
    Option("physicalextentsize", ("-s", "--physicalextentsize"),
        "Another extent size, if all that is allocated fits it.", "SIZE", size),
)  # fmt: skip


def _vgcreate(given: Given) -> Work:
    vg, *devices = given.names
    made = call(
        "VgCreate", vg=vg, devices=[path(one) for one in devices], shared=bool(given["shared"]) or None,
        extent_size_bytes=given["physicalextentsize"], metadata_size_bytes=given["metadatasize"],
        force=bool(given["force"]) or None, tags=given["addtag"] or None, policy=given["alloc"],
        max_lv=given["maxlogicalvolumes"], max_pv=given["maxphysicalvolumes"],
        autoactivation=given["setautoactivation"],
    )  # fmt: skip
    return [(vg, made)]


def _vgchange(given: Given) -> Work:
    locks = [key for key in ("lockstart", "lockstop") if given[key]]
    changes = {
        "add_tags": given["addtag"] or None, "drop_tags": given["deltag"] or None, "policy": given["alloc"],
        "resizeable": given["resizeable"], "max_lv": given["logicalvolume"],
        "max_pv": given["maxphysicalvolumes"], "autoactivation": given["setautoactivation"],
        "extent_size_bytes": given["physicalextentsize"],
    }  # fmt: skip
    changed = any(value is not None for value in changes.values())
    refresh = bool(given["refresh"])
    if len(locks) + (given["activate"] is not None) + changed + refresh != 1:
        raise BadInput("give one of --lockstart, --lockstop, --activate, --refresh, and properties")
    if locks:
        return [(vg, call("VgChange", action=locks[0], vg=vg or None)) for vg in given.names or ("",)]
    if changed:
        if not given.names:
            raise BadInput("give the names of VGs")
        return [(vg, call("VgSet", vg=vg, **changes)) for vg in given.names]
    if refresh:
        return [(vg, call("LvChange", vg=vg, lv="", refresh=True)) for vg in given.names or ("",)]
    return [
        (
            vg,
            call(
                "LvChange", vg=vg, lv="", activate=given["activate"], partial=is_partial(given),
                disconnect=bool(given["disconnect"]) or None,
            )
            | {"wait_ms": given["wait"]}
            | ({} if given["json"] else {"counted": True}),
        )
        for vg in given.names or ("",)
    ]


def each_of_ours(daemon: Brief, work: Work) -> Work:
    """No name stands for every VG that this cluster shares, as for stock LVM2 for every VG."""
    if work[0][0] or "lv" not in work[0][1]:  # --lockstart and --lockstop find them themselves
        return work
    cluster = daemon.call(call("Status"))["cluster"]
    return [
        (row["vg_name"], work[0][1] | {"vg": row["vg_name"]})
        for row in daemon.call(call("Vgs"))["rows"]
        if (row["vg_lock_type"], row["vg_lock_args"].partition(":")[2]) == ("dlm", cluster)
    ]


def _vgremove(given: Given) -> Work:
    force = bool(given["force"] or given["yes"]) or None
    return [(vg, call("VgRemove", vg=vg, force=force)) for vg in given.names]


VERBS = {
    "vgcreate": Verb(
        "vgcreate", "Make a shared VG.", "VG DEVICE...",
        (
            Option("shared", ("--shared",), "For several hosts; other VGs are not made here."),
            Option("physicalextentsize", ("-s", "--physicalextentsize"), "[default: 4m]", "SIZE", size),
            Option("force", ("-f", "--force"), "Over other signatures and damaged labels."),
            Option("maxlogicalvolumes", ("-l", "--maxlogicalvolumes"), "So many LVs at most.", "NUMBER",
                positive),
            Option("maxphysicalvolumes", ("-p", "--maxphysicalvolumes"), "So many PVs at most.", "NUMBER",
                positive),
            *(one for one in PROPERTIES if one.key in ("addtag", "alloc", "setautoactivation")),
            METADATA, *LABEL, *CHANGE,
        ),
        _vgcreate,
        "Devices that are no PVs become PVs.",
        (
            ("vgcreate --shared vg0 /dev/sdb /dev/sdc", "a VG for all hosts of the cluster"),
            ("vgcreate --shared --metadatasize 64m vg0 /dev/sdb", "with room for 100,000 LVs"),
        ),
        least=2,
        stock=(
            Stock(("--systemid",), "a VG of one host"),
            Stock(("-c", "--clustered"), "a VG under clvmd"),
            Stock(("--locktype",), "another lock type"),
            Stock(("--vgmetadatacopies",), "another number of metadata areas"),
            Stock(("--metadatacopies",), "another number of metadata areas"),
            Stock(("--pvmetadatacopies",), "another number of metadata areas"),
            Stock(("--dataalignment",), "another alignment"),
            Stock(("--dataalignmentoffset",), "another alignment"),
            Stock(("--labelsector",), "another label sector"), Stock(("--metadataprofile",), "profiles"),
        ),
        names="path",
    ),
    "vgchange": Verb(
        "vgchange", "A VG's lockspace, its LVs' activation, its properties.", "[VG...]",
        (
            Option("lockstart", ("--lockstart", "--lock-start"), "Start the VGs' lockspaces here."),
            Option(
                "lockstop", ("--lockstop", "--lock-stop"),
                "Stop them here, until --lockstart or a boot; no LV may be active.",
            ),
            ACTIVATE, NOW, *PARTIAL, DISCONNECT,
            Option("refresh", ("--refresh",), "Reload what is open here by what the metadata says."),
            *PROPERTIES, SELECT, *BOOT, ignored("-f", "--force"), *CHANGE,
        ),
        _vgchange,
        "Without names, --lockstart, --lockstop, --activate and --refresh mean all VGs of this cluster.",
        (
            ("vgchange --lockstart vg0", "this host takes part in vg0"),
            ("vgchange -an vg0", "no LV of vg0 is active here any more"),
            ("vgchange --addtag backup vg0", "a tag"),
        ),
        stock=(
            Stock(("--locktype", "--lock-type"), "another lock type"), Stock(("--systemid",),
                "a VG of one host"),
            Stock(("-c", "--clustered"), "a VG under clvmd"), Stock(("-u", "--uuid"), "a new uuid", False),
            Stock(("--poll",), "polling"), Stock(("--metadataprofile",), "profiles"),
            Stock(("--detachprofile",), "profiles", False),
            Stock(("--pvmetadatacopies",), "another number of metadata areas"),
            Stock(("-K", "--ignoreactivationskip"), "activation skip", False),
            Stock(("--autoactivation",), "activation by events"), Stock(("--readonly",), "a look", False),
            Stock(("--vgmetadatacopies",), "another number of metadata areas"),
        ),
        expand=each_of_ours,
        names="vg",
    ),
    "vgremove": Verb(
        "vgremove", "Remove VGs.", "VG...",
        (Option("force", ("-f", "--force"), "With all its LVs."), SELECT, ignored("--noudevsync"), *CHANGE),
        _vgremove,
        "Their devices stay PVs. What LVs held stays on them: lvremove (-y VG) has it wiped, --force not. "
        "An LV that ringfence makes there later shows none of it; one that stock LVM2 makes does.",
        (("vgremove -f vg0", "vg0 with all that is in it"),),
        least=1,
        names="vg",
    ),
}  # fmt: skip
