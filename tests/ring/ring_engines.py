"""The rings that the contract suite runs on."""

from collections.abc import Callable

from corosync_world import CorosyncWorld
from ring_world import HubWorld
from sim_world import SimWorld

AnyWorld = HubWorld | CorosyncWorld | SimWorld
ENGINES: dict[str, Callable[[], AnyWorld]] = {
    "hub": HubWorld,
    "corosync": CorosyncWorld,
    "sim as hub": lambda: SimWorld(totem=False),
    "sim as corosync": lambda: SimWorld(totem=True),
}
