import signal
from collections.abc import Iterator

import pytest
from cli_daemon import CannedDaemon, canned_daemon
from cli_run import Ran, Run

from ringfence.cli import main


@pytest.fixture(autouse=True, scope="session")
def hears_ctrl_c() -> None:
    """A shell's background job has SIGINT ignored, and so has all that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[CannedDaemon]:
    with canned_daemon() as one:
        monkeypatch.setenv("RINGFENCE_SOCKET", str(one.path))
        yield one


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def run(*words: str) -> Ran:
        code = main(words)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run
