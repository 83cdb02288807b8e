"""`events --kind` refuses what no event can be of: so the list of kinds has all that the code records."""

import ast
from collections.abc import Iterator
from pathlib import Path

import ringfence
from ringfence.history.kinds import FENCE_KINDS, INCIDENT, KINDS

SOURCE = Path(ringfence.__file__).parent
COMPUTED = {
    "clone-found", "drill-ended", "drill-failed", "fence-lied", "lv-wiped", "lv-zeroed", "power-on-failed",
    INCIDENT,
}  # fmt: skip
"""No word of a call: chosen before it."""


def recorded() -> Iterator[str]:
    """The kinds in the calls of `Noted` (by all), `record` (by a node) and of the history itself."""
    for file in (*SOURCE.joinpath("engine").rglob("*.py"), *SOURCE.joinpath("daemon").rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call):
                continue
            called = ast.unparse(call.func).rpartition(".")[2]
            if called in ("Noted", "record") or ast.unparse(call.func) == "history.append":
                kind = call.args[0]
            elif called == "_noted":
                kind = call.args[1]
            else:
                continue
            yield from (one.value for one in ast.walk(kind) if isinstance(one, ast.Constant))


def test_every_kind_that_is_recorded_can_be_asked_for() -> None:
    found = {kind for kind in recorded() if kind != "lv-"}
    assert found | COMPUTED == set(KINDS)
    assert len(KINDS) == len(set(KINDS))
    assert set(FENCE_KINDS) <= set(KINDS)
