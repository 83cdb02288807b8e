from collections.abc import Iterator

import pytest
from pacemaker_world import PacemakerWorld, level, primitive

DEVICES = (
    primitive("bmc", "fence_ipmilan", pcmk_host_map="n1:bmc1;n2:bmc2")
    + primitive("pdu-a", "fence_apc", pcmk_host_map="n1:a1;n2:a2")
    + primitive("pdu-b", "fence_apc", pcmk_host_map="n1:b1;n2:b2")
)
LEVELS = "".join(level(node, 1, "bmc") + level(node, 2, "pdu-a", "pdu-b") for node in ("n1", "n2"))


@pytest.fixture(scope="package")
def whole_world() -> Iterator[PacemakerWorld]:
    made = PacemakerWorld(DEVICES, LEVELS)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def world(whole_world: PacemakerWorld) -> Iterator[PacemakerWorld]:
    yield whole_world
    whole_world.forget()
