"""Virtual machines, by the real fence_virsh: what it calls off, and what we make of it.

ssh is a stand-in that answers as virsh on the far host would; of `destroy` the machine is shut off."""

import asyncio
from pathlib import Path

import pytest

from ringfence.agents.runner import AgentRunner
from ringfence.core.cluster import Confirms, DeviceConfig
from ringfence.core.evidence import Power
from ringfence.engine.effects import RunAgent
from ringfence.engine.inputs import AgentExited

SSH = r"""#!/bin/sh
printf '[EXPECT]# '
while read -r line; do
    case $line in
        *domstate*) printf '%s\r\n%s\r\n\r\n' "$line" "$(cat {state})";;
        *destroy*) echo destroyed >>{state}.log; echo 'shut off' >{state};;
        *exit*|*quit*) exit;;
    esac
    printf '[EXPECT]# '
done
"""


def virsh(tmp_path: Path, state: str, action: str) -> AgentExited:
    file, ssh, key = tmp_path / "state", tmp_path / "ssh", tmp_path / "key"
    file.write_text(state)
    ssh.write_text(SSH.replace("{state}", str(file)))
    ssh.chmod(0o755)
    key.touch()
    given = {"ip": "h", "username": "root", "identity_file": str(key), "ssh_path": str(ssh), "plug": "n1"}
    device = DeviceConfig("d", "fence_virsh", Confirms.HOST_OFF, given)
    runner = AgentRunner(lambda name: device, lambda name: {})
    return asyncio.run(runner.run(RunAgent(1, "d", action, 20_000, "n1")))


@pytest.mark.parametrize("state", ["running", "paused", "idle"])
def test_an_off_that_was_sent_is_believed(tmp_path: Path, state: str) -> None:
    exited = virsh(tmp_path, state, "off")
    assert exited.power is Power.OFF, exited.words
    assert (tmp_path / "state.log").read_text() == "destroyed\n"


@pytest.mark.parametrize("state", ["in shutdown", "pmsuspended", "crashed", ""])
def test_what_goes_on_is_not_off(tmp_path: Path, state: str) -> None:
    """fence_virsh itself says "Success: Already OFF" and exits with 0, and its status agrees."""
    exited = virsh(tmp_path, state, "off")
    assert not (tmp_path / "state.log").exists(), "nothing was sent"
    assert exited.power is Power.UNKNOWN
    assert exited.words.startswith("no off was sent (Success: Already OFF)")
    assert virsh(tmp_path, state, "status").power is Power.OFF, "a second look would not have told"


def test_nor_is_one_that_was_off_before(tmp_path: Path) -> None:
    """It cannot be told from one that is suspended: a person, its next boot or another device can."""
    assert virsh(tmp_path, "shut off", "off").power is Power.UNKNOWN
