"""fence_ringfence as others call it: its description, its words on stdin and as arguments, its exit codes."""

import subprocess
import sys

import pytest

SCHEMA = "/usr/share/cluster/relaxng/metadata.rng"
"""Of Debian's fence-agents."""


def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ringfence.cli.fence_ringfence", *arguments],
        input=stdin, text=True, capture_output=True, timeout=30, check=False,
    )  # fmt: skip


def test_its_metadata_is_what_the_agents_schema_wants() -> None:
    told = call(stdin="action=metadata\n")
    assert (told.returncode, told.stdout) == (0, call("-o", "metadata").stdout)
    checked = subprocess.run(
        ["xmllint", "--noout", "--relaxng", SCHEMA, "-"],
        input=told.stdout, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        ((), ""),  # no action: never a default one
        ((), "option=off\nplug=n2\n"),
        ((), "action=on\nplug=n2\nsocket=/nonexistent\n"),
        ((), "action=off\nplug=n2\nsocket=/nonexistent\n"),
        ((), "action=status\nplug=n2\nsocket=/nonexistent\n"),
        ((), "action=status\nplug=n2\ntimeout=soon\n"),
        (("-o", "status"), ""),
        (("-o", "status", "-n"), ""),
        (("-o", "status", "--plug", "n2", "--bogus"), ""),
        (("-o", "status", "-n", "n2", "--socket", "/nonexistent"), ""),
    ],
)
def test_whatever_is_wrong_is_one_line_and_never_reads_as_off(arguments: tuple[str, ...], stdin: str) -> None:
    done = call(*arguments, stdin=stdin)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
