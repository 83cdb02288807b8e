"""The rows of docs/ARCHITECTURE.md and the purity of the rooms below, as a test that names the cure.

Imports point down only and never sideways inside a row; what a pure room may use of the standard
library is a list, so that a new way to the clock needs a decision here.  The rules are themselves
tested on a small package that breaks each of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringfence

PACKAGE = Path(ringfence.__file__).parent

ROWS: tuple[tuple[str, ...], ...] = (
    ("cli",),
    ("lab", "doctor"),
    ("daemon", "client", "sim"),
    ("ring", "agents", "block", "servers"),
    ("storage", "host", "config", "history"),
    ("engine",),
    ("locks", "fencing", "membership", "volumes"),
    ("lvm2", "wire"),
    ("core",),
)
"""From the top."""
PURE = ("engine", "locks", "fencing", "membership", "volumes", "lvm2", "wire", "core")
TOP = ("__init__.py", "__main__.py")
"""The package's own front doors; they may import any room, and no room may import them."""

PURE_IMPORTS = (
    "__future__", "abc", "base64", "binascii", "bisect", "collections", "contextlib", "copy", "dataclasses",
    "datetime", "decimal", "enum", "errno", "functools", "hashlib", "heapq", "inspect", "itertools", "json",
    "math", "msgspec", "operator", "re", "string", "struct", "textwrap", "types", "typing", "unicodedata",
    "zlib",
)  # fmt: skip
BANNED_CALLS = {
    "open": "bytes come in as an argument",
    "print": "return what is to be said",
    "input": "ask nobody from here",
    "hash": "it differs from run to run; use a digest",
    "id": "it differs from run to run; number things yourself",
    "datetime.now": "time comes in as an argument",
    "datetime.utcnow": "time comes in as an argument",
    "datetime.today": "time comes in as an argument",
    "date.today": "time comes in as an argument",
}
ORDER_SHOWS = ("list", "tuple", "iter", "enumerate", "map", "filter", "zip", "dict.fromkeys", "str")
"""What must not be handed a set: its answer shows the order."""


def row_of(room: str) -> int | None:
    return next((number for number, row in enumerate(ROWS) if room in row), None)


def problems(package: Path, name: str = "ringfence") -> list[str]:
    """One line for each broken rule: FILE:LINE: what; the cure."""
    found = []
    for path in sorted(package.rglob("*.py")):
        where = path.relative_to(package)
        tree = ast.parse(path.read_text(), str(path))
        if str(where) in TOP:
            continue
        room = where.parts[0]
        if len(where.parts) == 1 or row_of(room) is None:
            found.append(
                f"{where}: no row has the room {room!r}; give it one, in ROWS and docs/ARCHITECTURE.md"
            )
            continue
        found += [f"{where}:{line}: {what}" for line, what in _broken(tree, room, where, name)]
    return found


def _broken(tree: ast.Module, room: str, where: Path, name: str) -> Iterator[tuple[int, str]]:
    for line, module in _imports(tree, where, name):
        head, *rest = module.split(".")
        if head == name:
            yield from _layer(line, room, rest)
        elif room in PURE and head not in PURE_IMPORTS:
            yield line, f"pure room {room} imports {module}; let the driver do it and hand the result in"
    if room in PURE:
        yield from _impure(tree, room)


def _layer(line: int, room: str, rest: list[str]) -> Iterator[tuple[int, str]]:
    if not rest:
        yield line, "imports the package itself; import the room that has it"
        return
    mine, theirs = row_of(room), row_of(rest[0])
    if theirs is None or mine is None:
        yield line, f"imports {rest[0]}, which no row has; give it one"
    elif rest[0] != room and theirs == mine:
        yield line, f"{room} imports {rest[0]} sideways; move what both need to a row below"
    elif theirs < mine:
        yield line, f"{room} imports {rest[0]} from above; hand it in through a Protocol instead"


