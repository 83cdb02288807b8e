"""What the verbs of LVs have in common: names, sizes, places; and what is left to stock LVM2."""

from __future__ import annotations

from ringfence.cli.verbs.kinds import (
    extents_change,
    policy,
    positive,
    size,
    size_change,
    wait_ms,
    yes_or_no,
)
from ringfence.cli.verbs.pv import path
from ringfence.cli.verbs.table import Given, Option, Stock
from ringfence.core.errors import BadInput

FOREVER = Option(
    "wait", ("--wait",), "How long to queue for a lock: seconds, or forever.  [default: forever]", "SECONDS",
    wait_ms, None, ours=True,
)  # fmt: skip
POLICIES = ("contiguous", "cling", "normal", "anywhere", "inherit")
ALLOC = Option(
    "alloc", ("--alloc",), "How extents are chosen: contiguous, cling, normal, anywhere, inherit.", "POLICY",
    policy, choices=POLICIES,
)  # fmt: skip
CONTIGUOUS = Option("contiguous", ("-C", "--contiguous"), "y: as --alloc contiguous.", "y|n", yes_or_no)
NO_WIPE = Option(
    "nowipe", ("--no-wipe",), "Leave what is on its extents where whoever gets them can read it.", ours=True
)
STRIPES = (
    Option("stripes", ("-i", "--stripes"), "Over so many PVs.", "NUMBER", positive),
    Option(
        "stripesize", ("-I", "--stripesize"), "So much on one PV before the next.  [default: 64k]", "SIZE",
        lambda text: size(text + "k" if text.isdigit() else text),
    ),
)  # fmt: skip
PERMISSION = Option(
    "permission", ("-p", "--permission"), "rw or r.", "rw|r",
    lambda text: {"rw": "rw", "r": "r", "ro": "r"}[_one_of(text, ("rw", "r", "ro"))], choices=("rw", "r"),
)  # fmt: skip
CHANGES = (
    Option("size", ("-L", "--size"), "To so much; +SIZE and -SIZE: by so much.", "[+|-]SIZE", size_change),
    Option(
        "extents", ("-l", "--extents"), "The same in extents: 25, +100%FREE, 50%VG, 10%LV, 100%PVS.",
        "[+|-]EXTENTS", extents_change,
    ),
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
    Stock(("--minrecoveryrate",), _RAID), Stock(("--cachemetadataformat",), _CACHE),
    Stock(("--errorwhenfull",), _THIN),
)  # fmt: skip
"""What makes other kinds of LVs than linear and striped ones."""
STOCK_DEVICE = (
    Stock(("-M", "--persistent"), "fixed device numbers"), Stock(("--major",), "fixed device numbers"),
    Stock(("--minor",), "fixed device numbers"), Stock(("-k", "--setactivationskip"), "activation skip"),
    Stock(("--setautoactivation",), "autoactivation"), Stock(("--metadataprofile",), "profiles"),
    Stock(("-K", "--ignoreactivationskip"), "activation skip", False),
)  # fmt: skip


def _one_of(text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise BadInput(f"{text!r} is not one of {', '.join(known)}")
    return text


def split(name: str) -> tuple[str, str]:
    """VG/LV, or VG.  Raises BadInput."""
    vg, slash, lv = name.partition("/")
    if not vg or (slash and not lv) or "/" in lv:
        raise BadInput(f"{name!r} is not VG/LV")
    return vg, lv


def split_lv(name: str) -> tuple[str, str]:
    """VG/LV.  Raises BadInput."""
    vg, lv = split(name)
    if not lv:
        raise BadInput(f"{name!r} is not VG/LV")
    return vg, lv


def places(words: tuple[str, ...]) -> tuple[str, ...] | None:
    """PVs where extents may be: DEVICE, DEVICE:FIRST-LAST:…, @TAG.  None: anywhere."""
    found = []
    for word in words:
        device, colon, ranges = word.partition(":")
        found.append(word if word.startswith("@") else path(device) + colon + ranges)
    return tuple(found) or None


def policy_of(given: Given) -> str | None:
    """--alloc, or what --contiguous says."""
    alloc: str | None = given["alloc"]
    if given["contiguous"] is not None and alloc is None:
        return "contiguous" if given["contiguous"] else "inherit"
    return alloc
