"""`ringfence demo`."""

import sys
from pathlib import Path

import click
import msgspec

from ringfence.core.errors import EXIT_FAILED, EXIT_OK
from ringfence.lab.demo import ACTS, Setting, play
from ringfence.lab.devices.kinds import chosen_kinds
from ringfence.lab.devices.options import devices_option
from ringfence.lab.interrupts import ended_like_ctrl_c
from ringfence.lab.ring_options import chosen, ring_options
from ringfence.lab.teller import RichTeller, Teller


@click.command(
    epilog="Examples: ringfence demo; ringfence demo --json; ringfence demo --act lying --keep; "
    "ringfence demo --ring corosync; ringfence demo --devices ipmi,apc-snmp"
)
@click.option("--act", "acts", type=click.Choice(ACTS), multiple=True, help="Only this act; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Make the labs below this directory.  [default: the system's for temporary files]",
)
@click.option("--keep", is_flag=True, help="Leave the labs' files behind.")
@devices_option
@ring_options
def demo(
    acts: tuple[str, ...],
    as_json: bool,
    directory: Path | None,
    keep: bool,
    devices: str,
    ring: str,
    transport: str | None,
    links: int | None,
) -> int:
    """The whole story on a lab of real processes on this host; on the hub it needs no root.

    A host freezes with a volume open; it is fenced; another goes on.  Then the fence device lies.
    Then the same with protections off.  Exit 0: the first two acts lost nothing, and the third shows
    what the protections are for; else 5."""
    setting = Setting(chosen(ring, transport, links), chosen_kinds(devices))
    teller = Teller(None) if as_json else RichTeller() if sys.stdout.isatty() else Teller(sys.stdout)
    with ended_like_ctrl_c():
        report = play(acts or ACTS, teller, directory, keep, setting)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report.as_dict()), indent=2).decode())
    else:
        teller.table(report)
    return EXIT_OK if report.ok else EXIT_FAILED
