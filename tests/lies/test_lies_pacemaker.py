"""What a real Pacemaker makes of the lies: the peer's column of docs/fencing.md, from a run."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ALONE = ["unshare", "--net", "--mount", "--ipc", "--pid", "--fork", "--mount-proc", "--kill-child"]
"""Its clients find a fencer by a socket's name in their network namespace, and its memory in /dev/shm."""
PLACES = 'mount -t tmpfs lab /dev/shm && mount -t tmpfs lab /run && exec "$@"'


def test_pacemaker_s_fencer_believes_an_agent_s_exit_code(tmp_path: Path) -> None:
    script = str(HERE / "pacemaker_fencer.py")
    words = [*ALONE, "sh", "-c", PLACES, "sh", sys.executable, script, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    found = {lie: (one["code"] == 0, one["off"]) for lie, one in json.loads(done.stdout).items()}
    assert found.pop("0") == (True, True), "an honest device"
    assert found.pop("7") == (True, True), "it says action= itself"
    assert found.pop("9") == (False, False), "given up, and nothing of it goes on"
    assert found == dict.fromkeys("123456", (True, False)), "believed, and n1 runs on"
