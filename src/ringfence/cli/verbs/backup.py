"""vgcfgbackup, vgcfgrestore: a VG's metadata in files.

The files of the daemon's own history lie below /var/lib/ringfence: backup/VG is what the VG is, archive/VG_*
what it was before each change made here.  A file that is named is read and written by this command.

Source: LVM2 tools/vgcfgbackup.c, vgcfgrestore.c; vgcfgrestore(8)."""

import os
import sys
from typing import TYPE_CHECKING, Any

from ringfence.cli.answers import one_line, print_json
from ringfence.cli.verbs.groups import each_vg
from ringfence.cli.verbs.run import change
from ringfence.cli.verbs.table import CHANGE, Given, Option, Stock, Verb, Work, call, ignored
from ringfence.client.place import SOCKET_VARIABLE
from ringfence.core.errors import EXIT_OK, BadInput, NotFound, Refused, RingfenceError

if TYPE_CHECKING:
    from ringfence.config.paths import Paths


LONGEST = 1_000_000
"""Of a packed text; a request has at most 1 MiB."""


def _backup(given: Given) -> Work:
    file = given["file"]
    if file is not None and len(given.names) != 1 and "%s" not in file:
        raise BadInput("several VGs cannot go to one file", next="give %s for the VG's name in --file")
    return [(vg, call("VgCfgBackup", vg=vg)) for vg in given.names or ("",)]


def _carry_away(given: Given, result: dict[str, Any]) -> dict[str, Any]:
    """The daemon's backup, which is made by now, where --file says."""
    if given["file"] is None:
        return result
    vg: str = result["vg"]
    file = given["file"].replace("%s", vg)
    _write(file, _read(os.fspath(_paths(given).backup / vg)))
    return {**result, "file": file}


def _vgcfgrestore(given: Given) -> int:
    vg = given.names[0]
    if given["list"]:
        return _list(given, vg)
    from ringfence.lvm2.backup import pack

    file = given["file"] or os.fspath(_paths(given).backup / vg)
    packed = pack(_read(file))
    if len(packed) > LONGEST:
        raise Refused(
            f"{file} is too long to be restored by ringfence",
            next=f"on every host: vgchange --lockstop {vg}; then lvm vgcfgrestore on one",
        )

    def plan(given: Given) -> Work:
        return [(vg, call("VgCfgRestore", vg=vg, text=packed))]

    return change(VERBS["vgcfgrestore"], given, plan)


def _list(given: Given, vg: str) -> int:
    """The history of a VG on this host, oldest first."""
    from ringfence.lvm2.backup import read_head

    paths = _paths(given)
    try:
        names = os.listdir(paths.archive)
    except OSError:
        names = []
    files = [os.fspath(paths.archive / name) for name in sorted(names)]
    files = [path for path in files if os.path.basename(path).rpartition("_")[0] == vg]
    files += [path for path in [os.fspath(paths.backup / vg)] if os.path.exists(path)]
    found: list[dict[str, Any]] = []
    for path in files:
        try:
            head = read_head(_read(path))
        except RingfenceError as error:
            print(f"  {path}: {one_line(error.message)}", file=sys.stderr)
            continue
        found.append(
            {"file": path, "vg": vg, "seqno": head.seqno, "description": head.description,
             "host": head.host, "time_s": head.time_s}
        )  # fmt: skip
    if given["json"]:
        print_json({"files": found})
        return EXIT_OK
    if not found:
        print("  No archives found.")
    import time

    for one in found:
        at = time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(one["time_s"]))
        print(f"\n  File:\t\t{one['file']}\n  VG name:\t{vg}\n  Description:\t{one['description']}")
        print(f"  Backup Time:\t{at}\n  Seqno:\t{one['seqno']}")
    return EXIT_OK


def _paths(given: Given) -> "Paths":
    """Of the host whose daemon is asked."""
    from pathlib import Path

    from ringfence.config.paths import Paths

    root = Path(given["root"]) if given["root"] is not None else None
    return Paths.meant(root, given["socket"] or os.environ.get(SOCKET_VARIABLE, ""))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}", next="see: vgcfgrestore --list VG") from None


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise RingfenceError(f"cannot write {path}: {error.strerror}", next="give another --file") from None


_FILE = Option("file", ("-f", "--file"), "This file; %s in it stands for the VG's name.", "FILE")

VERBS = {
    "vgcfgbackup": Verb(
        "vgcfgbackup", "Keep VGs' metadata in files.", "[VG...]",
        (
            _FILE, ignored("--foreign"), ignored("--ignorelockingfailure"), ignored("--readonly"), *CHANGE,
        ),
        _backup,
        "Without --file: this host's backup of the VG, which each change made here writes, too.",
        (("vgcfgbackup -f /root/%s.vg vg0", "a copy to carry away"),),
        expand=each_vg,
        after=_carry_away,
        names="vg",
    ),
    "vgcfgrestore": Verb(
        "vgcfgrestore", "Make a VG what a file says it was.", "VG",
        (
            Option("file", ("-f", "--file"), "[default: this host's last backup]", "FILE"),
            Option("list", ("-l", "--list"), "Show the files that this host keeps of the VG."),
            Option("force", ("--force",), "Nothing is asked."),
            *CHANGE,
        ),
        about="Refused while any host has an LV of it active.",
        examples=(
            ("vgcfgrestore --list vg0", "what there is, and before which command it was"),
            ("vgcfgrestore -f FILE vg0", "vg0 as that file has it"),
        ),
        least=1, most=1,
        run=_vgcfgrestore,
        stock=(Stock(("-M", "--metadatatype"), "other formats"),),
        names="vg",
    ),
}  # fmt: skip
