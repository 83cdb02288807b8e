"""Which ports the simulated devices of labs get."""

import subprocess
import sys

import pytest

from ringfence.core.errors import Unavailable
from ringfence.lab.devices import ports

SEVERAL = 4


def test_two_labs_that_look_at_the_same_time_get_different_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither's devices listen yet."""
    ours = ports.free_ports(SEVERAL)
    again = iter([*ours, ours[0]])
    monkeypatch.setattr(ports.random, "randrange", lambda *range: next(again))
    monkeypatch.setattr(ports, "TRIES", SEVERAL + 1)
    with pytest.raises(Unavailable):
        ports.free_ports(1)


def test_they_are_free_again_once_who_chose_them_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    words = f"from ringfence.lab.devices.ports import free_ports; print(*free_ports({SEVERAL}))"
    ran = subprocess.run([sys.executable, "-c", words], stdout=subprocess.PIPE, text=True, check=True)
    theirs = [int(word) for word in ran.stdout.split()]
    again = iter(theirs)
    monkeypatch.setattr(ports.random, "randrange", lambda *range: next(again))
    assert ports.free_ports(SEVERAL) == theirs
