"""config check, show, apply; leave."""

import asyncio
import os
from pathlib import Path
from typing import Any

import click
import msgspec

from ringfence.agents.checking import check_devices
from ringfence.cli.answers import print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon, root_option
from ringfence.client import Connection
from ringfence.client.place import SOCKET_VARIABLE
from ringfence.config import Loaded, Paths, digest, load, render
from ringfence.config.agents.check import Trouble
from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import EXIT_FAILED, EXIT_OK, Refused
from ringfence.fencing.proving import sharers, subjects
from ringfence.wire import client as calls


@click.group()
def config() -> None:
    """Check, show or apply the configuration."""


@config.command(short_help="Say what is wrong with a file; change nothing.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--ring", metavar="NAME", help="Also refuse a cluster on another ring (hub, corosync).")
@click.option(
    "--lvmlockd", type=click.Choice(["ringfence", "stock"]),
    help="Also refuse a cluster whose hosts have another lvmlockd ([lvmlockd] serve).",
)  # fmt: skip
@root_option
@json_option
def check(
    file: Path | None, ring: str | None, lvmlockd: str | None, root: Path | None, as_json: bool
) -> int:
    """Read FILE (default: this host's ringfence.toml) and say what is wrong with it.  Changes nothing.

    Fence devices are held against the agents that are installed here."""
    loaded, where = _load(file, root)
    cluster = loaded.cluster
    if ring is not None and ring != cluster.ring:
        raise Refused(f"{where}: cluster {cluster.name} is on the ring {cluster.ring}, not on {ring}")
    serves = "ringfence" if cluster.lvmlockd.serve else "stock"
    if lvmlockd not in (None, serves):
        raise Refused(f"{where}: on the hosts of cluster {cluster.name} lvmlockd is {serves}, not {lvmlockd}")
    devices = _devices(cluster, root)
    wrong = [one for one in devices if one.wrong]
    notes = [*_advice(cluster), *(f"device {one.line}" for one in devices if not one.wrong)]
    if as_json:
        print_json(
            {
                "file": str(where),
                "cluster": cluster.name,
                "config": cluster.version,
                "digest": digest(cluster),
                "wrong": [f"device {one.line}" for one in wrong],
                "notes": notes,
            }
        )
        return EXIT_FAILED if wrong else EXIT_OK
    nodes = ", ".join(node.name for node in cluster.nodes)
    good = f"{len(wrong)} wrong" if wrong else "good"
    click.echo(f"{where}: {good}; cluster {cluster.name} version {cluster.version}, nodes {nodes}")
    for one in wrong:
        click.echo(f"  wrong: device {one.line}")
    for line in notes:
        click.echo(f"  note: {line}")
    return EXIT_FAILED if wrong else EXIT_OK


def _devices(cluster: ClusterConfig, root: Path | None) -> list[Trouble]:
    paths = Paths.meant(root, os.environ.get(SOCKET_VARIABLE, ""))
    return asyncio.run(check_devices(paths, cluster))


def _advice(cluster: ClusterConfig) -> list[str]:
    """What is allowed and still worth a word."""
    found = []
    used = [device for node in cluster.nodes for level in node.levels for device in level.names]
    found += [
        f"device {one.name} is in no level of any node" for one in cluster.devices if one.name not in used
    ]
    found += [
        f"{node.name} is fenced by hand: a failure waits for a person"
        for node in cluster.nodes
        if node.manual
    ]
    found += _shared_plugs(cluster)
    found += _shared_addresses(cluster)
    if len(cluster.nodes) == 2 and not cluster.two_node:
        found.append("two nodes without two_node: when one fails, the other has no majority and stops")
    if cluster.naive:
        found.append("naive: every protection is off")
    return found


def _shared_plugs(cluster: ClusterConfig) -> list[str]:
    """One target in the levels of two nodes: a slip of the pen, or a chassis that they share."""
    found = {
        f"{subject.use.label} has the same plug for {cluster.name_of(subject.node)} and "
        f"{', '.join(others)}: to fence one cuts the other, too"
        for subject in subjects(cluster)
        if (others := [name for name in sharers(cluster, subject) if name > cluster.name_of(subject.node)])
    }
    return sorted(found)


