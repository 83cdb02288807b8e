from collections.abc import Iterator

import pytest
from ring_engines import ENGINES, AnyWorld
from ring_world import HubWorld


@pytest.fixture(params=ENGINES)
def world(request: pytest.FixtureRequest) -> Iterator[AnyWorld]:
    """A ring of the engine under test; the contract suite runs on each."""
    world = ENGINES[request.param]()
    yield world
    world.close()


@pytest.fixture
def hub() -> Iterator[HubWorld]:
    world = HubWorld()
    yield world
    world.close()