def _imports(tree: ast.Module, where: Path, name: str) -> Iterator[tuple[int, str]]:
    """Every import, wherever it stands: one in a function or behind TYPE_CHECKING is one, too."""
    package = [name, *where.parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == name:  # from ringfence import engine
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def _impure(tree: ast.Module, room: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            cure = BANNED_CALLS.get(called) or BANNED_CALLS.get(".".join(called.split(".")[-2:]))
            if cure:
                yield node.lineno, f"pure room {room} calls {called}(); {cure}"
            if called in ORDER_SHOWS and any(_is_set(argument) for argument in node.args):
                yield node.lineno, f"pure room {room} orders a set by {called}(); use sorted()"
        if isinstance(node, ast.For | ast.comprehension) and _is_set(node.iter):
            line = node.iter.lineno
            yield (
                line,
                f"pure room {room} iterates over a set; use sorted(), or dict.fromkeys() to keep order",
            )


def _is_set(node: ast.expr) -> bool:
    """What is a set on the face of it; types are mypy's business."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr | ast.Sub | ast.BitXor):
        return _is_set(node.left) or _is_set(node.right)
    return False


# -- the package -----------------------------------------------------------------


def test_the_package_keeps_the_rules() -> None:
    assert problems(PACKAGE) == []


def test_every_room_that_is_pure_has_a_row() -> None:
    assert all(row_of(room) is not None for room in PURE)
    assert {room for row in ROWS[5:] for room in row} == set(PURE)


# -- the rules themselves ----------------------------------------------------------

BREACHES = {
    "upwards": (
        "engine/a.py", "from ringfence.daemon.driver import Driver", "engine imports daemon from above",
    ),
    "upwards, plain": ("core/a.py", "import ringfence.wire.ring", "core imports wire from above"),
    "upwards, relative": ("locks/a.py", "from ..engine import state", "locks imports engine from above"),
    "upwards, package": ("locks/a.py", "from ringfence import engine", "locks imports engine from above"),
    "upwards, hidden": (
        "wire/a.py",
        "def f():\n    from ringfence.volumes.model import Vg\n    return Vg",
        "a.py:2: wire imports volumes from above",
    ),
    "upwards, types only": (
        "volumes/a.py",
        "import typing\nif typing.TYPE_CHECKING:\n    from ringfence.engine.state import ClusterState",
        "a.py:3: volumes imports engine from above",
    ),
    "sideways": (
        "locks/a.py", "from ringfence.fencing.domain import Domain", "locks imports fencing sideways",
    ),
    "sideways, drivers": ("ring/a.py", "import ringfence.block", "ring imports block sideways"),
    "front door": ("daemon/a.py", "import ringfence", "imports the package itself"),
    "no row": ("utils/a.py", "", "no row has the room 'utils'"),
    "no room": ("helpers.py", "", "no row has the room 'helpers.py'"),
    "unknown room": ("cli/a.py", "import ringfence.nowhere", "imports nowhere, which no row has"),
    "clock": ("engine/a.py", "import time", "pure room engine imports time"),
    "clock, from": ("engine/a.py", "from time import monotonic", "pure room engine imports time"),
    "chance": ("locks/a.py", "import random", "imports random"),
    "chance, secrets": ("locks/a.py", "import secrets", "imports secrets"),
    "chance, uuid": ("core/a.py", "from uuid import uuid4", "imports uuid"),
    "sockets": ("wire/a.py", "import socket", "imports socket"),
    "loop": ("engine/a.py", "import asyncio", "imports asyncio"),
    "files": ("lvm2/a.py", "import os.path", "imports os.path"),
    "files, paths": ("lvm2/a.py", "from pathlib import Path", "imports pathlib"),
    "files, open": ("volumes/a.py", "data = open('x').read()", "calls open()"),
    "processes": ("fencing/a.py", "import subprocess", "imports subprocess"),
    "threads": ("membership/a.py", "import threading", "imports threading"),
    "wall clock": (
        "core/a.py", "import datetime\nx = datetime.datetime.now()", "a.py:2: pure room core calls",
    ),
    "wall clock, from": (
        "core/a.py", "from datetime import datetime\nx = datetime.utcnow()", "calls datetime.utc",
    ),
    "hash": ("core/a.py", "x = hash('x')", "calls hash()"),
    "print": ("core/a.py", "print('x')", "calls print()"),
    "set": ("locks/a.py", "for x in {1, 2}:\n    pass", "iterates over a set"),
    "set, called": ("locks/a.py", "y = [x for x in set((1, 2))]", "iterates over a set"),
    "set, difference": ("locks/a.py", "for x in set((1, 2)) - {1}:\n    pass", "iterates over a set"),
    "set, listed": ("locks/a.py", "y = list({1, 2})", "orders a set by list()"),
}  # fmt: skip


def generated(tmp_path: Path, file: str, text: str) -> Path:
    package = tmp_path / "ringfence"
    path = package / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return package


@pytest.mark.parametrize("rule", BREACHES)
def test_a_breach_is_found(tmp_path: Path, rule: str) -> None:
    file, text, expected = BREACHES[rule]
    found = problems(generated(tmp_path, file, text))
    assert len(found) == 1, found
    assert expected in found[0]
    assert ";" in found[0], "every line names the cure"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("daemon/a.py", "import asyncio, os, time\nfrom ringfence.engine.state import ClusterState"),
        (
            "engine/a.py",
            "import enum, msgspec\nfrom ringfence.locks.resource import Resource\nfrom . import b",
        ),
        ("engine/commands/a.py", "from ringfence.engine.orders import Order\nfrom ..facts import Noted"),
        ("cli/a.py", "from ringfence.lab.commands import lab\nfrom ringfence.core.errors import BadInput"),
        ("locks/a.py", "for x in sorted({1, 2}):\n    pass\ny = len({1}) + max({1, 2})\nz = x in {1}"),
        ("core/a.py", "import datetime\nx = datetime.datetime.fromtimestamp(0, datetime.UTC)"),
        ("host/a.py", "x = hash('x')\nprint(x)"),
        ("__init__.py", "def connect():\n    from ringfence.client import connect\n    return connect()"),
    ],
)
def test_what_is_allowed_is_not_a_breach(tmp_path: Path, file: str, text: str) -> None:
    assert problems(generated(tmp_path, file, text)) == []
