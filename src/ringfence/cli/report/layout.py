"""A report's lines: tables, columns as rows, NAME='value' lines, JSON.

Source: LVM2 libdm/libdm-report.c (_output_as_columns, _output_as_rows, _report_headings); lvmreport(7)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ringfence.cli.report.fields import Field
from ringfence.cli.report.values import Look, all_same, json_value


class Style(NamedTuple):
    """How a report is laid out."""

    headings: bool = True
    separator: str = " "
    aligned: bool = True
    prefixes: bool = False
    """LVM2_NAME='value'."""
    quoted: bool = True
    columns_as_rows: bool = False


Cells = Sequence[Sequence[str]]
"""A list of texts for each field, all of one length."""


def table(fields: Sequence[Field], cells: Cells, style: Style) -> list[str]:
    """Lines with LVM2's two blanks in front, the last column padded too.  No rows: no lines at all."""
    if not fields or not cells[0]:
        return []
    if style.columns_as_rows:
        return _as_rows(fields, cells, style)
    # One format for all lines, with what they have in common in it: Python fills that in quickly.
    headings, places, differing = [], [], []
    for field, texts in zip(fields, cells, strict=True):
        width = 0
        if style.aligned:  # the heading counts also where it is not printed
            width = max(field.width, len(field.heading), max(map(len, texts)))
        headings.append(field.heading.ljust(width))
        place = f"%{'' if field.right else '-'}{width or ''}s"
        if all_same(texts):
            place = (place % texts[0]).replace("%", "%%")
        else:
            differing.append(texts)
        name = f"LVM2_{field.name.upper()}=" if style.prefixes else ""
        quote = "'" if name and style.quoted else ""
        places.append(f"{name}{quote}{place}{quote}")
    form = "  " + style.separator.replace("%", "%%").join(places)
    lines = [form % row for row in zip(*differing, strict=True)] if differing else [form % ()] * len(cells[0])
    return ["  " + style.separator.join(headings), *lines] if style.headings else lines


def _as_rows(fields: Sequence[Field], cells: Cells, style: Style) -> list[str]:
    """Nothing is aligned."""
    lines = []
    for field, texts in zip(fields, cells, strict=True):
        name = f"LVM2_{field.name.upper()}=" if style.prefixes else ""
        quote = "'" if name and style.quoted else ""
        shown = [f"{name}{quote}{text}{quote}" for text in texts]
        lines.append("  " + style.separator.join([field.heading, *shown] if style.headings else shown))
    return lines


def json_lines(key: str, fields: Sequence[Field], cells: Cells) -> list[str]:
    """LVM2's own layout of `--reportformat json`: every value a string."""
    lines = ["  {", '      "report": [', "          {", f'              "{key}": [']
    done = [
        [f'"{field.name}":"{_escaped(text)}"' for text in texts]
        for field, texts in zip(fields, cells, strict=True)
    ]
    rows = [" " * 18 + "{" + ", ".join(row) + "}" for row in zip(*done, strict=True)]
    if rows:
        lines += [row + "," for row in rows[:-1]] + rows[-1:]
    return [*lines, "              ]", "          }", "      ]", "  }"]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def json_rows(
    fields: Sequence[Field], values: Sequence[Sequence[Any]], cells: Cells, look: Look
) -> list[dict[str, Any]]:
    """Rows for json_std: native types."""
    done = [
        [json_value(field, value, text, look) for value, text in zip(column, texts, strict=True)]
        for field, column, texts in zip(fields, values, cells, strict=True)
    ]
    names = [field.name for field in fields]
    return [dict(zip(names, row, strict=True)) for row in zip(*done, strict=True)]
