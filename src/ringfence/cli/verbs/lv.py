"""lvcreate, lvchange, lvremove."""

from ringfence.cli.verbs.kinds import extents, segment_type, size, wait_ms
from ringfence.cli.verbs.table import CHANGE, Given, Option, Stock, Verb, Work, call
from ringfence.cli.verbs.vg import ACTIVATE, NOW
from ringfence.client.brief import Brief
from ringfence.core.errors import BadInput

_FOREVER = Option(
    "wait", ("--wait",), "How long to queue for a lock: seconds, or forever.  [default: forever]", "SECONDS",
    wait_ms, None, ours=True,
)  # fmt: skip

_RAID, _THIN, _CACHE, _VDO = "RAID", "thin volumes", "caching", "VDO"
_MIRROR, _SNAPSHOT = "mirrors", "snapshots"
STOCK_KINDS = (
    Stock(("-m", "--mirrors"), _MIRROR), Stock(("--mirrorlog",), _MIRROR),
    Stock(("-R", "--regionsize"), _MIRROR), Stock(("--nosync",), _MIRROR, False),
    Stock(("--corelog",), _MIRROR, False), Stock(("-T", "--thin"), _THIN, False),
    Stock(("--thinpool",), _THIN), Stock(("-V", "--virtualsize"), _THIN), Stock(("--discards",), _THIN),
    Stock(("--poolmetadatasize",), _THIN), Stock(("--poolmetadata",), _THIN),
    Stock(("--poolmetadataspare",), _THIN), Stock(("-s", "--snapshot"), _SNAPSHOT, False),
    Stock(("-c", "--chunksize"), _SNAPSHOT), Stock(("-H", "--cache"), _CACHE, False),
    Stock(("--cachepool",), _CACHE), Stock(("--cachevol",), _CACHE), Stock(("--cachedevice",), _CACHE),
    Stock(("--cachesize",), _CACHE), Stock(("--cachemode",), _CACHE), Stock(("--cachepolicy",), _CACHE),
    Stock(("--cachesettings",), _CACHE), Stock(("--vdo",), _VDO, False), Stock(("--vdopool",), _VDO),
    Stock(("--vdosettings",), _VDO), Stock(("--compression",), _VDO), Stock(("--deduplication",), _VDO),
    Stock(("--raidintegrity",), _RAID), Stock(("--raidintegrityblocksize",), _RAID),
    Stock(("--raidintegritymode",), _RAID), Stock(("--maxrecoveryrate",), _RAID),
    Stock(("--minrecoveryrate",), _RAID),
)  # fmt: skip
"""What makes other kinds of LVs than linear and striped ones."""


def split(name: str) -> tuple[str, str]:
    """VG/LV, or VG.  Raises BadInput."""
    vg, slash, lv = name.removeprefix("/dev/").partition("/")
    if not vg or (slash and not lv) or "/" in lv:
        raise BadInput(f"{name!r} is not VG/LV")
    return vg, lv


def _lvcreate(given: Given) -> Work:
    if (given["size"] is None) == (given["extents"] is None):
        raise BadInput("give one of -L SIZE and -l EXTENTS")
    vg, name = _new_name(given)
    count, percent = given["extents"] or (None, None)
    made = call(
        "LvCreate", vg=vg, lv=name or None, size_bytes=given["size"], extents=count, percent=percent or None,
        activate=given["activate"], wait_ms=given["wait"],
    )  # fmt: skip
    return [(f"{vg}/{name}" if name else vg, made)]


def _new_name(given: Given) -> tuple[str, str]:
    """LVM2 takes `-n NAME VG` and `-n VG/NAME`."""
    vg = given.names[0] if given.names else ""
    group, slash, rest = given["name"].partition("/")
    if slash:
        if vg not in ("", group):
            raise BadInput(f"two VGs are named: {group} and {vg}")
        return group, rest
    if not vg:
        raise BadInput("Missing argument 'VG'")
    return vg, given["name"]


def _lvchange(given: Given) -> Work:
    if given["activate"] is None:
        raise BadInput("Missing option '-a' / '--activate'")
    return [
        (name, call("LvChange", vg=vg, lv=lv, activate=given["activate"]) | {"wait_ms": given["wait"]})
        for name in given.names
        for vg, lv in [split(name)]
    ]


def _lvremove(given: Given) -> Work:
    force = bool(given["force"] or given["yes"]) or None
    return [
        (name, call("LvRemove", vg=vg, lv=lv, force=force))
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
        "lvcreate", "Make an LV and activate it here.", "VG",
        (
            Option("name", ("-n", "--name"), "[default: lvol0, lvol1, …]", "NAME", default=""),
            Option("size", ("-L", "--size"), "64m, 1.5g; rounded up to whole extents.", "SIZE", size),
            Option("extents", ("-l", "--extents"), "25, 50%VG, 100%FREE.", "EXTENTS", extents),
            Option("type", ("--type",), "linear.", "TYPE", segment_type),
            ACTIVATE._replace(help="ey or n.  [default: ey]"),
            _FOREVER, *CHANGE,
        ),
        _lvcreate,
        "Prints where it can be used: a socket, and a URI for qemu and libnbd.",
        (
            ("lvcreate -L 10g -n vm1 vg0", "vg0/vm1, of 10 GiB"),
            ("lvcreate -l 100%FREE -n all vg0", "as large as there is room"),
            ("lvcreate -an -L 10g -n vm1 vg0", "the same, and it is not activated"),
        ),
        most=1,
        stock=STOCK_KINDS,
        names="vg",
    ),
    "lvchange": Verb(
        "lvchange", "Activate or deactivate LVs here.", "VG|VG/LV...",
        (ACTIVATE, NOW, *CHANGE),
        _lvchange,
        "VG stands for all of its LVs.  Without --wait it is refused at once, and told who holds the LV.",
        (
            ("lvchange -aey vg0/vm1", "this host alone may write"),
            ("lvchange -asy vg0/vm1", "shared: for a live migration, or a cluster file system"),
            ("lvchange -an vg0/vm1", "others may have it"),
        ),
        least=1,
        names="lv",
    ),
    "lvremove": Verb(
        "lvremove", "Remove LVs.", "VG|VG/LV...",
        (Option("force", ("-f", "--force"), "Even if it is in use."), *CHANGE),
        _lvremove,
        "VG stands for all of its LVs.  One that is active here needs --force or --yes.",
        (("lvremove vg0/vm1", "its extents are free again"),),
        least=1,
        expand=each_lv,
        names="lv",
    ),
}  # fmt: skip
