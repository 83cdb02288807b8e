"""pvremove, pvresize, pvck, vgextend, vgreduce, vgrename, vgck, vgcfgbackup, vgcfgrestore.

With LVM2's option names.

Source: LVM2 tools/command-lines.in, man pages vgextend(8) ff."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from ringfence.cli.answers import one_line, print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon
from ringfence.cli.volumes import Size, each, metadata_option, path_of, yes_option
from ringfence.config.paths import Paths
from ringfence.core.errors import EXIT_FAILED, EXIT_OK, DeviceFailed, NotFound, Refused
from ringfence.daemon.archive import archived
from ringfence.lvm2.backup import of_vg, pack, read_head
from ringfence.wire import client as calls

LONGEST = 1_000_000
"""Of a text in a request; a request has at most 1 MiB."""


@click.command()
@click.argument("devices", nargs=-1, required=True)
@click.option("-f", "--force", count=True, help="Twice: though it is in a VG, or marked as used.")
@yes_option
@daemon_options
@json_option
def pvremove(
    devices: tuple[str, ...], force: int, yes: bool, socket: str | None, root: Path | None, as_json: bool
) -> int:
    """Wipe the labels of DEVICES: they are PVs no more."""
    call = calls.PvRemove(tuple(path_of(one) for one in devices), force)
    with open_daemon(socket, root) as daemon:
        return each(daemon, [("", call)], as_json)


@click.command()
@click.argument("devices", nargs=-1, required=True)
@click.option("--setphysicalvolumesize", type=Size(), default=0, help="[default: the device's size]")
@yes_option
@daemon_options
@json_option
def pvresize(
    devices: tuple[str, ...], setphysicalvolumesize: int, yes: bool,
    socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Tell the PVs on DEVICES that they have grown or shrunk."""
    call = calls.PvResize(tuple(path_of(one) for one in devices), setphysicalvolumesize, yes)
    with open_daemon(socket, root) as daemon:
        return each(daemon, [("", call)], as_json)


@click.command()
@click.argument("devices", nargs=-1, required=True)
@click.option(
    "--dump", type=click.Choice(["headers", "metadata", "metadata_all", "metadata_search"]), default=None,
    help="Show what stands there, with its place.",
)  # fmt: skip
@daemon_options
@json_option
def pvck(
    devices: tuple[str, ...], dump: str | None, socket: str | None, root: Path | None, as_json: bool
) -> int:
    """Judge what is on DEVICES: label, headers, metadata; nothing is written."""
    answers: list[dict[str, Any]] = []
    with open_daemon(socket, root) as daemon:
        for device in devices:
            answers.append(daemon.call(calls.PvCk(path_of(device), dump or "")))
    if as_json:
        print_json({"results": answers})
    else:
        for answer in answers:
            for line in answer["lines"]:
                click.echo(line if dump == "metadata" else f"  {line}")
            for line in answer["problems"]:
                click.echo(f"  {one_line(line)}", err=True)
    return EXIT_FAILED if any(answer["problems"] for answer in answers) else EXIT_OK


