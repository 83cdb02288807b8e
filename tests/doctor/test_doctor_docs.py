"""docs/DOCTOR.md lists the findings that there are.  REWRITE=1 writes its table anew."""

import os
from pathlib import Path

from ringfence.doctor.checks import MODULES

FILE = Path(__file__).parents[2] / "docs/DOCTOR.md"
MARK = "writes it -->\n"


def table() -> str:
    lines = []
    for module in MODULES:
        about = (module.__doc__ or "").partition("\n")[0].strip().rstrip(".")
        lines += ["", f"### {about}", "", "| id | | what is wrong | why it matters |", "|---|---|---|---|"]
        for kind in module.KINDS:
            lab = f" (Not in a lab: {kind.excused}.)" if kind.excused else ""
            lines.append(f"| `{kind.id}` | {kind.severity.value} | {kind.title} | {kind.why}{lab} |")
    return "\n".join([*lines, ""])


def test_the_document_lists_every_finding() -> None:
    prose, mark, written = FILE.read_text().partition(MARK)
    if os.environ.get("REWRITE"):
        FILE.write_text(prose + mark + table())
        written = table()
    assert written == table()
