"""A verb as click's completion knows it: its options, and the names that the daemon has.

Nothing is run by click: `cli.main` gives verbs to `run`."""

from typing import Any

import click
from click.shell_completion import CompletionItem

from ringfence.cli.verbs.table import Option, Verb, call
from ringfence.client.brief import Brief, Call
from ringfence.core.errors import RingfenceError

_NAMES = {
    "vg": (("Vgs", "vg_name"),),
    "lv": (("Vgs", "vg_name"), ("Lvs", "lv_full_name")),
    "pv": (("Pvs", "pv_name"),),
}
"""Kind of name -> calls, and the field of their rows that has it."""


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
    return click.Path() if verb.names in ("path", "") else Names(_NAMES[verb.names])


class Names(click.ParamType[str]):
    """Names that the daemon knows."""

    name = "name"

    def __init__(self, questions: tuple[tuple[str, str], ...]) -> None:
        self._questions = questions

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        found: list[str] = []
        try:
            with Brief(None, 0) as daemon:
                for name, field in self._questions:
                    found += _told(daemon, call(name), field)
        except RingfenceError:
            return []  # Tab is no place for complaints
        return [CompletionItem(one) for one in dict.fromkeys(found) if one.startswith(incomplete)]


def _told(daemon: Brief, question: Call, field: str) -> list[str]:
    return [str(row[field]) for row in daemon.call(question)["rows"] if row.get(field)]
