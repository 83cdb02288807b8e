"""init, import: the files of a new cluster, and of one that another software describes."""

import os
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ringfence.cli.answers import columns, print_json
from ringfence.cli.options import json_option
from ringfence.config.imports import LARGEST_BYTES, carry_over
from ringfence.config.setup import (
    EVERY,
    KEY_BYTES,
    File,
    Plan,
    files_of,
    kept_from,
    levels_of,
    nodes_of,
    plan_of,
    with_passwords,
    write,
)
from ringfence.core.cluster import ClusterConfig, Confirms, NodeConfig
from ringfence.core.errors import BadInput, ConfigError

C = TypeVar("C", bound=Callable[..., Any])
INIT_HELP = """Write the files of a new cluster: a directory a host, and NEXT.txt, which says what to do next.

Each NODE is NAME=ADDRESS, or NAME=ADDRESS,ADDRESS for two links; NAME is what `hostname -s` prints there.
Nothing is changed but the directory: no host is spoken to.

Each --fence is a level of NODE, tried in the order given until one proves the host off.  Those that name the
same LEVEL make up one: a host with two power supplies needs both outlets off.  Passwords do not belong on a
command line: they go to the files that NEXT.txt names, or come by --password-file.

\b
Examples:
  ringfence init --name alteeve n1=10.0.0.1 n2=10.0.0.2
  ringfence init --name alteeve n1=10.0.0.1,10.1.0.1 n2=10.0.0.2,10.1.0.2 \\
    --fence n1=fence_ipmilan,ip=10.9.0.1,username=admin,lanplus=1 \\
    --fence n1:2=fence_apc_snmp,ip=10.9.1.1,plug=1 \\
    --fence n1:2=fence_apc_snmp,ip=10.9.1.2,plug=1 \\
    --fence n2=fence_ipmilan,ip=10.9.0.2,username=admin,lanplus=1 ..."""
IMPORT_HELP = """Read FILEs of another cluster software and write what `init` would, as far as they go.

FILE is a cluster.conf (cman, RHEL 6), a corosync.conf, or a dlm.conf together with its corosync.conf.
What could not be carried over is said line by line, with the reason.  Nothing else is changed.

\b
Examples:
  ringfence import /etc/cluster/cluster.conf
  ringfence import /etc/corosync/corosync.conf /etc/dlm/dlm.conf --out new"""