def _shared_addresses(cluster: ClusterConfig) -> list[str]:
    """A node that was copied and not changed to the end.  Only corosync goes by addresses."""
    if cluster.ring != "corosync":
        return []
    owners: dict[str, list[str]] = {}
    for node in cluster.nodes:
        for address in node.addresses:
            owners.setdefault(address, []).append(node.name)
    return [
        f"address {address} is given to {' and '.join(names)}: each link of each node needs its own"
        for address, names in owners.items()
        if len(names) > 1
    ]


@config.command()
@click.option("--file", "from_file", is_flag=True, help="This host's file, without asking the daemon.")
@daemon_options
@json_option
def show(from_file: bool, socket: str | None, root: Path | None, as_json: bool) -> None:
    """The configuration that the cluster uses now, as TOML."""
    if from_file:
        loaded, _ = _load(None, root)
        shown: Loaded | ClusterConfig = loaded
        cluster = loaded.cluster
    else:
        with open_daemon(socket, root) as daemon:
            shown = cluster = _running(daemon)
    if as_json:
        print_json({"config": _whole(cluster), "digest": digest(cluster)})
    else:
        click.echo(render(shown), nl=False)


@config.command("apply", short_help="Make a file the configuration of all nodes, or of none.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@daemon_options
@json_option
def apply_file(file: Path | None, socket: str | None, root: Path | None, as_json: bool) -> None:
    """Make FILE (default: this host's ringfence.toml) the configuration of all nodes, or of none.

    The version is counted up by itself.  [devices], [socket] and [hub] are each host's own and stay.
    What an installed fence agent would not take is said, and applied all the same."""
    loaded, where = _load(file, root)
    for one in _devices(loaded.cluster, root):
        if one.wrong:
            click.echo(f"  wrong: device {one.line}", err=True)
    for line in _shared_addresses(loaded.cluster):
        click.echo(f"  note: {line}", err=True)
    with open_daemon(socket, root) as daemon:
        now = _running(daemon)
        new = _next(loaded.cluster, now, where)
        if new is None:
            answer: dict[str, Any] = {"version": now.version, "changed": False}
        else:
            answer = {**daemon.call(calls.ConfigApply(new)), "changed": True}
    version = answer["version"]
    if as_json:
        print_json({"config": version, "changed": answer["changed"]})
    elif answer["changed"]:
        click.echo(f"configuration version {version} is in force on all nodes")
    else:
        click.echo(f"nothing to do: version {version} says the same")


def _next(wanted: ClusterConfig, now: ClusterConfig, where: Path) -> ClusterConfig | None:
    """The configuration to propose; None: it is in force already."""
    if msgspec.structs.replace(wanted, version=now.version) == now:
        return None
    if wanted.version > now.version + 1:
        raise Refused(
            f"{where}: version = {wanted.version}, but the cluster is at {now.version}",
            next=f"set version = {now.version + 1}, or start from `ringfence config show`",
        )
    return msgspec.structs.replace(wanted, version=now.version + 1)


def _running(daemon: Connection) -> ClusterConfig:
    answer: dict[str, Any] = daemon.call(calls.ConfigShow())
    return msgspec.convert(answer["config"], ClusterConfig)


def _load(file: Path | None, root: Path | None) -> tuple[Loaded, Path]:
    paths = Paths.meant(root, os.environ.get(SOCKET_VARIABLE, ""))
    return load(paths, file), file or paths.file


@click.command()
@daemon_options
@json_option
def leave(socket: str | None, root: Path | None, as_json: bool) -> None:
    """Close all volumes, leave the cluster cleanly and end the daemon.

    That needs a quorum, to which it can be said: without one it waits, and says for what."""
    with open_daemon(socket, root) as daemon:
        status = daemon.status()
        if not status.get("ready", True):
            why = next(iter(status.get("blocked_by", [])), f"{status['node']} is not ready")
            click.echo(
                f"{why}: it cannot leave cleanly before that ends, and waits (Ctrl-C); a host that is "
                "switched off meanwhile is fenced by the others",
                err=True,
            )
        answer = daemon.call(calls.Leave())
    if as_json:
        print_json(answer if isinstance(answer, dict) else {})
    else:
        click.echo("left the cluster")


def _whole(value: Any) -> Any:
    """With every key, also those that have their default."""
    if isinstance(value, msgspec.Struct):
        return {name: _whole(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [_whole(one) for one in value]
    return msgspec.to_builtins(value)
