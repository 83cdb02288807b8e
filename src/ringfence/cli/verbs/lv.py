"""lvcreate, lvchange, lvrename, lvremove."""

from __future__ import annotations

from ringfence.cli.verbs.foreground import FOREGROUND, made_active, until_clean
from ringfence.cli.verbs.kinds import extents, segment_type, size, tag
from ringfence.cli.verbs.lv_kinds import (
    ALLOC,
    CONTIGUOUS,
    FOREVER,
    NO_WIPE,
    PERMISSION,
    STOCK_DEVICE,
    STOCK_KINDS,
    STRIPES,
    places,
    policy_of,
    split,
    split_lv,
)
from ringfence.cli.verbs.table import CHANGE, SELECT, Given, Option, Stock, Verb, Work, call, ignored
from ringfence.cli.verbs.vg import ACTIVATE, BOOT, DISCONNECT, NO_EFFECT, NOW, PARTIAL, is_partial
from ringfence.cli.verbs.words import bare
from ringfence.core.errors import BadInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence.client.brief import Brief

ADD_TAG = Option("addtag", ("--addtag",), "A tag more; any number of times.", "TAG", tag, many=True)
FORCE = Option("force", ("-f", "--force"), "Shared, too, whatever is on it.")
NO = ("n", "no", "0")
DROP_TAG = Option("deltag", ("--deltag",), "A tag less; any number of times.", "TAG", tag, many=True)


def _lvcreate(given: Given) -> Work:
    if (given["size"] is None) == (given["extents"] is None):
        raise BadInput("give one of -L SIZE and -l EXTENTS")
    vg, name, pvs = _new_name(given)
    count, percent = given["extents"] or (None, None)
    made = call(
        "LvCreate", vg=vg, lv=name or None, size_bytes=given["size"], extents=count, percent=percent or None,
        activate="n" if given["foreground"] else given["activate"], wait_ms=given["wait"],
        stripes=given["stripes"],
        stripe_size_bytes=given["stripesize"], alloc=policy_of(given), pvs=places(pvs),
        tags=given["addtag"] or None, permission=given["permission"],
        wipe=False if given["nowipe"] or given["zero"] in NO else None,
    )  # fmt: skip
    return [(f"{vg}/{name}" if name else vg, made)]


def _new_name(given: Given) -> tuple[str, str, tuple[str, ...]]:
    """VG, name ("": the next lvolN), PVs.  LVM2 takes `-n NAME VG` and `-n VG/NAME`."""
    name: str | None = given["name"]
    if name == "":
        raise BadInput('LV name "" is invalid', next="leave out --name for the next lvolN")
    group, slash, rest = bare(name or "").partition("/")
    if not slash:
        if not given.names:
            raise BadInput("Missing argument 'VG'")
        vg = bare(given.names[0])
        if "/" in vg:
            raise BadInput(f"{given.names[0]!r} is not a VG", next="name the LV with --name")
        return vg, group, given.names[1:]
    words = given.names
    if words and bare(words[0]) == group:
        words = words[1:]
    elif words and words[0][:1] not in ("/", "@"):
        raise BadInput(f"two VGs are named: {group} and {words[0]}")
    return group, rest, words


def _lvchange(given: Given) -> Work:
    refresh, add, drop = bool(given["refresh"]) or None, given["addtag"] or None, given["deltag"] or None
    asked = (given["activate"], add, drop, given["permission"], policy_of(given), refresh)
    if not any(asked):
        raise BadInput(
            "nothing to change",
            next="give --activate, --addtag, --deltag, --permission, --alloc or --refresh"
        )
    return [
        (
            name,
            call(
                "LvChange", vg=vg, lv=lv, activate=given["activate"], add_tags=add, drop_tags=drop,
                permission=given["permission"], alloc=policy_of(given), refresh=refresh,
                force=bool(given["force"]) or None, partial=is_partial(given),
                disconnect=bool(given["disconnect"]) or None,
            )
            | {"wait_ms": given["wait"]},
        )
        for name in given.names
        for vg, lv in [split(name)]
    ]  # fmt: skip


def _lvrename(given: Given) -> Work:
    """`VG OLD NEW`, `VG/OLD NEW` or `VG/OLD VG/NEW`."""
    if len(given.names) == 3:
        (vg, old, new) = given.names
        old, new = (bare(one).removeprefix(vg + "/") for one in (old, new))
    else:
        vg, old = split_lv(given.names[0])
        new = bare(given.names[1]).removeprefix(vg + "/")
    if "/" in old or "/" in new:
        raise BadInput("an LV stays in its VG")
    return [(f"{vg}/{old}", call("LvRename", vg=vg, lv=old, new=new, wait_ms=given["wait"]))]


def _lvremove(given: Given) -> Work:
    force = bool(given["force"] or given["yes"]) or None
    wipe = False if given["nowipe"] else None
    return [
        (name, call("LvRemove", vg=vg, lv=lv, force=force, wipe=wipe))
        for name in given.names
        for vg, lv in [split(name)]
    ]


def each_lv(daemon: Brief, work: Work) -> Work:
    """A VG alone stands for each of its LVs."""
    found: Work = []
    for name, one in work:
        if one["lv"]:
            found.append((name, one))
            continue
        names = daemon.call(call("Lvs", vg=one["vg"], fields=["lv_name"]))["columns"]["lv_name"]
        found += [(f"{one['vg']}/{name}", one | {"lv": name}) for name in names]
    return found


