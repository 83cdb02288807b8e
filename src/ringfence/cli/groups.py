"""pvremove, pvresize, pvck, vgextend, vgreduce, vgrename, vgck with LVM2's option names.

Source: LVM2 tools/command-lines.in, man pages vgextend(8) ff."""

from pathlib import Path
from typing import Any

import click

from ringfence.cli.answers import one_line, print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon
from ringfence.cli.volumes import Size, each, metadata_option, path_of, yes_option
from ringfence.core.errors import EXIT_FAILED, EXIT_OK
from ringfence.wire import client as calls


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
