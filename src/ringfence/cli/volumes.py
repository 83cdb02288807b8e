"""pvcreate, vgcreate, vgchange, vgremove, lvcreate, lvchange, lvremove with LVM2's option names.

Several names are carried out one after the other; one that fails does not stop the rest, and the
exit code is then 5, as LVM2 does.  Source: LVM2 tools/command-lines.in, man pages lvcreate(8) ff."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from ringfence.cli.answers import one_line, print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon
from ringfence.client import Connection
from ringfence.core.errors import EXIT_FAILED, EXIT_OK, BadInput, RingfenceError
from ringfence.core.units import parse_extents, parse_size
from ringfence.wire import client as calls

C = TypeVar("C", bound=Callable[..., Any])

_ACTIVATIONS = {
    "y": "ey",
    "ay": "ey",
    "ey": "ey",
    "e": "ey",
    "sy": "sy",
    "s": "sy",
    "n": "n",
    "an": "n",
    "en": "n",
}


class Size(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parse_size(value)
        except BadInput as error:
            self.fail(str(error), param, ctx)


class Extents(click.ParamType[tuple[int, str]]):
    name = "extents"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, str]:
        try:
            return parse_extents(value)
        except BadInput as error:
            self.fail(str(error), param, ctx)


class Activation(click.ParamType[str]):
    name = "ey|sy|n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in _ACTIVATIONS:
            self.fail(f"{value!r} is not ey, sy or n", param, ctx)
        return _ACTIVATIONS[value]


class YesNo(click.ParamType[bool]):
    name = "y|n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        if value not in ("y", "n"):
            self.fail(f"{value!r} is neither y nor n", param, ctx)
        return bool(value == "y")


class Wait(click.ParamType["float | str"]):
    name = "seconds|forever"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "forever":
            return "forever"
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1
        if not 0 <= seconds < 1e9:
            self.fail(f"{value!r} is neither seconds nor 'forever'", param, ctx)
        return seconds


def _wait_ms(wait: float | str) -> int | None:
    return None if isinstance(wait, str) else round(wait * 1000)


def _wait_option(default: float | str) -> Callable[[C], C]:
    return click.option(
        "--wait", type=Wait(), default=default, show_default=True, help="How long to queue for a lock."
    )


_force = click.option("-f", "--force", is_flag=True, help="Even if it is in use.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Answer yes to LVM2's questions.")
metadata_option = click.option("--metadatasize", type=Size(), default=0, help="Size of the metadata area.")


# -- physical volumes and volume groups ---------------------------------------


@click.command()
@click.argument("devices", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Over other signatures and damaged labels.")
@yes_option
@metadata_option
@daemon_options
@json_option
def pvcreate(
    devices: tuple[str, ...], force: bool, yes: bool, metadatasize: int,
    socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Make DEVICES into PVs."""
    call = calls.PvCreate(tuple(path_of(one) for one in devices), force, metadatasize)
    with open_daemon(socket, root) as daemon:
        return each(daemon, [("", call)], as_json)


