import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence.agents.catalogue import Catalogue, Known
from ringfence.agents.find import installed_agents


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Known]:
    """What every installed agent says of itself, by its name: some seconds, once."""
    file = tmp_path_factory.mktemp("catalogue") / "agents.json"
    found = installed_agents()
    known = asyncio.run(Catalogue(file).look(found.values()))
    return dict(zip(found, known, strict=True))


Write = Callable[[str], Path]


@pytest.fixture
def agent(tmp_path: Path) -> Write:
    """Writes an executable shell agent."""

    def write(body: str) -> Path:
        path = tmp_path / f"fence_{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write
