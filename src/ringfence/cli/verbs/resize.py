"""lvextend, lvreduce, lvresize."""

from __future__ import annotations

from ringfence.cli.verbs.file_system import resize_file_system
from ringfence.cli.verbs.foreground import FOREGROUND, until_clean
from ringfence.cli.verbs.kinds import segment_type
from ringfence.cli.verbs.lv_kinds import (
    ALLOC,
    CHANGES,
    FOREVER,
    NO_WIPE,
    STOCK_KINDS,
    STRIPES,
    places,
    split_lv,
)
from ringfence.cli.verbs.table import CHANGE, Given, Option, Plan, Stock, Verb, Work, call
from ringfence.cli.verbs.vg import NO_EFFECT
from ringfence.core.errors import BadInput

FORCE = Option("force", ("-f", "--force"), "Reduce it: what is at its end is lost.")
RESIZEFS = Option("resizefs", ("-r", "--resizefs"), "Its file system, too, where it is a device here.")


def _resize(only: str) -> Plan:
    def plan(given: Given) -> Work:
        name, *words = given.names
        vg, lv = split_lv(name)
        size, extents = given["size"], given["extents"]
        pvs = places(tuple(words))
        if size is None and extents is None and pvs and only == "extend":
            extents = ("+", 100, "PVS")
        if (size is None) == (extents is None):
            raise BadInput("give one of -L SIZE and -l EXTENTS")
        sign, size_bytes = size if size is not None else ("", None)
        count, percent = None, None
        if extents is not None:
            sign, count, percent = extents
        if given["resizefs"] and (only == "reduce" or sign == "-"):
            raise BadInput(
                "a file system is not made smaller here",
                next="shrink it where it is mounted (resize2fs DEVICE SIZE), then lvreduce --force",
            )
        if {"extend": "-", "reduce": "+"}.get(only) == sign:
            raise BadInput(f"{sign} is not for lv{only}", next="lvresize takes both")
        unforced = only == "extend" or given["resizefs"]
        resize = call(
            "LvResize", vg=vg, lv=lv, size_bytes=size_bytes, extents=count, percent=percent or None,
            sign=sign or None, only=only or None,
            stripes=None if only == "reduce" else given["stripes"],
            stripe_size_bytes=None if only == "reduce" else given["stripesize"],
            alloc=None if only == "reduce" else given["alloc"], pvs=pvs,
            force=None if unforced else bool(given["force"] or given["yes"]) or None,
            wipe=False if given["nowipe"] else None, wait_ms=given["wait"],
        )  # fmt: skip
        return [(f"{vg}/{lv}", resize)]

    return plan


_GROW = (*STRIPES, ALLOC, NO_WIPE)
_REST = (FOREVER, *NO_EFFECT, *CHANGE)
_STOCK = (Stock(("-n", "--nofsck"), "a file system that is not checked", False),)
_TYPE = Option("type", ("--type",), "linear or striped.", "TYPE", segment_type)

VERBS = {
    "lvextend": Verb(
        "lvextend", "Make an LV larger, also while it is in use.", "VG/LV [PV[:FIRST-LAST]|@TAG...]",
        (
            *CHANGES, RESIZEFS, *_GROW, _TYPE, Option("force", ("-f", "--force"), "Nothing is asked."),
            *_REST,
        ),
        _resize("extend"),
        "Every host that has it open sees the new size at once; NBD clients when they connect anew. PVs say "
        "where the new extents may be; PVs alone: all that is free there.",
        (
            ("lvextend -L +10g vg0/vm1", "10 GiB more"),
            ("lvextend -l +100%FREE vg0/vm1", "all that is left"),
            ("lvextend -L 64g vg0/vm1 /dev/sdb:1000-", "the new extents from 1000 on, on this PV"),
        ),
        least=1,
        stock=(*STOCK_KINDS, *_STOCK, Stock(("--usepolicies",), "growth by policies", False)),
        names="lv",
        after=resize_file_system,
    ),
    "lvreduce": Verb(
        "lvreduce", "Make an LV smaller; what was at its end is lost.", "VG/LV",
        (
            *CHANGES, FORCE, RESIZEFS.saying("Refused: shrink the file system first."), NO_WIPE,
            FOREGROUND, *_REST,
        ),
        _resize("reduce"),
        "Needs --force or --yes. What it gives up is wiped before it is free.",
        (("lvreduce -f -L -1g vg0/vm1", "1 GiB less"),),
        least=1, most=1,
        stock=_STOCK,
        names="lv",
        after=until_clean,
    ),
    "lvresize": Verb(
        "lvresize", "Make an LV larger or smaller.", "VG/LV [PV[:FIRST-LAST]|@TAG...]",
        (*CHANGES, RESIZEFS, *_GROW, _TYPE, FORCE, *_REST),
        _resize(""),
        "To make it smaller needs --force or --yes.",
        (("lvresize -L 20g vg0/vm1", "20 GiB, whatever it was"),),
        least=1,
        stock=(*STOCK_KINDS, *_STOCK),
        after=resize_file_system,
        names="lv",
    ),
}  # fmt: skip
