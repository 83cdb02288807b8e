"""What Tab offers: a verb's options and fields, and the names that the daemon, or a lab, has.

Nothing is run by click here: `cli.main` gives verbs to `run`, and a command of the tree gets its words' kinds
only while Tab asks."""

import json
import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ringfence.cli.verbs.table import Option, Verb, call
from ringfence.client.brief import Brief
from ringfence.core.errors import RingfenceError

LIMIT_S = 1.0
"""So long Tab may wait for a daemon that does not answer."""


DEVICES_AFTER = {"vgcreate": "path", "vgextend": "path", "vgreduce": "pv", "lvcreate": "pv", "lvextend": "pv",
    "lvresize": "pv"}  # fmt: skip
"""Verbs whose first word is a VG or an LV, and what the others are."""
WORDS = {
    "node": "node", "to": "node", "lockspace": "space", "target": "target", "vg": "vg", "volume": "lv",
}  # fmt: skip
"""How the commands of the tree call their arguments -> of which kind these are."""


def as_click(verb: Verb) -> click.Command:
    parameters: list[click.Parameter] = [_option(one) for one in verb.options if one.key != "help"]
    parameters.append(click.Argument(["names"], nargs=-1, type=_type(verb)))
    return click.Command(verb.name, params=parameters, help=verb.summary)


def with_known_words(command: click.Command, name: str) -> click.Command:
    """A command of the tree, whose arguments are completed with what there is.

    Args: name: under which it stands in the tree."""
    for parameter in command.params:
        if isinstance(parameter, click.Argument) and parameter.type is click.STRING:
            word = "lockspace" if (name, parameter.name) == ("lockspace", "name") else parameter.name
            if word in WORDS:
                lab = name == "lab" and word == "node"
                parameter.type = LabNodes() if lab else Names(WORDS[word])
    if isinstance(command, click.Group):
        for one in command.commands.values():
            with_known_words(one, name)
    return command


def _option(option: Option) -> click.Option:
    names = [option.key, *option.names]
    if not option.metavar:
        return click.Option(names, is_flag=True, help=option.help)
    kind: Any = click.Choice(option.choices) if option.choices else str
    if option.metavar in ("FILE", "PATH"):
        kind = click.Path()
    elif option.metavar == "NODE":
        kind = Names("node")
    elif option.metavar == "FIELDS":
        kind = Fields()
    return click.Option(names, type=kind, metavar=option.metavar, help=option.help)


def _type(verb: Verb) -> click.ParamType[Any]:
    return click.Path() if verb.names in ("path", "") and verb.name not in DEVICES_AFTER else Names(
        "vg" if verb.names == "path" else verb.names, DEVICES_AFTER.get(verb.name, "")
    )


class Names(click.ParamType[str]):
    """Names that the daemon knows."""

    name = "name"

    def __init__(self, kind: str, then: str = "") -> None:
        """Args:
        kind: vg, lv, pv, node, space (a lockspace) or target (of `why`).
        then: of all words but the first, if that is another one; or path."""
        self._kind = kind
        self._then = then

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return self.complete(ctx, incomplete)

    def complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        kind = self._then if self._then and ctx is not None and ctx.params.get("names") else self._kind
        if kind == "path":
            return [CompletionItem(incomplete, type="file")]
        try:
            with Brief(None, 0, LIMIT_S) as daemon:
                found = _told(daemon, kind, incomplete)
        except RingfenceError:
            return []  # Tab is no place for complaints
        return [CompletionItem(one) for one in dict.fromkeys(found) if one.startswith(incomplete)]


class Fields(click.ParamType[str]):
    """Report fields, with commas between; + - # before them stay."""

    name = "fields"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from ringfence.cli.report.fields import FIELDS

        rest = incomplete.rpartition(",")[2].lstrip("+-#")
        before = incomplete[: len(incomplete) - len(rest)]
        return [CompletionItem(before + name) for name in FIELDS if name.startswith(rest)]


class LabNodes(click.ParamType[str]):
    """The hosts of the lab that --dir, or RINGFENCE_LAB, names."""

    name = "node"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        where = (ctx.params.get("directory") if ctx is not None else None) or os.environ.get("RINGFENCE_LAB")
        try:
            nodes = json.loads((Path(where or "") / "lab.json").read_bytes())["nodes"]
        except (OSError, ValueError, KeyError):
            return []
        return [CompletionItem(name) for name in nodes if name.startswith(incomplete)]


def _told(daemon: Brief, kind: str, incomplete: str) -> list[str]:
    vg, slash, _ = incomplete.partition("/")
    if kind in ("node", "space", "target"):
        status = daemon.call(call("Status"))
        nodes = [str(one["name"]) for one in status["members"]]
        spaces = [str(one["name"]) for one in status["lockspaces"]]
        if kind != "target":
            return nodes if kind == "node" else spaces
        if not slash:
            return [*nodes, *_told(daemon, "lv", ""), *(f"{name}/" for name in spaces)]
    if kind in ("lv", "target") and slash and vg:
        question = call("Lvs", vg=vg, fields=["lv_name"])
        return [f"{vg}/{name}" for name in daemon.call(question)["columns"]["lv_name"]]
    if kind == "pv":
        return _column(daemon, "Pvs", "pv_name")
    names = _column(daemon, "Vgs", "vg_name")
    # A VG stands for its LVs, and is the beginning of their names.
    return [*names, *(f"{name}/" for name in names)] if kind == "lv" else names


def _column(daemon: Brief, question: str, field: str) -> list[str]:
    return [str(row[field]) for row in daemon.call(call(question))["rows"] if row.get(field)]