@click.command()
@click.argument("vg")
@click.argument("devices", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Over other signatures and damaged labels.")
@click.option("--restoremissing", is_flag=True, help="DEVICES were missing, and are to be trusted again.")
@metadata_option
@yes_option
@daemon_options
@json_option
def vgextend(
    vg: str, devices: tuple[str, ...], force: bool, restoremissing: bool, metadatasize: int, yes: bool,
    socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Add DEVICES to VG; those that are no PVs become PVs."""
    paths = tuple(path_of(one) for one in devices)
    call = calls.VgExtend(vg, paths, force, metadatasize, restoremissing)
    with open_daemon(socket, root) as daemon:
        return each(daemon, [(vg, call)], as_json)


@click.command()
@click.argument("vg")
@click.argument("devices", nargs=-1)
@click.option("-a", "--all", "whole", is_flag=True, help="All PVs that are not in use.")
@click.option("--removemissing", is_flag=True, help="PVs whose devices are missing.")
@click.option("-f", "--force", is_flag=True, help="With --removemissing: also LVs that are partly on them.")
@yes_option
@daemon_options
@json_option
def vgreduce(
    vg: str, devices: tuple[str, ...], whole: bool, removemissing: bool, force: bool, yes: bool,
    socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Take DEVICES, on which nothing is used, out of VG."""
    call = calls.VgReduce(vg, tuple(path_of(one) for one in devices), whole, removemissing, force)
    with open_daemon(socket, root) as daemon:
        return each(daemon, [(vg, call)], as_json)


@click.command()
@click.argument("vg")
@click.argument("new")
@daemon_options
@json_option
def vgrename(vg: str, new: str, socket: str | None, root: Path | None, as_json: bool) -> int:
    """Give VG, named or by its uuid, the name NEW.  No LV of it may be active on any host."""
    names = [one.removeprefix("/dev/") for one in (vg, new)]
    with open_daemon(socket, root) as daemon:
        return each(daemon, [(vg, calls.VgRename(*names))], as_json)


@click.command()
@click.argument("vgs", nargs=-1)
@click.option("-f", "--file", "file", default="", help="Write to FILE; %s in it is the VG's name.")
@daemon_options
@json_option
def vgcfgbackup(
    vgs: tuple[str, ...], file: str, socket: str | None, root: Path | None, as_json: bool
) -> int:
    """Write the metadata of VGS (default: all) to files, for vgcfgrestore."""
    if file and len(vgs) != 1 and "%s" not in file:
        raise click.UsageError("several VGs need a FILE with %s in it")
    with open_daemon(socket, root) as daemon:
        names = vgs or [str(row["vg_name"]) for row in daemon.call(calls.Vgs())["rows"]]

        def copied(vg: str, result: dict[str, Any]) -> None:
            if file:
                target = Path(file.replace("%s", vg))
                write_file(target, read_file(Path(result["file"])))
                result["file"] = str(target.absolute())

        return each(daemon, [(vg, calls.VgCfgBackup(vg)) for vg in names], as_json, copied)


@click.command()
@click.argument("vg")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="[default: the last backup]")
@click.option("-l", "--list", "lists", is_flag=True, help="List this host's files of VG, oldest first.")
@yes_option
@daemon_options
@json_option
def vgcfgrestore(
    vg: str, file: Path | None, lists: bool, yes: bool, socket: str | None, root: Path | None, as_json: bool
) -> int:
    """Make VG what a file says it was.  No LV of it may be active on any host."""
    paths = Paths.meant(root, socket or os.environ.get("RINGFENCE_SOCKET", ""))
    if lists:
        return list_files(vg, [file] if file else files_of(paths, vg), as_json)
    data = read_file(file or paths.backup / vg)
    text = pack(data)
    if len(text) > LONGEST:
        raise Refused(
            f"{file or paths.backup / vg} is too long to be restored by ringfence",
            next=f"on every host: vgchange --lockstop {vg}; then lvm vgcfgrestore on one",
        )
    call = calls.VgCfgRestore(vg, text)
    with open_daemon(socket, root) as daemon:
        return each(daemon, [(vg, call)], as_json)


def files_of(paths: Paths, vg: str) -> list[Path]:
    """The archive of a VG on this host, oldest first, and its backup."""
    files = [paths.archive / one.name for one in of_vg(archived(paths.archive), vg)]
    backup = paths.backup / vg
    return [*files, *([backup] if backup.exists() else [])]


def list_files(vg: str, files: list[Path], as_json: bool) -> int:
    rows = []
    for path in files:
        kept = read_head(read_file(path))
        when = datetime.fromtimestamp(kept.time_s, UTC).astimezone().isoformat(sep=" ")
        rows.append({"file": str(path), "vg": vg, "seqno": kept.seqno, "description": kept.description,
                     "host": kept.host, "time": when})  # fmt: skip
    if as_json:
        print_json({"files": rows})
        return EXIT_OK
    if not rows:
        click.echo(f"  No archives found for {vg} on this host.", err=True)
    for row in rows:
        click.echo("")
        click.echo(f"  File:\t\t{row['file']}")
        click.echo(f"  VG name:    \t{row['vg']} (seqno {row['seqno']})")
        click.echo(f"  Description:\t{row['description']}")
        click.echo(f"  Backup Time:\t{row['time']}")
    return EXIT_OK


def read_file(path: Path) -> bytes:
    """Raises NotFound, DeviceFailed."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} is not there", next="see: ringfence vgcfgrestore --list VG") from None
    except OSError as error:
        raise DeviceFailed(f"cannot read {path}: {error.strerror}", next="are you root?") from None


def write_file(path: Path, data: bytes) -> None:
    """Raises DeviceFailed."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise DeviceFailed(f"cannot write {path}: {error.strerror}", next="give another FILE") from None


@click.command()
@click.argument("vgs", nargs=-1)
@click.option("--updatemetadata", is_flag=True, help="Write it anew everywhere; clear PVs taken out of it.")
@daemon_options
@json_option
def vgck(
    vgs: tuple[str, ...], updatemetadata: bool, socket: str | None, root: Path | None, as_json: bool
) -> int:
    """Check the metadata of VGS (default: all)."""
    with open_daemon(socket, root) as daemon:
        names = vgs or [str(row["vg_name"]) for row in daemon.call(calls.Vgs())["rows"]]
        return each(daemon, [(vg, calls.VgCk(vg, updatemetadata)) for vg in names], as_json)
