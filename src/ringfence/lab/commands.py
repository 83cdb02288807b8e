"""`ringfence lab`: a cluster of real processes on this host, to test on."""

import contextlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from ringfence.core.cluster import Timing
from ringfence.core.errors import BadInput
from ringfence.core.units import parse_size
from ringfence.lab.cluster import MOST_DISKS, MOST_NODES, TIMING, Lab
from ringfence.lab.devices.kinds import chosen_kinds
from ringfence.lab.devices.model import PDUS
from ringfence.lab.devices.options import devices_option
from ringfence.lab.interrupts import ended_like_ctrl_c, undisturbed
from ringfence.lab.lies import DELAY_S, Lie
from ringfence.lab.network import Way
from ringfence.lab.parts import Part
from ringfence.lab.ring_options import chosen, ring_options
from ringfence.lab.torture.commands import torture
from ringfence.lab.typed import Typed

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
    """A cluster of real processes on this host, with power switches that can lie.

    Needs no root on the embedded ring; on corosync it does, for network namespaces."""


@lab.command(
    epilog="Examples: ringfence lab up --dir /tmp/lab; "
    "ringfence lab up --ring corosync --nodes 3 --dir /tmp/lab; "
    "ringfence lab up --loop --disks 3 --dir /tmp/lab"
)
@click.option(
    "--nodes", type=click.IntRange(1, MOST_NODES), default=2, show_default=True, help="How many hosts."
)
@_dir
@click.option(
    "--disks", type=click.IntRange(1, MOST_DISKS), default=1, show_default=True, help="How many shared disks."
)
@click.option("--size", default="256M", show_default=True, help="Size of a shared disk's image.")
@click.option("--naive", is_flag=True, help="Protections off: agents are believed, authority is not checked.")
@click.option("--slow", is_flag=True, help="With the times of a real cluster, not the lab's quicker ones.")
@click.option("--loop", is_flag=True, help="The disks are loop devices: stock LVM2 needs that (root).")
@devices_option
@ring_options
@_json
def up(
    nodes: int,
    directory: Path,
    disks: int,
    size: str,
    naive: bool,
    slow: bool,
    loop: bool,
    devices: str,
    ring: str,
    transport: str | None,
    links: int | None,
    as_json: bool,
) -> None:
    """Make a lab and return when all its hosts are ready."""
    on, kinds = chosen(ring, transport, links, naive), chosen_kinds(devices)
    size_bytes = parse_size(size)
    if size_bytes < 8 << 20:
        raise BadInput(f"a disk of {size} has no room for a volume group", next="--size 256M")

    def progress(line: str) -> None:
        if not as_json:
            click.echo(line)

    with ended_like_ctrl_c():
        timing = Timing() if slow else TIMING
        made = Lab.up(directory, nodes, size_bytes, timing, naive, progress, on, kinds, loop, disks)
    where = shlex.quote(str(directory))
    shared = [str(disk) for disk in made.disks]
    which = f"the disk is {shared[0]}" if disks == 1 else f"the disks are {' '.join(shared)}"
    line = f'{which}; next: eval "$(ringfence lab env {made.nodes[0]} --dir {where})"'
    _done(as_json, line, nodes=list(made.nodes), disk=shared[0], disks=shared, naive=naive, ring=ring)


@lab.command()
@click.argument("node")
@_dir
@_json
def env(node: str, directory: Path, as_json: bool) -> None:
    """Print what makes every other command talk to NODE: eval "$(ringfence lab env NODE --dir D)".

    Stock LVM2's commands, too, but they look for /run/lvmlockd.pid: see `ringfence lab exec`."""
    found = Lab.open(directory).env(node)
    found["RINGFENCE_LAB"] = str(directory.absolute())  # so that `lab` itself knows which lab is meant
    lines = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items())
    _done(as_json, lines, env=found)


