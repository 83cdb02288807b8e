"""`ringfence slots add` of a VG that is frozen says what it waits for."""

from typing import Any

import pytest
from cli_daemon import CannedDaemon
from cli_run import Run
from click.testing import CliRunner

from ringfence.cli import slots
from ringfence.core.errors import TimedOut
from ringfence.wire import client as calls


class Daemon:
    """Answers a call the second time it is asked under the same id, if it is slow."""

    def __init__(self, slow: bool) -> None:
        self.slow = slow
        self.ids: list[str] = []

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *given: object) -> None:
        pass

    def call(self, call: Any, *, timeout_ms: int | None = None, id: str = "") -> Any:
        assert call == calls.SlotsAdd("vg0")
        self.ids.append(id)
        if self.slow and timeout_ms is not None:
            raise TimedOut("no answer")
        return {"message": "created", "vg": "vg0"}

    def why(self, target: str) -> dict[str, Any]:
        assert target == "vg0"
        return {"lines": ["lockspace lvm_vg0 is frozen until an-a01n02 is fenced"]}


@pytest.mark.parametrize("slow", [False, True])
def test_it_says_what_it_waits_for_and_asks_once(slow: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Daemon(slow)
    monkeypatch.setattr(slots, "open_daemon", lambda *given: daemon)
    told = CliRunner().invoke(slots.slots, ["add", "vg0"])
    assert told.exit_code == 0
    assert told.stdout == "  created\n"
    assert ("waiting: lockspace lvm_vg0 is frozen until an-a01n02 is fenced" in told.stderr) is slow
    assert daemon.ids == [daemon.ids[0]] * (2 if slow else 1), "another id would do it twice"


def test_forget_asks_somebody_or_nobody(daemon: CannedDaemon, run: Run) -> None:
    """An end of what is read is no answer, and no Ctrl-C either."""
    ran = run("slots", "forget", "vg0")
    assert (ran.code, ran.err.count("\n")) == (5, 1)
    assert "no terminal; ringfence slots forget vg0 --yes" in ran.err
    assert not daemon.calls
