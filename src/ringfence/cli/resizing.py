"""lvextend, lvreduce, lvresize, lvrename with LVM2's option names.

Source: LVM2 tools/command-lines.in, man pages lvextend(8) ff."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ringfence.cli.options import daemon_options, json_option, open_daemon
from ringfence.cli.volumes import POLICIES, C, Size, each, place_of, split, wait_ms, wait_option, yes_option
from ringfence.core.errors import BadInput
from ringfence.core.units import parse_signed_extents, parse_signed_size
from ringfence.wire import client as calls


class _Parsed(click.ParamType[Any]):
    """Whatever a function of `core.units` makes of it."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except BadInput as error:
            self.fail(str(error), param, ctx)


def _resize_options(command: C) -> C:
    for option in (
        click.option(
            "-L", "--size", type=_Parsed("[+-]size", parse_signed_size), help="64m; +64m: by so much."
        ),
        click.option(
            "-l", "--extents", type=_Parsed("[+-]extents", parse_signed_extents),
            help="25, +100%FREE, -10%LV.",
        ),
        click.option("-i", "--stripes", type=int, default=0, help="Of what is added.  [default: as it has]"),
        click.option("-I", "--stripesize", type=Size("k"), default=0, help="[default: as it has]"),
        click.option("--alloc", type=click.Choice(POLICIES), default="inherit", show_default=True),
        click.option("-r", "--resizefs", is_flag=True, help="Say how its file system is resized."),
        click.option("-f", "--force", is_flag=True, help="Reduce it, and lose what is at its end."),
        yes_option,
        wait_option("forever"),
        daemon_options,
        json_option,
    ):
        command = option(command)
    return command


@click.command()
@click.argument("name")
@click.argument("pvs", nargs=-1)
@_resize_options
def lvextend(**given: Any) -> int:
    """Make the LV NAME (VG/LV) larger, also while it is in use; on PVS, if they are named."""
    return _resize("extend", **given)


@click.command()
@click.argument("name")
@_resize_options
def lvreduce(**given: Any) -> int:
    """Make the LV NAME (VG/LV) smaller.  What is at its end is lost."""
    return _resize("reduce", pvs=(), **given)


@click.command()
@click.argument("name")
@click.argument("pvs", nargs=-1)
@_resize_options
def lvresize(**given: Any) -> int:
    """Make the LV NAME (VG/LV) larger or smaller."""
    return _resize("", **given)


def _resize(
    only: str, *, name: str, pvs: tuple[str, ...], size: tuple[str, int] | None,
    extents: tuple[str, int, str] | None, stripes: int, stripesize: int, alloc: str, resizefs: bool,
    force: bool, yes: bool, wait: float | str, socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    if (size is None) == (extents is None):
        raise click.UsageError("give one of -L SIZE and -l EXTENTS")
    vg, lv = split(name)
    if not lv:
        raise click.UsageError(f"{name!r} is not VG/LV")
    sign, size_bytes = size or ("", 0)
    if extents is not None:
        sign, count, percent = extents
    else:
        count, percent = 0, ""
    if resizefs and (only == "reduce" or sign == "-"):
        raise click.UsageError(
            "a file system that is on an NBD export is not resized here: shrink it where it is mounted "
            "(resize2fs DEVICE SIZE), then lvreduce --force without -r"
        )
    call = calls.LvResize(
        vg, lv, size_bytes, count, percent, sign, only, stripes, stripesize, alloc,
        tuple(place_of(one) for one in pvs), force or yes, wait_ms(wait),
    )  # fmt: skip
    with open_daemon(socket, root) as daemon:
        code = each(daemon, [(f"{vg}/{lv}", call)], as_json)
    if resizefs and code == 0 and not as_json:
        click.echo(
            "  The file system is not resized here: where it is mounted, connect anew, then resize2fs DEVICE "
            "or xfs_growfs MOUNTPOINT.",
            err=True,
        )
    return code


@click.command()
@click.argument("names", nargs=-1, required=True)
@yes_option
@wait_option("forever")
@daemon_options
@json_option
def lvrename(
    names: tuple[str, ...], yes: bool, wait: float | str, socket: str | None, root: Path | None, as_json: bool
) -> int:
    """Give an LV another name, also while it is in use.  NAMES: VG OLD NEW, or VG/OLD VG/NEW."""
    if len(names) == 3:
        vg, old, new = names
    elif len(names) == 2:
        vg, old = split(names[0])
        group, slash, rest = names[1].removeprefix("/dev/").partition("/")
        if slash and group != vg:
            raise click.UsageError(f"an LV stays in its VG: {vg} is not {group}")
        new = rest if slash else group
    else:
        raise click.UsageError("give VG OLD NEW, or VG/OLD VG/NEW")
    if not old or not new:
        raise click.UsageError("give VG OLD NEW, or VG/OLD VG/NEW")
    old, new = (one.removeprefix("/dev/").removeprefix(f"{vg}/") for one in (old, new))
    with open_daemon(socket, root) as daemon:
        return each(daemon, [(f"{vg}/{old}", calls.LvRename(vg, old, new, wait_ms(wait)))], as_json)