def _output_options(command: C) -> C:
    command = json_option(command)
    for option in (
        click.option("--dry-run", is_flag=True, help="Show the files; write nothing."),
        click.option("--force", is_flag=True, help="Write it anew; authkey, node ids and secrets stay."),
        click.option("--out", type=click.Path(path_type=Path), help="The directory.  [default: ./NAME]"),
        click.option("--disk", "disks", multiple=True, metavar="PATH",
            help="A shared disk (or a glob) that may carry volumes, by-id; repeat it."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command(help=INIT_HELP)
@click.option("--name", required=True, help="The cluster's name; it stands in its volume groups for ever.")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.option("--fence", "fences", multiple=True, metavar="NODE[:LEVEL]=AGENT[,KEY=VALUE...]",
    help="A fence device of NODE; repeat it.  Without any a person must confirm each failure.")  # fmt: skip
@click.option("--password-file", "passwords", multiple=True, metavar="[NAME=]FILE",
    help="The fence devices' password, or that of a node or device alone: FILE's first line.")  # fmt: skip
@_output_options
def init(
    name: str,
    nodes: tuple[str, ...],
    fences: tuple[str, ...],
    passwords: tuple[str, ...],
    disks: tuple[str, ...],
    **output: Any,
) -> None:
    found = nodes_of(nodes)
    config = ClusterConfig(name, ring="corosync", two_node=len(found) == 2, nodes=found)
    levels = levels_of(fences, [node.name for node in found])
    plan = plan_of(config, levels, _disks(disks))
    _deliver(with_passwords(plan, _passwords(passwords, plan)), [], **output)


@click.command("import", help=IMPORT_HELP)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--name", default="", help="Another name for the cluster.")
@click.option("--confirms", "said", multiple=True, metavar="AGENT=WHAT",
    help="What an off of an unknown AGENT proves: host-off, outlet-off or storage-cut.")  # fmt: skip
@_output_options
def import_(
    files: tuple[Path, ...], name: str, said: tuple[str, ...], disks: tuple[str, ...], **output: Any
) -> None:
    texts = {str(file): _read(file) for file in files}
    if len(texts) < len(files):
        raise BadInput("one file is given twice", next="name each once")
    config, levels, notes = carry_over(texts, _confirms(said), name)
    _deliver(plan_of(config, levels, _disks(disks), imported=True), notes, **output)


# -- what was typed ---------------------------------------------------------------


def _disks(disks: Sequence[str]) -> Sequence[str]:
    for disk in disks:
        if not disk.startswith("/"):
            raise BadInput(f"--disk {disk} is not absolute", next="begin it with /")
    return disks


def _confirms(said: Sequence[str]) -> dict[str, Confirms]:
    words = {one.value: one for one in Confirms}
    found = {}
    for word in said:
        agent, _, what = word.partition("=")
        if not agent or what not in words:
            raise BadInput(
                f"--confirms {word!r} is not AGENT=WHAT", next=f"WHAT is one of {', '.join(words)}"
            )
        found[agent] = words[what]
    return found


def _passwords(words: Sequence[str], plan: Plan) -> dict[str, str]:
    """By node, by device, or by EVERY."""
    names = [*(node.name for node in plan.config.nodes), *(device.name for device in plan.config.devices)]
    found: dict[str, str] = {}
    for word in words:
        name, equals, file = word.partition("=")
        name, file = (name, file) if equals and name in names else (EVERY, word)
        if name in found:
            raise BadInput(f"--password-file {word}: a second one", next="give one for each node or device")
        found[name] = _password(Path(file))
    return found


def _password(file: Path) -> str:
    """Never quoted in an error."""
    try:
        status = file.stat()
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise BadInput(
            f"--password-file: cannot read {file}: {error.strerror}",
            next="[NAME=]FILE, where NAME is a node or a device of this cluster",
        ) from None
    except UnicodeDecodeError:
        raise BadInput(f"{file} is not UTF-8") from None
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        raise BadInput(f"{file} holds a password and others may use it", next=f"chmod 600 {file}")
    password = lines[0] if lines else ""
    if not password or password != password.strip() or not password.isprintable():
        raise BadInput(f"{file}: its first line is no password", next="one line, without blanks at its ends")
    return password


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as open_file:
            return open_file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}", next="check its name and mode") from None


# -- what comes of it ---------------------------------------------------------------


def _deliver(
    plan: Plan, notes: Sequence[str], out: Path | None, force: bool, dry_run: bool, as_json: bool
) -> None:
    where = out if out is not None else Path(plan.config.name)
    kept = kept_from(where, force or dry_run)
    plan = kept.into(plan)
    authkey = kept.authkey or (bytes(KEY_BYTES) if dry_run else secrets.token_bytes(KEY_BYTES))
    files = files_of(plan, authkey, os.fspath(where))
    if not dry_run:
        write(files, where)
    if as_json:
        print_json(_answer(plan, notes, where, files, not dry_run))
        return
    for line in [*_summary(plan), *_not_carried(notes)]:
        click.echo(line)
    if dry_run:
        _show(files, where)
    for warning in plan.warnings:
        click.echo(f"WARNING: {warning}.")
    if dry_run:
        click.echo("nothing was written (--dry-run)")
    else:
        click.echo(f"written: {where}; what to do next, step by step: {where / 'NEXT.txt'}")


def _summary(plan: Plan) -> list[str]:
    config = plan.config
    links = len(config.nodes[0].addresses)
    hosts = len(config.nodes)
    head = (
        f"{config.name}: {hosts} {'host' if hosts == 1 else 'hosts'}, corosync over knet, encrypted, "
        f"{links} {'link' if links == 1 else 'links'}; a silent host is noticed after "
        f"{config.timing.detection_ms / 1000:g} s"
    )
    return [head, *(f"  {line}" for line in columns([_row(node) for node in config.nodes]))]


def _not_carried(notes: Sequence[str]) -> list[str]:
    return ["Not carried over as it stood:", *(f"  {note}" for note in notes)] if notes else []


def _row(node: NodeConfig) -> list[str]:
    labels = [" + ".join(use.label for use in level.uses) for level in node.levels]
    levels = [f"{number}: {label}" for number, label in enumerate(labels, 1)]
    fenced = f"fence {', then '.join(levels)}" if levels else "NO FENCE DEVICE"
    return [node.name, f"id {node.id}", ", ".join(node.addresses), fenced]


def _show(files: Sequence[File], where: Path) -> None:
    """Each file's name and mode; the text of those that hold no secret, once."""
    shown: set[bytes] = set()
    for file in files:
        click.echo(f"--- {where / file.path}  mode {file.mode:04o}, {len(file.data)} bytes")
        if file.mode & 0o077 and file.data not in shown:
            click.echo(file.data.decode(), nl=False)
            shown.add(file.data)


def _answer(
    plan: Plan, notes: Sequence[str], where: Path, files: Sequence[File], written: bool
) -> dict[str, Any]:
    return {
        "cluster": plan.config.name,
        "out": str(where),
        "written": written,
        "nodes": [
            {
                "name": node.name,
                "id": node.id,
                "addresses": list(node.addresses),
                "manual": node.manual,
                "levels": [[use.label for use in level.uses] for level in node.levels],
            }
            for node in plan.config.nodes
        ],
        "files": [{"path": file.path, "mode": f"{file.mode:04o}"} for file in files],
        "fill_in": [
            {"file": f"secrets/{secret.device}", "keys": list(secret.missing)}
            for secret in plan.secrets
            if secret.missing
        ],
        "not_carried_over": list(notes),
        "warnings": plan.warnings,
    }
