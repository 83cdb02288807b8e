"""What a configuration leaves out must mean the same to all nodes."""

import msgspec

from ringfence.core.cluster import (
    DEFAULTS,
    ClusterConfig,
    DeviceConfig,
    Level,
    Lvmlockd,
    NodeConfig,
    Timing,
    Volumes,
)
from ringfence.core.evidence import DEFAULT_EVIDENCE

KNOWN = {
    2: {
        "Timing": [200, 1000, 1500, 3000, 4500, 60000, 20000, 30000, 30000, 1000, 1, 0, 86400000],
        "Lvmlockd": [True, 60000, 0],
        "Volumes": [0],
        "ClusterConfig": [1, "hub", False, False, "off", "ringfence", DEFAULT_EVIDENCE, (), ()],
        "NodeConfig": [1, (), (), False, 0],
        "DeviceConfig": [{}, 0, False, 1, 0, 2, 0],
        "Level": [False],
    }
}
"""By `DEFAULTS`.  A key that is new has a default that means what was so before: it is added here, and the
number stays.  A default that becomes another value needs the next number."""


def test_a_default_that_changes_raises_the_number() -> None:
    found = {}
    for kind in (Timing, Lvmlockd, Volumes, ClusterConfig, NodeConfig, DeviceConfig, Level):
        values = [field.default for field in msgspec.structs.fields(kind)]
        factories = [field.default_factory for field in msgspec.structs.fields(kind)]
        both = [
            value if value is not msgspec.NODEFAULT else make() if make is not msgspec.NODEFAULT else None
            for value, make in zip(values, factories, strict=True)
        ]
        found[kind.__name__] = [
            one for one in both if one is not None and one not in (Timing(), Lvmlockd(), Volumes())
        ]
    assert found == KNOWN[DEFAULTS]
