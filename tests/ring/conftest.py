from collections.abc import Iterator

import pytest
from corosync_world import CorosyncWorld
from ring_world import HubWorld

ENGINES = {"hub": HubWorld, "corosync": CorosyncWorld}


@pytest.fixture(params=sorted(ENGINES))
def world(request: pytest.FixtureRequest) -> Iterator[HubWorld]:
    """A ring of the engine under test; the contract suite runs on each."""
    world = ENGINES[request.param]()
    yield world
    world.close()


@pytest.fixture
def hub() -> Iterator[HubWorld]:
    world = HubWorld()
    yield world
    world.close()
