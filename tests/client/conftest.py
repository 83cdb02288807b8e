"""A daemon with scripted answers, and a lockspace of a blocking client that is connected to it."""

from collections.abc import Iterator

import pytest
from client_scripted import Daemon, LockTable, daemon

import ringfence
from ringfence.client import Lockspace


@pytest.fixture
def peer() -> Iterator[Daemon]:
    with daemon(LockTable()) as one:
        yield one


@pytest.fixture
def space(peer: Daemon) -> Iterator[Lockspace]:
    with ringfence.connect(peer.path) as ring:
        yield ring.lockspace("games")
