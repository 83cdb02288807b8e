from collections.abc import Iterator

import pytest
from block_rig import Rig, rig


@pytest.fixture
def block() -> Iterator[Rig]:
    with rig() as one:
        yield one


@pytest.fixture(params=["fast", "plain"])
def freezable(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The usual case runs in C or in Python: what must hold at the instant between holds for both."""
    with rig(freezable=True, plain=request.param == "plain") as one:
        yield one
