"""`ringfence lab torture`."""

import shlex
import sys
from pathlib import Path

import click
import msgspec

from ringfence.lab.cluster import MOST_NODES
from ringfence.lab.interrupts import ended_like_ctrl_c
from ringfence.lab.ring_options import chosen, ring_options
from ringfence.lab.torture import run
from ringfence.lab.torture.plan import Faults
from ringfence.lab.torture.report import Report, lines


@click.command(
    epilog="Examples: ringfence lab torture --minutes 3 --seed 7; ringfence lab torture --seed 7 --keep "
    "--dir /tmp; ringfence lab torture --minutes 0.5 --faults liar --naive; "
    "ringfence lab torture --ring corosync --seed 7"
)
@click.option("--minutes", type=click.FloatRange(0.1), default=3.0, show_default=True, help="Of faults.")
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Of the faults and the clients' choices."
)
@click.option(
    "--nodes", type=click.IntRange(2, MOST_NODES), default=3, show_default=True, help="How many hosts."
)
@click.option(
    "--faults",
    type=click.Choice([one.value for one in Faults]),
    default=Faults.SWARM.value,
    show_default=True,
    help="swarm: all kinds; liar: hosts given up on a lie come back, one after the other.",
)
@click.option("--naive", is_flag=True, help="Protections off: agents are believed, authority is not checked.")
@ring_options
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Make the run's directory below this one.  [default: the system's for temporary files]",
)
@click.option("--keep", is_flag=True, help="Leave the run's directory behind; it stays anyway on failure.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def torture(
    minutes: float,
    seed: int,
    nodes: int,
    faults: str,
    naive: bool,
    ring: str,
    transport: str | None,
    links: int | None,
    directory: Path | None,
    keep: bool,
    as_json: bool,
) -> int:
    """Torment a lab of real processes, and hold what its clients saw against what was promised.

    Hosts, daemons and the hub (or corosyncs) are stopped and killed, cables and power are cut, fence
    devices fail and lie, as the seed says.  Meanwhile clients on every host take locks and write to
    volumes.  Checked: mutual exclusion, token order, value blocks, lost and foreign writes; then, with
    all mended, that every host gets every lock and volume.  Takes about a minute more than MINUTES; on
    the hub it needs no root.

    Faults come at the seed's times, but processes run as they like: a seed does not repeat a run to the
    letter.  Exit 0: all as promised.  10: safety, 11: liveness, 12: something crashed."""
    words = ["ringfence", "lab", "torture", "--minutes", f"{minutes:g}", "--seed", str(seed)]
    words += ["--nodes", str(nodes), "--faults", faults] + (["--naive"] if naive else [])
    on = chosen(ring, transport, links, naive)
    words += on.words
    report = Report(seed, shlex.join(words), minutes, nodes, Faults(faults), naive, on)

    def say(line: str) -> None:
        if not as_json:
            click.echo(line)
            sys.stdout.flush()

    say(f"seed {seed}: {report.command}")
    with ended_like_ctrl_c():
        run.torture(report, directory, keep, say)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report.as_dict()), indent=2).decode())
        return report.exit_code
    for line in lines(report):
        say(line)
    if report.directory:
        say(f"logs and histories are left in {report.directory}")
    say(f"seed {seed}: {report.command}")
    return report.exit_code
