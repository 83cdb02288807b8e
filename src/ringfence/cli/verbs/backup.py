"""vgcfgbackup, vgcfgrestore: a VG's metadata in files, and back.

Files that a person names are read and written by the command, with that person's rights; the daemon keeps
its own."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ringfence.cli.answers import print_json
from ringfence.cli.verbs.groups import each_vg
from ringfence.cli.verbs.table import CHANGE, Given, Option, Verb, Work, call
from ringfence.core.errors import EXIT_OK, BadInput, DeviceFailed, NotFound, Refused

LONGEST = 1_000_000
"""Of a text in a request; a request has at most 1 MiB."""


def _plan_backup(given: Given) -> Work:
    if given["file"] and len(given.names) != 1 and "%s" not in given["file"]:
        raise BadInput("several VGs need a FILE with %s in it")
    return [(vg, call("VgCfgBackup", vg=vg)) for vg in given.names or ("",)]


def _copy(given: Given, vg: str, result: dict[str, Any]) -> None:
    """Raises DeviceFailed, NotFound."""
    if given["file"]:
        target = Path(given["file"].replace("%s", vg))
        data = read_file(Path(result["file"]))
        try:
            target.write_bytes(data)
        except OSError as error:
            raise DeviceFailed(
                f"cannot write {target}: {error.strerror}", next="give another FILE"
            ) from None
        result["file"] = str(target.absolute())


def _restore(given: Given) -> int:
    from ringfence.cli.verbs.run import change

    return _list(given) if given["list"] else change(VERBS["vgcfgrestore"], given)


def _plan_restore(given: Given) -> Work:
    from ringfence.lvm2.backup import pack

    (vg,) = given.names
    file = Path(given["file"]) if given["file"] else _paths(given).backup / vg
    text = pack(read_file(file))
    if len(text) > LONGEST:
        raise Refused(
            f"{file} is too long to be restored by ringfence",
            next=f"on every host: vgchange --lockstop {vg}; then lvm vgcfgrestore on one",
        )
    return [(vg, call("VgCfgRestore", vg=vg, text=text))]


def _list(given: Given) -> int:
    from ringfence.lvm2.backup import read_head

    (vg,) = given.names
    rows = []
    for path in [Path(given["file"])] if given["file"] else _files(given, vg):
        kept = read_head(read_file(path))
        when = datetime.fromtimestamp(kept.time_s, UTC).astimezone().isoformat(sep=" ")
        rows.append({
            "file": str(path), "vg": vg, "seqno": kept.seqno, "description": kept.description,
            "host": kept.host, "time": when,
        })  # fmt: skip
    if given["json"]:
        print_json({"files": rows})
        return EXIT_OK
    if not rows:
        print(f"  No archives found for {vg} on this host.")
    for row in rows:
        print(f"\n  File:\t\t{row['file']}")
        print(f"  VG name:    \t{row['vg']} (seqno {row['seqno']})")
        print(f"  Description:\t{row['description']}")
        print(f"  Backup Time:\t{row['time']}")
    return EXIT_OK


def _paths(given: Given) -> Any:
    from ringfence.config.paths import Paths

    socket = given["socket"] or os.environ.get("RINGFENCE_SOCKET", "")
    return Paths.meant(Path(given["root"]) if given["root"] else None, socket)


def _files(given: Given, vg: str) -> list[Path]:
    """The archive of a VG on this host, oldest first, and its backup."""
    from ringfence.daemon.archive import archived
    from ringfence.lvm2.backup import of_vg

    paths = _paths(given)
    files = [paths.archive / one.name for one in of_vg(archived(paths.archive), vg)]
    backup = paths.backup / vg
    return [*files, *([backup] if backup.exists() else [])]


def read_file(path: Path) -> bytes:
    """Raises NotFound, DeviceFailed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} is not there", next="see: ringfence vgcfgrestore --list VG") from None
    except OSError as error:
        raise DeviceFailed(f"cannot read {path}: {error.strerror}", next="are you root?") from None


VERBS = {
    "vgcfgbackup": Verb(
        "vgcfgbackup", "Write VGs' metadata to files.", "[VG...]",
        (
            Option("file", ("-f", "--file"), "Write to FILE; %s in it is the VG's name.", "FILE", default=""),
            *CHANGE,
        ),
        _plan_backup,
        "Without names: of all VGs.  Each host's daemon keeps what was before each change that it made, too.",
        (("vgcfgbackup -f /root/%s.vg", "all VGs, a file each, for vgcfgrestore"),),
        expand=each_vg,
        names="vg",
        after=_copy,
    ),
    "vgcfgrestore": Verb(
        "vgcfgrestore", "Make a VG what a file says it was.", "VG",
        (
            Option("file", ("-f", "--file"), "[default: this host's last backup]", "FILE", default=""),
            Option("list", ("-l", "--list"), "List this host's files of VG, oldest first, and end."),
            *CHANGE,
        ),
        _plan_restore,
        "No LV of it may be active on any host, and all its PVs must be there.",
        (
            ("vgcfgrestore --list vg0", "what there is, and before which command it was written"),
            ("vgcfgrestore -f /var/lib/ringfence/archive/vg0_00012-5d3a11f0.vg vg0", "undo what came then"),
        ),
        least=1, most=1,
        run=_restore,
        names="vg",
    ),
}  # fmt: skip
