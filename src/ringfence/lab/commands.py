"""`ringfence lab`: a cluster of real processes on this host, to test on."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from ringfence.core.cluster import Timing
from ringfence.core.errors import BadInput
from ringfence.core.units import parse_size
from ringfence.lab.cluster import MOST_NODES, TIMING, Lab
from ringfence.lab.interrupts import ended_like_ctrl_c
from ringfence.lab.power import Lie
from ringfence.lab.torture.commands import torture

C = TypeVar("C", bound=Callable[..., Any])
WAYS = [lie.value for lie in Lie]


def _dir(command: C) -> C:
    return click.option(
        "--dir",
        "directory",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="RINGFENCE_LAB",
        required=True,
        help="The lab's directory.  [env: RINGFENCE_LAB]",
    )(command)


def _json(command: C) -> C:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def _done(as_json: bool, line: str, **answer: Any) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode({"version": 1, **answer}), indent=2).decode())
    elif line:
        click.echo(line)


@click.group(
    epilog="Example: ringfence lab up --nodes 2 --dir /tmp/lab; "
    'eval "$(ringfence lab env an-a01n01 --dir /tmp/lab)"; ringfence status'
)
def lab() -> None:
    """A cluster of real processes on this host, with power switches that can lie; needs no root."""


@lab.command()
@click.option(
    "--nodes", type=click.IntRange(1, MOST_NODES), default=2, show_default=True, help="How many hosts."
)
@_dir
@click.option("--size", default="256M", show_default=True, help="Size of the shared disk image.")
@click.option("--naive", is_flag=True, help="Protections off: agents are believed, authority is not checked.")
@click.option("--slow", is_flag=True, help="With the times of a real cluster, not the lab's quicker ones.")
@_json
def up(nodes: int, directory: Path, size: str, naive: bool, slow: bool, as_json: bool) -> None:
    """Make a lab and return when all its hosts are ready."""
    size_bytes = parse_size(size)
    if size_bytes < 8 << 20:
        raise BadInput(f"a disk of {size} has no room for a volume group", next="--size 256M")

    def progress(line: str) -> None:
        if not as_json:
            click.echo(line)

    with ended_like_ctrl_c():
        made = Lab.up(directory, nodes, size_bytes, Timing() if slow else TIMING, naive, progress)
    where = shlex.quote(str(directory))
    line = f'the disk is {made.disk}; next: eval "$(ringfence lab env {made.nodes[0]} --dir {where})"'
    _done(as_json, line, nodes=list(made.nodes), disk=str(made.disk), naive=naive)


@lab.command()
@click.argument("node")
@_dir
@_json
def env(node: str, directory: Path, as_json: bool) -> None:
    """Print what makes every other command talk to NODE: eval "$(ringfence lab env NODE --dir D)"."""
    found = Lab.open(directory).env(node)
    lines = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items())
    _done(as_json, lines, env=found)


@lab.command()
@_dir
@_json
def status(directory: Path, as_json: bool) -> None:
    """Which hosts have power, which are frozen, which devices lie."""
    found = Lab.open(directory).status()
    if as_json:
        _done(True, "", **found)
        return
    for name in ("hub", "power"):
        click.echo(f"{name:<12} {'runs' if found[name] else 'DOWN'}")
    for name, host in found["hosts"].items():
        state = "frozen" if host["frozen"] else host["power"]
        lies = ", ".join(f"{device} lies: {lie}" for device, lie in host["lies"].items())
        outlets = " ".join(f"{outlet} {to}" for outlet, to in host["outlets"].items())
        click.echo(f"{name:<12} {state:<7} chassis {host['chassis']}, {outlets}{'; ' if lies else ''}{lies}")
    if found["naive"]:
        click.echo("PROTECTIONS ARE OFF (naive)")


def _host_command(name: str, help: str, act: Callable[[Lab, str], None], done: str) -> None:
    @lab.command(name, help=help)
    @click.argument("node")
    @_dir
    @_json
    def command(node: str, directory: Path, as_json: bool) -> None:
        act(Lab.open(directory), node)
        _done(as_json, f"{node} {done}", node=node)


_host_command("freeze", "Stop every process of NODE (SIGSTOP).", Lab.freeze, "is frozen")
_host_command("thaw", "Let NODE go on.", Lab.thaw, "goes on")
_host_command("cut", "Take NODE's ring cable out.", Lab.cut, "is cut off from the ring")


@lab.command()
@_dir
@_json
def heal(directory: Path, as_json: bool) -> None:
    """Put all ring cables in again."""
    Lab.open(directory).heal()
    _done(as_json, "the ring is whole again")


@lab.command()
@click.argument("node")
@click.argument("to", type=click.Choice(["on", "off"]))
@_dir
@_json
def power(node: str, to: str, directory: Path, as_json: bool) -> None:
    """Switch NODE on or off by hand: chassis and both outlets."""
    Lab.open(directory).power(node, to)
    _done(as_json, f"{node} is {to}", node=node, power=to)


@lab.command()
@click.argument("node")
@click.argument("device")
@click.argument("mode", type=click.Choice(WAYS))
@_dir
@_json
def lie(node: str, device: str, mode: str, directory: Path, as_json: bool) -> None:
    """Let NODE's DEVICE (bmc, pdu, pdu-a, pdu-b) lie.

    none: it tells the truth again.  ack-ignore: says done, does nothing.  perfect: and then looks off,
    too.  late: acts 3 s after its word.  say-off: says off whatever is true.  wrong-host: is wired to
    the next host.  hang: never answers.  no-login: refuses its credentials.  unreachable: hangs up."""
    Lab.open(directory).lie(node, device, mode)
    _done(as_json, f"{node}: {device} is set to {mode}", node=node, device=device, mode=mode)


@lab.command()
@_dir
@_json
def down(directory: Path, as_json: bool) -> None:
    """End all of it; the files stay."""
    Lab.open(directory).down()
    _done(as_json, f"nothing of it runs any more; its files are in {directory}")


lab.add_command(torture)
