"""fence agents, fence describe: what is installed on this host, with or without a daemon."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from ringfence.agents.catalogue import Catalogue, Known
from ringfence.agents.find import find_agent, installed_agents, nearest_agent
from ringfence.cli.answers import columns, on_terminal, print_json
from ringfence.cli.options import json_option, root_option
from ringfence.client.place import SOCKET_VARIABLE
from ringfence.config import Paths
from ringfence.config.agents.cautions import Caution, Cure, cautions_of
from ringfence.config.agents.metadata import Metadata, Parameter
from ringfence.config.agents.stock import NO_PROOF, base_name, stock_agent
from ringfence.core.errors import NotFound, RingfenceError, Unavailable

SHOWN = ("on", "off", "reboot", "status")
"""Of an agent's actions those that do something to a host; the others are about the agent itself."""


@click.command()
@root_option
@json_option
def agents(root: Path | None, as_json: bool) -> None:
    """Every fence agent that is installed here, and what an "off" of each proves."""
    found = installed_agents()
    known = _look(list(found.values()), root)
    if as_json:
        print_json({"agents": [_brief(name, one) for name, one in zip(found, known, strict=True)]})
        return
    if not found:
        click.echo("no fence agent is installed here; Debian: apt install fence-agents")
        return
    rows = [("AGENT", "OFF PROVES", "ACTIONS", "PATH", "")]
    for name, one in zip(found, known, strict=True):
        proves, _ = proof_of(name)
        if one.metadata is None:
            rows.append((name, proves, "-", one.path, f"broken: {one.trouble}"))
        else:
            can = " ".join(action for action in SHOWN if one.metadata.can(action))
            rows.append((name, proves, can, one.path, one.metadata.short))
    for line in columns(rows):
        click.echo(line)


@click.command()
@click.argument("agent")
@root_option
@json_option
def describe(agent: str, root: Path | None, as_json: bool) -> None:
    """What AGENT can be told, what its "off" proves, and what ringfence corrects in it."""
    known = _look([_path_of(agent)], root)[0]
    name = base_name(known.path)
    if known.metadata is None:
        raise RingfenceError(f"{known.path} does not describe itself: {known.trouble}")
    if as_json:
        print_json({"agent": _whole(name, known, known.metadata)})
        return
    for line in _described(name, known, known.metadata):
        click.echo(line)


def proof_of(agent: str) -> tuple[str, str]:
    """What an off of it proves, in a word, and why it proves nothing where it does not."""
    name = base_name(agent)
    if name in NO_PROOF:
        return "nothing", NO_PROOF[name]
    stock = stock_agent(name)
    if stock is None:
        return "?", "not known to ringfence: its device must say (confirms)"
    return stock.confirms.value, stock.sort.value


def _look(paths: list[str], root: Path | None) -> list[Known]:
    catalogue = Catalogue(Paths.meant(root, os.environ.get(SOCKET_VARIABLE, "")).agents)
    return asyncio.run(catalogue.look(paths, _progress))


def _progress(line: str) -> None:
    if on_terminal():
        click.echo(f"{line} ...", err=True)


def _path_of(agent: str) -> str:
    """Raises NotFound: also a name without its "fence_" is understood."""
    for name in (agent, f"fence_{agent}"):
        with contextlib.suppress(Unavailable):
            return find_agent(name)
    near = nearest_agent(agent)
    cure = f"did you mean {near}?" if near else "`ringfence fence agents` lists those that are"
    raise NotFound(f"fence agent {agent} is not installed here", next=cure)


def _described(name: str, known: Known, metadata: Metadata) -> list[str]:
    proves, why = proof_of(name)
    lines = [f"{name}: {metadata.short}", f"  {known.path}"]
    lines += ["", "An off proves", f"  {proves}: {why}"]
    lines += ["", "Actions", f"  {' '.join(action.name for action in metadata.actions)}"]
    if metadata.unfences_itself:
        lines.append("  each node calls `on` for itself when it joins")
    lines += ["", "Parameters"]
    rows = [_row(one) for one in metadata.parameters if one.name != "action"]
    lines += [f"  {line}" for line in columns([("NAME", "OLD NAME", "TYPE", "DEFAULT", ""), *rows])]
    lines += ["", "What ringfence corrects or refuses"]
    cautions = _cautions(name, metadata)
    return lines + [f"  {_caution(one.cure, one.key, one.value)}: {one.why}" for one in cautions]


def _cautions(name: str, metadata: Metadata) -> list[Caution]:
    """Those that mean something to it."""
    return [one for one in cautions_of(name) if metadata.parameter(one.key) is not None]


def _row(one: Parameter) -> tuple[str, ...]:
    kind = "|".join(one.options) if one.options else one.kind.value
    default = "required" if one.required and not one.default else one.default or "-"
    return one.name, ",".join(one.old_names) or "-", kind, default, one.words


def _caution(cure: Cure, key: str, value: str) -> str:
    match cure:
        case Cure.SET:
            return f"{key}={value} is set where nothing is said"
        case Cure.LEFT_OUT:
            return f"{key} is left out"
        case Cure.NEEDED:
            return f"{key} is needed"
        case Cure.CHECKED:
            return f"{key} other than {value}" if value else key
        case Cure.REFUSED:
            return f"{key}: an unsafe value is refused{f' (give {value})' if value else ''}"


def _brief(name: str, known: Known) -> dict[str, Any]:
    proves, why = proof_of(name)
    metadata = known.metadata
    return {
        "name": name,
        "path": known.path,
        "short": metadata.short if metadata is not None else "",
        "proves": proves,
        "why": why,
        "actions": [one.name for one in metadata.actions] if metadata is not None else [],
        "trouble": known.trouble,
    }


def _whole(name: str, known: Known, metadata: Metadata) -> Mapping[str, Any]:
    cautions = [
        {"key": one.key, "cure": one.cure.value, "value": one.value, "why": one.why}
        for one in _cautions(name, metadata)
    ]
    return {
        **_brief(name, known),
        "long": metadata.long,
        "actions": msgspec.to_builtins(metadata.actions),
        "parameters": msgspec.to_builtins(metadata.parameters),
        "corrected": cautions,
    }
