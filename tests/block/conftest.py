import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from block_rig import Rig, rig


@pytest.fixture
def block() -> Iterator[Rig]:
    with rig() as one:
        yield one


@pytest.fixture(scope="session")
def between(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """between.c, built."""
    built = tmp_path_factory.mktemp("between") / "between.so"
    source = Path(__file__).with_name("between.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, source], check=True)
    return built


@pytest.fixture(params=["fast", "plain"])
def freezable(request: pytest.FixtureRequest, between: Path) -> Iterator[Rig]:
    """The usual case runs in C or in Python: what must hold at the instant between holds for both."""
    with rig(between, plain=request.param == "plain") as one:
        yield one
