"""-S with verbs that change something: which LVs or VGs are meant.

Source: lvmreport(7), "Selection"; LVM2 tools/toollib.c (select_match_lv): names and -S must both fit."""

from typing import Any

from ringfence.cli.report import fields as known
from ringfence.cli.report.fields import LVS, VGS, Field
from ringfence.cli.report.select import parse_selection, selected
from ringfence.cli.verbs.derive import ASKABLE, DERIVED
from ringfence.cli.verbs.rows import Table
from ringfence.cli.verbs.table import Given, call
from ringfence.client.brief import Brief


def chosen(daemon: Brief, given: Given, kind: str) -> tuple[str, ...]:
    """The names that pass.  Args: kind: lv or vg.

    Raises BadInput for a selection that cannot be."""
    report, key = (LVS, "lv_full_name") if kind == "lv" else (VGS, "vg_name")
    node = parse_selection(given["select"], lambda name: known.find(report, name))
    looked_at = node.fields if node is not None else []
    if known.final(report, looked_at) is not report:
        raise known.unknown(", ".join(field.name for field in looked_at))
    table = _table(daemon, kind, looked_at)

    def values(field: Field) -> list[Any]:
        return table.column(field.name)

    names = table.column(key)
    passes = [True] * table.count if node is None else selected(node, values)
    wanted = given.names
    return tuple(
        name
        for name, passed in zip(names, passes, strict=True)
        if passed and (not wanted or name in wanted or name.partition("/")[0] in wanted)
    )


def _table(daemon: Brief, kind: str, looked_at: list[Field]) -> Table:
    of_vgs = kind == "vg" or any(field.section == "vg" for field in looked_at)
    vgs = daemon.call(call("Vgs"))["rows"] if of_vgs else []
    if kind == "vg":
        return Table.of_rows(vgs)
    names = {field.name for field in looked_at} | {"lv_name", "vg_name"}
    names |= {source for name in names if name in DERIVED for source in DERIVED[name][0]}
    answer = daemon.call(call("Lvs", fields=[name for name in ASKABLE if name in names]))
    table = Table(answer["columns"])
    by_name = {row["vg_name"]: row for row in vgs}
    for field in looked_at:
        if field.section == "vg" and field.name not in table.columns:
            told = Table.of_rows([by_name.get(vg, {}) for vg in table.column("vg_name")])
            table.columns[field.name] = told.column(field.name)
    return table
