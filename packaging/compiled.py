"""A ringfence whose hot pure rooms are compiled by mypyc: python packaging/compiled.py [DIR].

DIR (default build/compiled) gets a copy of the package with the modules below as extensions beside their
sources.  `PYTHONPATH=DIR` puts it before the one that is installed; the sources are the same, and without
it nothing changes.  Needs a C compiler, Python's headers and setuptools; takes a minute.

What mypyc does not keep: a class statement's keywords and the types of a class's fields, on which msgspec
rests.  So a struct with either stands in a module that is not compiled (`locks.queues`, `engine.uses`), and
classes that are compiled add methods to it.  Nor can their methods be replaced at run time: the simulator's
mutants need the sources."""

import ast
import os
import shutil
import sys
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "src" / "ringfence"
MODULES = (
    "locks/compat", "locks/flags", "locks/local", "locks/node_lock", "locks/node_locks", "locks/resource",
    "locks/table", "engine/apply", "engine/client_locks", "engine/context", "engine/grants", "engine/locker",
    "engine/node", "engine/outbox", "engine/requests", "engine/spaces", "engine/views",
    "membership/authority", "membership/hearing",
)  # fmt: skip
"""What a lock runs through."""


def unfit(source: str) -> list[str]:
    """Classes of a module that would lose something: their names."""
    return [one.name for one in ast.walk(ast.parse(source)) if isinstance(one, ast.ClassDef) and one.keywords]


def build(directory: Path) -> None:
    """Raises SystemExit with what is wrong."""
    for module in MODULES:
        lost = unfit((SOURCES / f"{module}.py").read_text())
        if lost:
            sys.exit(f"{module}: {', '.join(lost)} would lose options; next: move it to a module of its own")
    try:
        from mypyc.build import mypycify
        from setuptools import setup
    except ImportError as error:
        sys.exit(f"{error}; next: pip install mypy setuptools")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(SOURCES, directory / "ringfence", ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(directory)
    os.environ["MYPYPATH"] = str(directory)
    paths = [f"ringfence/{module}.py" for module in MODULES]
    setup(
        name="ringfence",
        packages=[],
        ext_modules=mypycify(["--strict", "--follow-imports=silent", *paths], debug_level="0"),
        script_args=["--quiet", "build_ext", "--inplace"],
    )
    shutil.rmtree("build")


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else "build/compiled").absolute())
