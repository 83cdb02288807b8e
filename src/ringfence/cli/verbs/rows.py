"""What the daemon answered, a list of values for each field."""

from collections.abc import Sequence
from typing import Any

from ringfence.cli.report.values import MISSING, all_same
from ringfence.cli.verbs.derive import DERIVED, Row


class Table:
    """Columns of one length.  Those that the daemon does not have are made when they are asked for."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns
        self._derived: set[str] = set()

    @classmethod
    def of_answer(cls, answer: dict[str, Any]) -> "Table":
        """An answer of the daemon's, in columns or in rows (`wire.client.Lvs`)."""
        if "columns" not in answer:
            return cls.of_rows(answer["rows"])
        count = answer.get("count", 0)
        same = {field: [value] * count for field, value in answer.get("same", {}).items()}
        return cls({**answer["columns"], **same})

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> "Table":
        names = dict.fromkeys(name for row in rows for name in row)
        return cls({name: [row.get(name, "") for row in rows] for name in names})

    @classmethod
    def joined(cls, tables: Sequence["Table"]) -> "Table":
        """One after the other; a row that was there already is left out."""
        rows: dict[Any, Row] = {}
        for table in tables:
            for values in zip(*table.columns.values(), strict=True):
                row = dict(zip(table.columns, values, strict=True))
                rows.setdefault(row.get("lv_uuid") or row.get("vg_uuid") or repr(row), row)
        return cls.of_rows(list(rows.values()))

    @property
    def count(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def keep(self, passes: Sequence[bool]) -> None:
        """Rows that do not pass go."""
        for name, values in self.columns.items():
            self.columns[name] = [value for value, passed in zip(values, passes, strict=True) if passed]

    def split(self, name: str) -> None:
        """A column that has a list of rows in each row: a row for each, with its fields as well."""
        if name not in self.columns:
            return
        parts = self.columns.pop(name)
        places = [at for at, inner in enumerate(parts) for _ in inner]
        inner = Table.of_rows([one for some in parts for one in some])
        self.columns = {key: [values[at] for at in places] for key, values in self.columns.items()}
        self.columns |= inner.columns

    def column(self, name: str) -> list[Any]:
        if name in DERIVED and name not in self._derived:
            sources, make = DERIVED[name]
            if all(source in self.columns for source in sources):
                self._derived.add(name)
                cells = [self.columns[source] for source in sources]
                # Of rows that are the same it is made once.
                count = 1 if all(map(all_same, cells)) else self.count
                rows = zip(*(values[:count] for values in cells), strict=True)
                made = [make(dict(zip(sources, row, strict=True))) for row in rows]
                self.columns[name] = made if count > 1 else made * self.count
        if name not in self.columns:
            self.columns[name] = [MISSING.get(name, "")] * self.count
        return self.columns[name]
