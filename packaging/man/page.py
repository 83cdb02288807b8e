"""Prints ringfence(1), made from the commands' own help.

    python packaging/man/page.py > ringfence.1"""

import click

from ringfence.cli.commands import COMMANDS, root
from ringfence.cli.verbs import ROOMS, verb
from ringfence.cli.verbs.help import left_out, shape
from ringfence.cli.verbs.table import Verb
from ringfence.core.errors import RingfenceError

HEAD = r""".TH RINGFENCE 1 "" ringfence "User commands"
.SH NAME
ringfence \- clustered LVM: locks, fencing with evidence, shared volume groups
.SH SYNOPSIS
.B ringfence
.I COMMAND
.RI [ ARGUMENTS ]"""

FOOT = r""".SH ENVIRONMENT
.TP
.B RINGFENCE_SOCKET
The daemon's socket, where no \-\-socket is given.
.SH EXIT STATUS
0 done; 1 (status) something is blocked, (doctor) warnings; 2 (doctor) errors; 3 bad command line; 5 refused or failed;
130 interrupted: what the daemon had begun may be done; 141 nobody reads the output any more.
.SH FILES
/etc/ringfence/ringfence.toml, /etc/ringfence/secrets/DEVICE, /var/lib/ringfence, /run/ringfence/socket,
/run/ringfence/dev/VG/LV
.SH SEE ALSO
.BR ringfence.toml (5),
.BR lvm (8)"""


def page() -> str:
    lines = [HEAD, ".SH DESCRIPTION", escape(root.help or ""), *options(root, click.Context(root))]
    lines.append(".SH COMMANDS")
    for name in COMMANDS:
        if name in ROOMS:
            lines += verb_section(verb(name))
            continue
        try:
            command = root.get_command(click.Context(root), name)
        except RingfenceError:
            continue  # its room is not in this installation
        assert command is not None
        lines += section(command, f"ringfence {name}", name)
    return "\n".join([*lines, FOOT, ""])


def section(command: click.Command, words: str, name: str) -> list[str]:
    context = click.Context(command, info_name=words)
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [f".SS {escape(words)}", f".B {escape(words)}", escape(usage), ".PP", escape(command.help or "")]
    lines += options(command, context)
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            inner = command.get_command(context, sub)
            assert inner is not None
            lines += section(inner, f"{words} {sub}", sub)
    return lines


def options(command: click.Command, context: click.Context) -> list[str]:
    """All but --help, which every command has."""
    lines = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in parameter.opts:
            lines += [".TP", f".B {escape(record[0])}", escape(record[1])]
    return lines


def verb_section(entry: Verb) -> list[str]:
    """One of LVM2's verbs, from its own table."""
    words = f"ringfence {entry.name}"
    lines = [f".SS {escape(words)}", f".B {escape(words)}", escape(f"[OPTIONS] {entry.usage}")]
    lines += [".PP", escape(f"{entry.summary} {entry.about}".rstrip())]
    for option in entry.options:
        if option.key != "help":
            lines += [".TP", f".B {escape(shape(option))}", escape(option.help)]
    for example, what in entry.examples:
        lines += [".TP", f".B {escape('ringfence ' + example)}", escape(what)]
    if entry.stock:
        lines += [".PP", escape(left_out(entry))]
    return lines


def escape(text: str) -> str:
    """For roff: backslashes and dashes; a line must not begin with a control character."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return "\n.PP\n".join(_paragraph(part) for part in text.split("\n\n") if part.strip())


def _paragraph(text: str) -> str:
    r"""One that begins with \b keeps its lines, as click has it."""
    keep = text.startswith("\b\n")
    lines = text[2:].splitlines() if keep else [" ".join(text.split())]
    safe = [r"\&" + line if line.startswith((".", "'")) else line for line in lines]
    return "\n".join([".nf", *safe, ".fi"] if keep else safe)


if __name__ == "__main__":
    click.echo(page(), nl=False)
