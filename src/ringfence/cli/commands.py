"""`ringfence`: one table of commands, each loaded when it is used.

A command's room is imported only to run it or to show its own help, so `ringfence --help` is quick
and a room that cannot be imported breaks no other command."""

import difflib
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from ringfence.cli import ReaderGone
from ringfence.cli.verbs import ROOMS, verb
from ringfence.core.errors import Unavailable


class Entry(NamedTuple):
    section: str
    where: str
    """module:attribute of a click command."""
    help: str


SETUP, CLUSTER, FENCING = "Set-up", "Cluster", "Fencing"
VOLUMES, SERVICES = "Volumes", "Services and labs"

def _verbs() -> dict[str, "Entry"]:
    """LVM2's, whose lines are in their own table."""
    return {
        name: Entry(VOLUMES, f"ringfence.cli.verbs.{room}:VERBS", verb(name).summary)
        for name, room in ROOMS.items()
    }


COMMANDS: dict[str, Entry] = {
    "init": Entry(SETUP, "ringfence.cli.setup:init", "Write the files of a new cluster, a directory a host."),
    "import": Entry(SETUP, "ringfence.cli.setup:import_",
        "The same from a cluster.conf, corosync.conf or dlm.conf."),
    "config": Entry(SETUP, "ringfence.cli.config:config", "Check, show or apply the configuration."),
    "status": Entry(CLUSTER, "ringfence.cli.observe:status",
        "This node and its cluster; exit 1 if anything is blocked."),
    "why": Entry(CLUSTER, "ringfence.cli.observe:why", "Why something is stuck, and what comes next."),
    "events": Entry(CLUSTER, "ringfence.cli.observe:events", "What happened, with -f what happens."),
    "lock": Entry(CLUSTER, "ringfence.cli.lock:lock", "Hold a lock while a command runs, as flock(1) does."),
    "doctor": Entry(CLUSTER, "ringfence.doctor.commands:doctor",
        "What is wrong, why it matters, what mends it."),
    "lockspace": Entry(CLUSTER, "ringfence.cli.lockspace:lockspace", "Join or leave one; let go of orphans."),
    "lockspaces": Entry(CLUSTER, "ringfence.cli.observe:lockspaces", "The lockspaces, and who is in them."),
    "locks": Entry(CLUSTER, "ringfence.cli.observe:locks", "Who holds what and who waits for it."),
    "leave": Entry(CLUSTER, "ringfence.cli.config:leave", "Close all volumes and leave the cluster cleanly."),
    "fence": Entry(FENCING, "ringfence.cli.fence:fence",
        "Have a node fenced; who was, who must be; a person's word."),
    "node": Entry(FENCING, "ringfence.cli.node:node",
        "Which machine each node is, and when another one may be it."),
    **_verbs(),
    "lv-xml": Entry(VOLUMES, "ringfence.cli.lv_xml:lv_xml",
        "How libvirt and qemu are told to use an LV that is active here."),
    "slots": Entry(VOLUMES, "ringfence.cli.slots:slots", "The disk slots of a VG: add them, look at them."),
    "daemon": Entry(SERVICES, "ringfence.daemon.commands:daemon", "Run this host's daemon."),
    "hub": Entry(SERVICES, "ringfence.ring.commands:hub", "Run the embedded ring's broker."),
    "block": Entry(SERVICES, "ringfence.cli.services:block",
        "Run the service that serves active LVs as NBD exports."),
    "lab": Entry(SERVICES, "ringfence.lab.commands:lab", "A cluster of real processes on this host."),
    "demo": Entry(SERVICES, "ringfence.lab.demo_commands:demo",
        "The whole story on a lab, in under a minute."),
    "sim": Entry(SERVICES, "ringfence.sim.commands:sim",
        "Replay a simulated cluster with its faults from a seed."),
}  # fmt: skip


@contextmanager
def _reader_told() -> Iterator[None]:
    """ReaderGone in place of BrokenPipeError, which click would make a failure of."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        entry = COMMANDS.get(name)
        return load(name, entry) if entry is not None else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            like = difflib.get_close_matches(args[0], COMMANDS, n=1)
            if not like:
                raise
            raise click.UsageError(f"{error.message.rstrip('.')}; is it {like[0]}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            rows = [(name, entry.help) for name, entry in COMMANDS.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Prints --help and --version.  Raises ReaderGone."""
        with _reader_told():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Raises ReaderGone."""
        with _reader_told():
            return super().invoke(ctx)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Without loading any command: Tab must be quick, and work where a room is missing."""
        found = [
            CompletionItem(name, help=entry.help)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


def load(name: str, entry: Entry) -> click.Command:
    """Raises Unavailable if the command's room is not installed."""
    if name in ROOMS:
        from ringfence.cli.verbs.completion import as_click

        return as_click(verb(name))
    module, _, attribute = entry.where.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        # Only what is wholly absent; an import that fails inside a room is a bug to be seen.
        if error.name is None or not module.startswith(error.name):
            raise
        raise Unavailable(
            f"`ringfence {name}` is not in this installation", next=f"install a ringfence that has {module}"
        ) from None
    assert isinstance(command, click.Command)
    if "_RINGFENCE_COMPLETE" in os.environ:
        from ringfence.cli.verbs.completion import with_known_words

        return with_known_words(command, name)
    return command


def _print_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from ringfence.cli.version import version_lines  # loads the parts

        for line in version_lines():
            click.echo(line)
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version, and which parts in C are in use, and exit.",
)  # fmt: skip
def root() -> None:
    """Clustered LVM for today: several hosts share one set of disks safely.

    Commands talk to this host's daemon through a socket: --socket, else $RINGFENCE_SOCKET, else
    /run/ringfence/socket below --root.  Exit codes: 0 done, 3 bad command line, 5 refused or failed;
    `status` exits with 1 when anything is blocked."""
