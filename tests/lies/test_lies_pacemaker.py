"""What a real Pacemaker makes of the lies: the peer's column of docs/fencing.md, from a run."""

import json
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.long


def test_pacemaker_s_fencer_believes_an_agent_s_exit_code(pacemaker: Callable[[], str]) -> None:
    told = pacemaker()
    assert told.startswith("{"), told
    found = {lie: (one["code"] == 0, one["off"]) for lie, one in json.loads(told).items()}
    assert found.pop("0") == (True, True), "an honest device"
    assert found.pop("7") == (True, True), "it says action= itself"
    assert found.pop("9") == (False, False), "given up, and nothing of it goes on"
    assert found == dict.fromkeys("123456", (True, False)), "believed, and n1 runs on"
