"""Hosts that run as long as they have power, and devices of the kinds that a test asks for."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_stacks import Benches

from ringfence.agents import commands, runner
from ringfence.lab.devices.bench import Bench

FENCER = Path(__file__).with_name("pacemaker_fencer.py")
ALONE = ["unshare", "--net", "--mount", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"]
"""A fencer's clients find it by a socket's name in their network namespace, and its memory in /dev/shm."""
PLACES = 'mount -t tmpfs lab /dev/shm && mount -t tmpfs lab /run && exec "$@"'


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Benches]:
    """`bench("ipmi", "apc-snmp")`: n1 and n2, each with a BMC and an outlet of both PDUs."""
    with contextlib.ExitStack() as stack:

        def made(*kinds: str, together: tuple[str, ...] = ()) -> Bench:
            return stack.enter_context(Bench(tmp_path, kinds, ("n1", "n2"), together))

        yield made


@pytest.fixture(scope="session", autouse=True)
def pacemaker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """What a real Pacemaker made of the lies (`pacemaker_fencer`), told when it is called for.

    It mostly waits: so it runs beside the other tests, if a test wants it at all."""
    if not any(item.path.stem == "test_lies_pacemaker" for item in request.session.items):
        yield lambda: ""
        return
    directory = tmp_path_factory.mktemp("pacemaker")
    words = [*ALONE, "sh", "-c", PLACES, "sh", sys.executable, str(FENCER), str(directory)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:

        def told() -> str:
            return running.communicate(timeout=100)[0]

        yield told


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused as unsafe, or replaced, is run all the same: belief then rests on evidence alone."""
    monkeypatch.delitem(commands.OWN, "fence_sbd")
    monkeypatch.setattr(runner, "prepared", lambda agent, given: dict(given))
    monkeypatch.setattr(runner, "plug_must_be_listed", lambda agent, given: False)