@lab.command(
    "exec",
    epilog="Examples: ringfence lab exec an-a01n01 -- vgcreate --shared vg0 /dev/loop0; "
    "ringfence lab exec an-a01n02 -- lvmlockctl --info; "
    "ringfence lab exec an-a01n01 -- sh -c 'lvcreate -an -L 8M -n vm1 vg0 && lvs vg0'",
)
@_dir
@click.argument("node")
@click.argument("command", nargs=-1, required=True)
def execute(directory: Path, node: str, command: tuple[str, ...]) -> None:
    """Run COMMAND as on NODE: in its own /run, with `lab env`'s variables, as one of its processes.

    It is frozen, and ends, with the host.  The exit code is the command's.  Stock LVM2 needs a lab with
    --loop; it activates nothing there, for the hosts share this kernel's device-mapper.  Needs root."""
    opened = Lab.open(directory)
    with ended_like_ctrl_c(), contextlib.ExitStack() as until_it_runs:
        until_it_runs.enter_context(undisturbed())  # who asks a host for a process and ends has lost its pid
        typed = Typed(opened, node, command)
        try:
            until_it_runs.close()
            code = typed.wait()
        except BaseException:
            typed.end()
            raise
    sys.exit(code)


@lab.command()
@_dir
@_json
def status(directory: Path, as_json: bool) -> None:
    """Which hosts have power, which are frozen, what is cut, which devices lie."""
    opened = Lab.open(directory)
    found = opened.status()
    carrier = opened.carrier_name
    found["cuts"] = opened.cuts() if found[carrier] else []
    for name, host in found["hosts"].items():
        host["services"] = opened.parts(name) if host["init"] else {}
    if as_json:
        _done(True, "", **found)
        return
    for name in (carrier, "power", "rack"):
        if name in found:
            click.echo(f"{name:<12} {'runs' if found[name] else 'DOWN'}")
    for name, host in found["hosts"].items():
        crashed = host["power"] == "on" and not host["init"]
        state = "frozen" if host["frozen"] else "crashed" if crashed else host["power"]
        outlets = " ".join(f"{outlet} {to}" for outlet, to in host["outlets"].items())
        more = [f"{device} lies: {lie}" for device, lie in host["lies"].items()]
        if not host["frozen"]:
            more += [f"{part} {how}" for part, how in host["services"].items() if how != "runs"]
        told = f"chassis {host['chassis']}, {outlets}{'; ' if more else ''}{', '.join(more)}"
        click.echo(f"{name:<12} {state:<7} {told}")
    for one in found.get("devices", ()):
        click.echo(f"{one['name']:<16} {one['kind']:<9} {one['address']}:{one['port']}  {one['state']}")
    for cut in found["cuts"]:
        where = f" on link {cut['link']}" if opened.ring.links > 1 else ""
        click.echo(f"cut: {cut['from']} -> {cut['to']}{where}")
    if found["naive"]:
        click.echo("PROTECTIONS ARE OFF (naive)")


def _host_command(
    name: str, help: str, act: Callable[[Lab, str, Part | None], None], done: str
) -> None:
    example = f"ringfence lab {name} an-a01n01"

    @lab.command(name, help=help, epilog=f"Examples: {example}; {example} --only daemon")
    @click.argument("node")
    @click.option(
        "--only", type=click.Choice([part.value for part in Part]), help="Only this service of the host."
    )
    @_dir
    @_json
    def command(node: str, only: str | None, directory: Path, as_json: bool) -> None:
        act(Lab.open(directory), node, Part(only) if only else None)
        what = f"{only} on {node}" if only else node
        _done(as_json, f"{what} {done}", node=node, only=only)


_host_command("freeze", "Stop every process of NODE (SIGSTOP).", Lab.freeze, "is frozen")
_host_command("thaw", "Let NODE go on.", Lab.thaw, "goes on")