VERBS = {
    "lvcreate": Verb(
        "lvcreate", "Make an LV and activate it here.", "[VG] [PV[:FIRST-LAST]|@TAG...]",
        (
            Option("name", ("-n", "--name"), "[default: lvol0, lvol1, …]", "NAME"),
            Option("size", ("-L", "--size"), "64m, 1.5g; rounded up to whole extents.", "SIZE", size),
            Option("extents", ("-l", "--extents"), "25, 50%VG, 100%FREE, 100%PVS.", "EXTENTS", extents),
            *STRIPES,
            Option("type", ("--type",), "linear or striped.", "TYPE", segment_type),
            ALLOC, CONTIGUOUS, ADD_TAG, PERMISSION,
            ACTIVATE.saying("ey or n.  [default: ey]"),
            FOREVER, NO_WIPE,
            FOREGROUND.saying("Say how far the zeroing is; activate it then."),
            Option("zero", ("-Z", "--zero"), "n: as --no-wipe; else all of it is zeroed.", "y|n"),
            Option("wipesignatures", ("-W", "--wipesignatures"), "Nothing more: zeroing does it.", "y|n"),
            *NO_EFFECT, *CHANGE,
        ),
        _lvcreate,
        "Prints where it can be used: a socket, and a URI for qemu and libnbd. PVs say where it may be.",
        (
            ("lvcreate -L 10g -n vm1 vg0", "vg0/vm1, of 10 GiB"),
            ("lvcreate -l 100%FREE -n all vg0", "as large as there is room"),
            ("lvcreate -i 2 -L 10g -n fast vg0", "striped over two PVs"),
            ("lvcreate -an -L 10g -n vm1 vg0 /dev/sdb", "on this PV, and it is not activated"),
        ),
        stock=(*STOCK_KINDS, *STOCK_DEVICE, Stock(("-r", "--readahead"), "read-ahead")),
        names="vg",
        after=made_active,
    ),
    "lvchange": Verb(
        "lvchange", "Activate or deactivate LVs here; change what they are.", "VG|VG/LV...",
        (
            ACTIVATE, NOW, *PARTIAL, ADD_TAG, DROP_TAG, PERMISSION, ALLOC, CONTIGUOUS,
            Option("refresh", ("--refresh",), "Reload what is open here by what the metadata says."),
            FORCE, DISCONNECT, SELECT, *BOOT, *CHANGE,
        ),
        _lvchange,
        "VG stands for all of its LVs. Without --wait it is refused at once, and told who holds the LV. What "
        "is in use stays active, as for LVM2, with --force, too.",
        (
            ("lvchange -aey vg0/vm1", "this host alone may write"),
            ("lvchange -asy vg0/vm1", "shared: for a cluster file system"),
            ("lvchange -an vg0/vm1", "others may have it"),
            ("lvchange -an --disconnect vg0/vm1", "though a machine here runs on it"),
            ("lvchange --addtag db vg0/vm1", "a tag, seen by all hosts at once"),
        ),
        least=1,
        stock=(
            *STOCK_DEVICE, Stock(("-r", "--readahead"), "read-ahead"),
            Stock(("--resync",), "RAID", False), Stock(("--syncaction",), "RAID"), Stock(("--rebuild",),
                "RAID"),
            Stock(("--writemostly",), "RAID"), Stock(("--writebehind",), "RAID"), Stock(("--discards",),
                "thin volumes"),
            Stock(("--poll",), "polling"), Stock(("--cachemode",), "caching"),
            Stock(("--cachepolicy",), "caching"), Stock(("--cachesettings",), "caching"),
            Stock(("-Z", "--zero"), "thin volumes"), Stock(("--errorwhenfull",), "thin volumes"),
            Stock(("--compression",), "VDO"), Stock(("--deduplication",), "VDO"),
            Stock(("--vdosettings",), "VDO"), Stock(("--maxrecoveryrate",), "RAID"),
            Stock(("--minrecoveryrate",), "RAID"), Stock(("--detachprofile",), "profiles", False),
            Stock(("--readonly",), "a look", False),
        ),
        names="lv",
    ),
    "lvrename": Verb(
        "lvrename", "Give an LV another name, also while it is in use.", "VG/LV NEW",
        (FOREVER, *NO_EFFECT, *CHANGE),
        _lvrename,
        "Also as LVM2 has it: VG OLD NEW. Its path gets the new name on every host.",
        (("lvrename vg0/vm1 web", "vg0/vm1 is vg0/web"),),
        least=2, most=3,
        names="lv",
    ),
    "lvremove": Verb(
        "lvremove", "Remove LVs.", "VG|VG/LV...",
        (
            Option("force", ("-f", "--force"), "Even if it is active here."), NO_WIPE, FOREGROUND, SELECT,
            ignored("--nohistory"), *NO_EFFECT, *CHANGE,
        ),
        _lvremove,
        "VG stands for all of its LVs. One that is active here needs --force or --yes; one that is "
        "in use here, as lvs tells (o), is not removed by either.",
        (
            ("lvremove vg0/vm1", "its extents are free again"),
            ("lvremove -y -S 'lv_tags=old && lv_size<1g'", "all small ones with that tag"),
        ),
        least=1,
        expand=each_lv,
        names="lv",
        after=until_clean,
    ),
}  # fmt: skip
