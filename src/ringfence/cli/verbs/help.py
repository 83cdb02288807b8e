"""What is said of a verb: --help, and its part of the documents."""

import textwrap

from ringfence.cli.verbs.table import Option, Stock, Verb

WIDTH = 92
_COLUMN = 34


def help_text(verb: Verb) -> str:
    """`ringfence VERB --help`."""
    lines = [f"Usage: ringfence {verb.name} [OPTIONS] {verb.usage}", "", f"  {verb.summary}"]
    if verb.about:
        lines += ["", *textwrap.wrap(verb.about, WIDTH, initial_indent="  ", subsequent_indent="  ")]
    lines += ["", "Options:", *(line for option in verb.options for line in _option(option))]
    if verb.examples:
        lines += ["", "Examples:"]
        width = max(len(example) for example, _ in verb.examples)
        lines += [f"  ringfence {example:<{width}}  # {what}" for example, what in verb.examples]
    if verb.stock:
        lines += ["", *textwrap.wrap(left_out(verb), WIDTH, subsequent_indent="  ")]
    return "\n".join(lines)


def shape(option: Option) -> str:
    """`-L, --size SIZE`."""
    names = ", ".join(option.names)
    return f"{names} {option.metavar}" if option.metavar else names


def _option(option: Option) -> list[str]:
    head = "  " + shape(option)
    text = textwrap.wrap(option.help, WIDTH - _COLUMN) or [""]
    if len(head) + 2 > _COLUMN:
        return [head, *(" " * _COLUMN + line for line in text)]
    return [head.ljust(_COLUMN) + text[0], *(" " * _COLUMN + line for line in text[1:])]


def left_out(verb: Verb) -> str:
    """Which of LVM2's options are stock LVM2's."""
    by_kind: dict[str, list[Stock]] = {}
    for one in verb.stock:
        by_kind.setdefault(one.what, []).append(one)
    told = "; ".join(
        f"{what} ({', '.join('/'.join(one.names) for one in many)})" for what, many in by_kind.items()
    )
    return f"Left to stock LVM2, whose locks ringfence serves (the refusal says the command): {told}."
