"""Each test of a module finds the module's cluster whole; what a fault leaves behind is mended after it."""

from collections.abc import Iterator

import pytest
from faults_lab import Cluster


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "cluster" in request.fixturenames:
        cluster: Cluster = request.getfixturevalue("cluster")
        cluster.mend()
