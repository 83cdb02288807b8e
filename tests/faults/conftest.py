"""Each test of a module finds the module's cluster whole; what a fault leaves behind is mended after it."""

from collections.abc import Iterator

import pytest
from faults_lab import Cluster


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where the cluster could not be mended after the test before, this one gets another."""
    if "cluster" not in request.fixturenames:
        yield
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    cluster.begin()
    yield
    cluster.mend()
