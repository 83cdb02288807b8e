"""Hosts that run as long as they have power, and devices of the kinds that a test asks for."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_stacks import Benches

from ringfence.agents import runner
from ringfence.lab.devices.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Benches]:
    """`bench("ipmi", "apc-snmp")`: n1 and n2, each with a BMC and an outlet of both PDUs."""
    with contextlib.ExitStack() as stack:

        def made(*kinds: str, together: tuple[str, ...] = ()) -> Bench:
            return stack.enter_context(Bench(tmp_path, kinds, ("n1", "n2"), together))

        yield made


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused as unsafe is run all the same: what is believed then rests on evidence alone."""
    monkeypatch.setattr(runner, "prepared", lambda agent, given: dict(given))
    monkeypatch.setattr(runner, "plug_must_be_listed", lambda agent, given: False)
