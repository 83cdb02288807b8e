"""Labs that several files share: a minute of starting and stopping less."""

from collections.abc import Iterator

import pytest
from stock_rig import stock_lab

from ringfence.lab.cluster import Lab
from ringfence.lab.layout import Ring


@pytest.fixture(scope="session")
def pair() -> Iterator[Lab]:
    """Two hosts on the hub."""
    with stock_lab(2) as lab:
        yield lab


@pytest.fixture(scope="module")
def trio(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three hosts on the ring that the test names."""
    with stock_lab(3, Ring(request.param)) as lab:
        yield lab
