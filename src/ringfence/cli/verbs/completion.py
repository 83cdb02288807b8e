"""A verb as click's completion knows it: its options, and the names that the daemon has.

Nothing is run by click: `cli.main` gives verbs to `run`."""

from typing import Any

import click
from click.shell_completion import CompletionItem

from ringfence.cli.verbs.table import Option, Verb, call
from ringfence.client.brief import Brief
from ringfence.core.errors import RingfenceError

LIMIT_S = 1.0
"""So long Tab may wait for a daemon that does not answer."""


def as_click(verb: Verb) -> click.Command:
    parameters: list[click.Parameter] = [_option(one) for one in verb.options if one.key != "help"]
    parameters.append(click.Argument(["names"], nargs=-1, type=_type(verb)))
    return click.Command(verb.name, params=parameters, help=verb.summary)


def _option(option: Option) -> click.Option:
    names = [option.key, *option.names]
    if not option.metavar:
        return click.Option(names, is_flag=True, help=option.help)
    kind: Any = click.Choice(option.choices) if option.choices else str
    return click.Option(names, type=kind, metavar=option.metavar, help=option.help)


def _type(verb: Verb) -> click.ParamType[Any]:
    return click.Path() if verb.names in ("path", "") else Names(verb.names)


class Names(click.ParamType[str]):
    """Names that the daemon knows."""

    name = "name"

    def __init__(self, kind: str) -> None:
        """Args: kind: vg, lv or pv."""
        self._kind = kind

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        try:
            with Brief(None, 0, LIMIT_S) as daemon:
                found = _told(daemon, self._kind, incomplete)
        except RingfenceError:
            return []  # Tab is no place for complaints
        return [CompletionItem(one) for one in dict.fromkeys(found) if one.startswith(incomplete)]


def _told(daemon: Brief, kind: str, incomplete: str) -> list[str]:
    vg, slash, _ = incomplete.partition("/")
    if kind == "lv" and slash and vg:
        question = call("Lvs", vg=vg, fields=["lv_name"])
        return [f"{vg}/{name}" for name in daemon.call(question)["columns"]["lv_name"]]
    if kind == "pv":
        return _column(daemon, "Pvs", "pv_name")
    names = _column(daemon, "Vgs", "vg_name")
    # A VG stands for its LVs, and is the beginning of their names.
    return [*names, *(f"{name}/" for name in names)] if kind == "lv" else names


def _column(daemon: Brief, question: str, field: str) -> list[str]:
    return [str(row[field]) for row in daemon.call(call(question))["rows"] if row.get(field)]