@lab.command(
    epilog="Examples: ringfence lab cut an-a01n01; ringfence lab cut an-a01n01 --from an-a01n03; "
    "ringfence lab cut an-a01n01 --inbound; ringfence lab cut an-a01n01 --link 0"
)
@click.argument("node")
@click.option("--from", "other", default="", help="Only from this host; both still reach all others.")
@click.option("--inbound", "way", flag_value=Way.INBOUND.value, help="NODE hears nothing, and is heard.")
@click.option("--outbound", "way", flag_value=Way.OUTBOUND.value, help="NODE hears, and is not heard.")
@click.option("--link", type=click.IntRange(0), help="Only on this link (a lab with --links).")
@_dir
@_json
def cut(
    node: str, other: str, way: str | None, link: int | None, directory: Path, as_json: bool
) -> None:
    """Cut NODE off from the ring, beside what is cut already.

    In a lab on the hub only wholly: from all others, in both directions."""
    opened = Lab.open(directory)
    opened.cut(node, other, Way(way) if way else Way.BOTH, link)
    whom = f"from {other}" if other else "from the ring"
    how = f", {way}" if way else ""
    where = f" on link {link}" if link is not None else ""
    _done(as_json, f"{node} is cut off {whom}{how}{where}", node=node, cuts=opened.cuts())


@lab.command()
@_dir
@_json
def heal(directory: Path, as_json: bool) -> None:
    """Put all ring cables in again."""
    Lab.open(directory).heal()
    _done(as_json, "the ring is whole again")


@lab.command(
    epilog="Example: ringfence lab kill an-a01n01 corosync; ringfence lab start an-a01n01 corosync"
)
@click.argument("node")
@click.argument("service", type=click.Choice([part.value for part in Part]))
@_dir
@_json
def kill(node: str, service: str, directory: Path, as_json: bool) -> None:
    """Kill one SERVICE of NODE (SIGKILL); nobody starts it again."""
    Lab.open(directory).kill(node, Part(service))
    _done(as_json, f"{service} on {node} is killed", node=node, service=service)


@lab.command(epilog="Example: ringfence lab start an-a01n01 daemon")
@click.argument("node")
@click.argument("service", type=click.Choice([part.value for part in Part]))
@_dir
@_json
def start(node: str, service: str, directory: Path, as_json: bool) -> None:
    """Start one SERVICE of NODE that has ended."""
    pid = Lab.open(directory).start(node, Part(service))
    _done(as_json, f"{service} on {node} runs", node=node, service=service, pid=pid)


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
@click.option(
    "--delay", type=click.FloatRange(0), default=DELAY_S, show_default=True, help="Of late, lag, pending: s."
)
@_dir
@_json
def lie(node: str, device: str, mode: str, delay: float, directory: Path, as_json: bool) -> None:
    """Let NODE's DEVICE (bmc, pdu, pdu-a, pdu-b) lie.

    none: it tells the truth again.  ack-ignore: says done, does nothing.  echo: and then looks off, once.
    perfect: and then looks off for ever.  late: acts a while after its word.  lag: its status shows the past
    for a while.  pending: says at once, marked as pending, what it does a while later.  say-off: says off
    whatever is true.  wrong-host: is wired to the next host.  hang: never answers.  no-login: refuses its
    credentials.  unreachable: hangs up.  garbage: answers nonsense.

    A simulated PDU is one device for all hosts: it is out of reach for all, or for none."""
    Lab.open(directory).lie(node, device, mode, delay)
    _done(as_json, f"{node}: {device} is set to {mode}", node=node, device=device, mode=mode)


@lab.command(
    epilog="Example: ringfence lab plug an-a01n01 psu2 pdu-b an-a01n02"
)
@click.argument("node")
@click.argument("supply", type=click.Choice(["psu1", "psu2"]))
@click.argument("pdu", type=click.Choice(PDUS))
@click.argument("outlet")
@_dir
@_json
def plug(node: str, supply: str, pdu: str, outlet: str, directory: Path, as_json: bool) -> None:
    """Hang NODE's SUPPLY on the outlet of the host OUTLET at PDU: a cable in the wrong place."""
    Lab.open(directory).plug(node, supply, pdu, outlet)
    line = f"{supply} of {node} hangs on the outlet of {outlet} at {pdu}"
    _done(as_json, line, node=node, supply=supply, pdu=pdu, outlet=outlet)


@lab.command()
@_dir
@_json
def down(directory: Path, as_json: bool) -> None:
    """End all of it; the files stay."""
    Lab.open(directory).down()
    _done(as_json, f"nothing of it runs any more; its files are in {directory}")


lab.add_command(torture)
