"""pvcreate."""

import os

from ringfence.cli.verbs.kinds import size
from ringfence.cli.verbs.table import CHANGE, Given, Option, Stock, Verb, Work, call

METADATA = Option("metadatasize", ("--metadatasize",), "Size of the metadata area.", "SIZE", size)


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


VERBS = {
    "pvcreate": Verb(
        "pvcreate", "Make devices into PVs.", "DEVICE...",
        (
            Option("force", ("-f", "--force"), "Over other signatures and damaged labels."),
            METADATA, *CHANGE,
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
    )
}  # fmt: skip
