"""What --help, docs/commands.md and the man page show for each of LVM2's verbs can be pasted."""

import shlex
from pathlib import Path

import pytest
from cli_daemon import CannedDaemon
from cli_run import Run

from ringfence.cli.verbs import ROOMS, verb
from ringfence.core.errors import Refused
from ringfence.lvm2.backup import to_file
from ringfence.wire.client import Call

LOCAL = "vgcfgrestore --list vg0"
"""Asks nobody: the files are this host's."""
EXAMPLES = [(name, example) for name in ROOMS for example, _ in verb(name).examples]


def test_every_verb_has_examples_of_its_own() -> None:
    assert {name for name, _ in EXAMPLES} == set(ROOMS)
    assert all(example.split()[0] == name for name, example in EXAMPLES)


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_an_example_reaches_the_daemon(
    daemon: CannedDaemon, run: Run, tmp_path: Path, name: str, example: str
) -> None:
    def refuse(call: Call) -> None:
        raise Refused("not today", next="tomorrow")

    daemon.answer = refuse
    backup = tmp_path / "vg0.vg"
    backup.write_bytes(to_file(b"vg0 {\n}\n", "ringfence lvcreate vg0/vm1", "n1", 1_700_000_000))
    words = [str(backup) if word == "FILE" else word for word in shlex.split(example)]
    ran = run(*words)
    if example == LOCAL:
        assert (ran.code, ran.err, daemon.calls) == (0, "", [])
        return
    assert "not today" in ran.err
    assert ran.code == 5
    assert daemon.calls
