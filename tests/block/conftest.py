from collections.abc import Iterator

import pytest
from block_rig import Rig, rig


@pytest.fixture
def block() -> Iterator[Rig]:
    with rig() as one:
        yield one


@pytest.fixture
def freezable() -> Iterator[Rig]:
    with rig(freezable=True) as one:
        yield one
