"""The bench, and how its devices are configured."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from power_bench import Bench

from ringfence.agents import runner


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """n1 lives from outlets 5 and 6, n2 from 7 and 8."""
    with Bench(tmp_path, {"n1": (5, 6), "n2": (7, 8)}) as made:
        yield made


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters that are refused as unsafe are handed on: what is believed then rests on evidence alone."""
    monkeypatch.setattr(runner, "prepared", lambda agent, given: dict(given), raising=False)
