"""pvcreate, pvremove, pvresize, pvck."""

from __future__ import annotations

import os

from ringfence.cli.verbs.kinds import metadata_type, size, zero
from ringfence.cli.verbs.table import CHANGE, Given, Option, Stock, Verb, Work, call
from ringfence.core.errors import BadInput

METADATA = Option("metadatasize", ("--metadatasize",), "Size of the metadata area.", "SIZE", size)
LABEL = (
    Option("zero", ("-Z", "--zero"), "y: its first sectors are wiped.", "y|n", zero),
    Option("metadatatype", ("-M", "--metadatatype"), "lvm2.", "TYPE", metadata_type),
)  # fmt: skip


def path(device: str) -> str:
    """The daemon works in another directory.  Links stay: the configuration may name them."""
    return os.path.abspath(device)


def _pvcreate(given: Given) -> Work:
    devices = [path(one) for one in given.names]
    return [
        (
            "",
            call(
                "PvCreate", devices=devices, force=bool(given["force"]) or None,
                metadata_size_bytes=given["metadatasize"],
            ),
        )
    ]  # fmt: skip


def _pvremove(given: Given) -> Work:
    return [("", call("PvRemove", devices=[path(one) for one in given.names], force=given["force"] or None))]


def _pvresize(given: Given) -> Work:
    resize = call(
        "PvResize", devices=[path(one) for one in given.names], size_bytes=given["setphysicalvolumesize"],
        yes=bool(given["yes"]) or None,
    )  # fmt: skip
    return [("", resize)]


def _pvck(given: Given) -> Work:
    return [(one, call("PvCk", device=path(one), dump=given["dump"])) for one in given.names]


def _dump(text: str) -> str:
    if text not in _DUMPS:
        raise BadInput(f"{text!r} is not one of {', '.join(_DUMPS)}")
    return text


_DUMPS = ("headers", "metadata", "metadata_all", "metadata_search")

VERBS = {
    "pvcreate": Verb(
        "pvcreate", "Make devices into PVs.", "DEVICE...",
        (
            Option("force", ("-f", "--force"), "Over other signatures and damaged labels."),
            METADATA, *LABEL, *CHANGE,
        ),
        _pvcreate,
        examples=(
            ("pvcreate /dev/sdb /dev/sdc", "two PVs"),
            ("pvcreate --metadatasize 64m /dev/sdb", "room for the metadata of 100,000 LVs"),
        ),
        least=1,
        stock=(
            Stock(("-u", "--uuid"), "a PV of a given uuid"),
            Stock(("--restorefile",), "a PV restored from a backup"),
            Stock(("--norestorefile",), "a PV of a given uuid", False),
            Stock(("--pvmetadatacopies",), "another number of metadata areas"),
            Stock(("--metadatacopies",), "another number of metadata areas"),
            Stock(("--metadataignore",), "an ignored metadata area"),
            Stock(("--dataalignment",), "another alignment"),
            Stock(("--dataalignmentoffset",), "another alignment"),
            Stock(("--bootloaderareasize",), "a bootloader area"),
            Stock(("--labelsector",), "another label sector"),
            Stock(("--setphysicalvolumesize",), "a size other than the device's"),
        ),
        names="path",
    ),
    "pvremove": Verb(
        "pvremove", "Make PVs into plain devices.", "PV...",
        (Option("force", ("-f", "--force"), "Twice: though it is in a VG, or marked as used."), *CHANGE),
        _pvremove,
        "Their labels are wiped.",
        (("pvremove /dev/sdb", "a PV that no VG has"),),
        least=1,
        names="pv",
    ),
    "pvresize": Verb(
        "pvresize", "Tell PVs that they have grown or shrunk.", "PV...",
        (
            Option(
                "setphysicalvolumesize", ("--setphysicalvolumesize",), "[default: the device's size]", "SIZE",
                size,
            ),
            *CHANGE,
        ),
        _pvresize,
        examples=(("pvresize /dev/sdb", "after its array made it larger"),),
        least=1,
        names="pv",
    ),
    "pvck": Verb(
        "pvck", "Judge or show what stands on PVs.", "DEVICE...",
        (
            Option(
                "dump", ("--dump",),
                "Show what stands there: headers, metadata, metadata_all, metadata_search.",
                "WHAT", _dump, choices=_DUMPS,
            ),
            *CHANGE,
        ),
        _pvck,
        "Label, headers, metadata; nothing is written.",
        (
            ("pvck /dev/sdb", "is all in order?"),
            ("pvck --dump metadata /dev/sdb", "the VG's text as it stands there"),
        ),
        least=1,
        stock=(
            Stock(("--repair",), "repairing a PV", False), Stock(("--repairtype",), "repairing a PV"),
            Stock(("--settings",), "repairing a PV"), Stock(("--file", "-f"), "repairing a PV"),
            Stock(("--labelsector",), "another label sector"),
            Stock(("--pvmetadatacopies",), "another number of metadata areas"),
        ),
        names="pv",
    ),
}  # fmt: skip