@click.command()
@click.argument("vg")
@click.argument("devices", nargs=-1, required=True)
@click.option("--shared", is_flag=True, help="For several hosts; other VGs are not made here.")
@click.option("-s", "--physicalextentsize", type=Size(), default=0, help="[default: 4m]")
@yes_option
@metadata_option
@daemon_options
@json_option
def vgcreate(
    vg: str, devices: tuple[str, ...], shared: bool, physicalextentsize: int, yes: bool, metadatasize: int,
    socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Make the shared VG from DEVICES; those that are no PVs become PVs."""
    paths = tuple(path_of(one) for one in devices)
    call = calls.VgCreate(vg, paths, shared, physicalextentsize, metadatasize)
    with open_daemon(socket, root) as daemon:
        return each(daemon, [(vg, call)], as_json)


def path_of(device: str) -> str:
    """The daemon works in another directory.  Links stay: the configuration may name them."""
    return str(Path(device).absolute())


@click.command()
@click.argument("vgs", nargs=-1)
@click.option("--lockstart", "action", flag_value="lockstart", help="Start the VGs' lockspaces here.")
@click.option("--lockstop", "action", flag_value="lockstop", help="Stop them here; no LV may be active.")
@click.option("-a", "--activate", type=Activation(), help="Activate or deactivate all LVs.")
@click.option("--addtag", multiple=True, help="Tags.")
@click.option("--deltag", multiple=True)
@click.option("--alloc", default="", help="contiguous, cling, normal or anywhere.")
@click.option("-x", "--resizeable", type=YesNo(), help="y or n.")
@click.option("-l", "--logicalvolume", type=click.IntRange(0), help="As many LVs at most; 0: no limit.")
@click.option("-p", "--maxphysicalvolumes", type=click.IntRange(0), help="As many PVs at most; 0: no limit.")
@click.option("--setautoactivation", type=YesNo(), help="y or n: may stock LVM2 activate it by itself?")
@_wait_option(0.0)
@daemon_options
@json_option
def vgchange(
    vgs: tuple[str, ...], action: str | None, activate: str | None, addtag: tuple[str, ...],
    deltag: tuple[str, ...], alloc: str, resizeable: bool | None, logicalvolume: int | None,
    maxphysicalvolumes: int | None, setautoactivation: bool | None, wait: float | str,
    socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Start or stop the lockspaces of VGS (default: all of this cluster), (de)activate their LVs, or change
    what their metadata says."""
    change = calls.VgSet(
        "", addtag, deltag, alloc, resizeable, logicalvolume, maxphysicalvolumes, setautoactivation
    )
    changes = change != calls.VgSet("")
    if (action is not None) + (activate is not None) + changes != 1:
        raise click.UsageError("give one of --lockstart, --lockstop, --activate, and properties")
    if action is None and not vgs:
        raise click.UsageError("give the names of VGs")
    if changes:
        with open_daemon(socket, root) as daemon:
            return each(daemon, [(vg, msgspec.structs.replace(change, vg=vg)) for vg in vgs], as_json)
    work: list[tuple[str, calls.Call]]
    if activate is not None:
        work = [(vg, calls.LvChange(vg, "", activate, _wait_ms(wait))) for vg in vgs]
    else:
        work = [(vg, calls.VgChange(str(action), vg)) for vg in vgs or ("",)]
    with open_daemon(socket, root) as daemon:
        return each(daemon, work, as_json)


@click.command()
@click.argument("vgs", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="With all its LVs.")
@yes_option
@daemon_options
@json_option
def vgremove(
    vgs: tuple[str, ...], force: bool, yes: bool, socket: str | None, root: Path | None, as_json: bool
) -> int:
    """Remove VGS; their devices stay PVs."""
    with open_daemon(socket, root) as daemon:
        return each(daemon, [(vg, calls.VgRemove(vg, force or yes)) for vg in vgs], as_json)


# -- logical volumes ------------------------------------------------------------


@click.command()
@click.argument("vg", required=False)
@click.option("-n", "--name", default="", help="[default: lvol0, lvol1, …]")
@click.option("-L", "--size", type=Size(), help="64m, 1.5g; rounded up to whole extents.")
@click.option("-l", "--extents", type=Extents(), help="25, 50%VG, 100%FREE.")
@click.option("-a", "--activate", type=Activation(), default="ey", show_default=True, help="ey or n.")
@_wait_option("forever")
@yes_option
@daemon_options
@json_option
def lvcreate(
    vg: str | None, name: str, size: int | None, extents: tuple[int, str] | None, activate: str,
    wait: float | str, yes: bool, socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Make a linear LV in VG and activate it here, exclusively.

    Prints where it can be used: a socket, and a URI for qemu and libnbd."""
    if (size is None) == (extents is None):
        raise click.UsageError("give one of -L SIZE and -l EXTENTS")
    vg, name = _new_name(vg, name)
    count, percent = extents or (0, "")
    call = calls.LvCreate(vg, name, size or 0, count, percent, activate, _wait_ms(wait))
    with open_daemon(socket, root) as daemon:
        return each(daemon, [(f"{vg}/{name}" if name else vg, call)], as_json)


def _new_name(vg: str | None, name: str) -> tuple[str, str]:
    """LVM2 takes `-n NAME VG` and `-n VG/NAME`."""
    group, slash, rest = name.partition("/")
    if slash:
        if vg not in (None, group):
            raise click.UsageError(f"two VGs are named: {group} and {vg}")
        return group, rest
    if vg is None:
        raise click.UsageError("Missing argument 'VG'")
    return vg, name


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option(
    "-a", "--activate", type=Activation(), required=True, help="ey: exclusive, sy: shared, n: no more."
)
@_wait_option(0.0)
@yes_option
@daemon_options
@json_option
def lvchange(
    names: tuple[str, ...], activate: str, wait: float | str, yes: bool,
    socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Activate or deactivate LVs here.  NAMES: VG/LV, or VG for all of its LVs.

    Without --wait it is refused at once, and told who holds the LV."""
    work = [(name, calls.LvChange(*_split(name), activate, _wait_ms(wait))) for name in names]
    with open_daemon(socket, root) as daemon:
        return each(daemon, work, as_json)


@click.command()
@click.argument("names", nargs=-1, required=True)
@_force
@yes_option
@daemon_options
@json_option
def lvremove(
    names: tuple[str, ...], force: bool, yes: bool, socket: str | None, root: Path | None, as_json: bool
) -> int:
    """Remove LVs.  NAMES: VG/LV, or VG for all of its.  One that is active here needs --force or --yes."""
    asked = [_split(name) for name in names]
    with open_daemon(socket, root) as daemon:
        work: list[tuple[str, calls.Call]] = []
        for vg, lv in asked:
            for one in [lv] if lv else _lvs_of(daemon, vg):
                work.append((f"{vg}/{one}", calls.LvRemove(vg, one, force or yes)))
        return each(daemon, work, as_json)


def _lvs_of(daemon: Connection, vg: str) -> list[str]:
    answer: dict[str, Any] = daemon.call(calls.Lvs(vg))
    return [str(row["lv_name"]) for row in answer["rows"]]


def _split(name: str) -> tuple[str, str]:
    vg, slash, lv = name.removeprefix("/dev/").partition("/")
    if not vg or (slash and not lv) or "/" in lv:
        raise click.UsageError(f"{name!r} is not VG/LV")
    return vg, lv


# -- doing it --------------------------------------------------------------------


def each(daemon: Connection, work: Iterable[tuple[str, calls.Call]], as_json: bool) -> int:
    """Carry out one call after the other; print what comes of each.  Returns the exit code."""
    results: list[dict[str, Any]] = []
    errors: list[RingfenceError] = []
    for target, call in work:
        try:
            result: dict[str, Any] = daemon.call(call)
        except RingfenceError as error:
            errors.append(error)
            if not as_json:
                click.echo(f"  {_error_line(target, error)}", err=True)
            continue
        results.append(result)
        if not as_json:
            _print(result)
    if as_json:
        answer: dict[str, Any] = {"results": results}
        if errors:
            answer["error"] = errors[0].as_dict()
            answer["errors"] = [error.as_dict() for error in errors]
        print_json(answer)
    return EXIT_FAILED if errors else EXIT_OK


def _error_line(target: str, error: RingfenceError) -> str:
    line = one_line(str(error))
    return line if not target or target in line else f"{target}: {line}"


def _print(result: dict[str, Any]) -> None:
    for note in result.get("notes") or []:
        click.echo(f"  {note}", err=True)
    for line in str(result.get("message") or "").splitlines():
        click.echo(f"  {line}")
    for key in ("path", "uri"):
        if result.get(key):
            click.echo(f"  {result[key]}")
