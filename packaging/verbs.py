"""Prints docs/commands.md, made from the table of LVM2's verbs.

    python packaging/verbs.py > docs/commands.md"""

from ringfence.cli.verbs import ROOMS, verb
from ringfence.cli.verbs.help import left_out, shape
from ringfence.cli.verbs.reports import OPTIONS
from ringfence.cli.verbs.table import CHANGE, Option, Verb

HEAD = """\
# LVM2's commands, as ringfence has them

Made from the commands' own table (`cli/verbs`) by `python packaging/verbs.py`; a test holds it current.

`ringfence VERB` takes LVM2's names, options, units and fields. What it cannot do is left to stock LVM2,
and the refusal says the command. Names are VG, VG/LV, /dev/VG/LV or /dev/mapper/VG-LV. Sizes are in MiB without
a unit, and base two in either case of it; in reports capitals count in thousands. Exit codes: 0 done, 3 bad command line, 5
refused or failed, 130 interrupted (what the daemon had begun may be done). Each option of LVM2's is taken, or
refused with the command of stock LVM2 that has it: so are `--config`, `--profile`, `--devices`,
`--devicesfile`, `--lockopt` and `--nolocking` of every command, while `--nohints`, `--journal`,
`--driverloaded` and `-d` mean nothing here.
"""
REPORTS = """\
Fields (`-o help`), their order and headings, sorting (-O) and selection (-S) are lvmreport(7)'s. `lv_holder`
is ringfence's own: the hosts that hold an LV, the mode, since when. `lv_path` says where an LV can be used
here once it is active, `lv_uri` how, of those that are. One bug of LVM2's is not taken over: `lv_time!=2019`
there passes LVs *of* 2019.
"""


def document() -> str:
    """The whole text."""
    verbs = [verb(name) for name in ROOMS]
    lines = [HEAD, *_table("All that change something", CHANGE), *_table("All reports", OPTIONS)]
    lines.append(REPORTS)
    for one in verbs:
        lines += _verb(one)
    return "\n".join(lines)


def _table(title: str, options: tuple[Option, ...]) -> list[str]:
    rows = [f"| `{_safe(shape(one))}` | {_safe(one.help)} |" for one in options]
    return [f"## {title}", "", "| option | |", "|---|---|", *rows, ""]


def _verb(one: Verb) -> list[str]:
    lines = [f"## {one.name}", "", f"{one.summary} {one.about}".rstrip(), ""]
    lines += ["```", f"ringfence {one.name} [OPTIONS] {one.usage}", "```", ""]
    common = OPTIONS if one.run else CHANGE
    own = [option for option in one.options if option not in common]
    if own:
        lines += ["| option | |", "|---|---|"]
        lines += [f"| `{_safe(shape(option))}` | {_safe(option.help)} |" for option in own]
        lines.append("")
    if one.examples:
        width = max(len(example) for example, _ in one.examples)
        lines += ["```", *(f"ringfence {line:<{width}}  # {what}" for line, what in one.examples), "```", ""]
    if one.stock:
        lines += [_safe(left_out(one)), ""]
    return lines


def _safe(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(document(), end="")
