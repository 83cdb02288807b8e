"""What the tests of agents share: the agents that are installed, and some that are written for a test."""

import asyncio
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from ringfence.agents.catalogue import Catalogue, Known
from ringfence.agents.find import installed_agents

Write = Callable[[str], Path]


@functools.cache
def stock() -> dict[str, Known]:
    """What every installed agent says of itself, by its name: some seconds, once."""
    found = installed_agents()
    with tempfile.TemporaryDirectory() as directory:
        known = asyncio.run(Catalogue(Path(directory) / "agents.json").look(found.values()))
    return dict(zip(found, known, strict=True))


def writer(directory: Path) -> Write:
    """Writes an executable shell agent."""

    def write(body: str) -> Path:
        path = directory / f"fence_{len(list(directory.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write
