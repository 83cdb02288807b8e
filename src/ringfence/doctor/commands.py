"""`ringfence doctor`: the command, and how findings are printed."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from ringfence.client.place import SOCKET_VARIABLE, socket_path
from ringfence.config import Paths
from ringfence.doctor.checks import CHECKS, judge
from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, Severity
from ringfence.doctor.fix import fix
from ringfence.doctor.gather import gather

EXIT_WARNINGS = 1
EXIT_ERRORS = 2
VERSION = 1


@click.command(
    epilog="Exit code: 0 nothing wrong (notes at most), 1 warnings, 2 errors.  What each finding's id means: "
    "docs/DOCTOR.md."
)
@click.option("--quiet", "-q", is_flag=True, help="Errors and warnings only; nothing where there are none.")
@click.option("--all", "-a", "everything", is_flag=True, help="Also which checks found nothing wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--fix", "mend", is_flag=True, help="Keep this host's LVM2 out of volumes: lvmlocal.conf.")
@click.option(
    "--root", type=click.Path(path_type=Path),
    help=f"All places below this directory.  [default: that of ${SOCKET_VARIABLE}, or /]",
)  # fmt: skip
def doctor(quiet: bool, everything: bool, as_json: bool, mend: bool, root: Path | None) -> int:
    """What is wrong with this host and its cluster, why it matters, and the command that mends it.

    Compares all hosts through the ring, and asks every fence device for its status from this one.
    Works, in part, without a daemon and without being root, and says what it could not see.  Changes
    nothing (but with --fix), and takes some seconds."""
    paths = Paths.meant(root, os.environ.get(SOCKET_VARIABLE, ""))
    where = os.fspath(paths.socket) if root is not None else socket_path(None, os.environ)
    facts = gather(paths, where, _progress if sys.stderr.isatty() and not as_json else lambda line: None)
    if mend:
        for line in fix(paths, facts):
            click.echo(line, err=True)
        facts = gather(paths, where)
    findings = judge(facts)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(as_object(facts, findings)), indent=2).decode())
    else:
        for line in lines(facts, findings, quiet=quiet, everything=everything):
            click.echo(line)
    return exit_code(findings)


def exit_code(findings: Sequence[Finding]) -> int:
    severities = [one.severity for one in findings]
    if Severity.ERROR in severities:
        return EXIT_ERRORS
    return EXIT_WARNINGS if Severity.WARNING in severities else 0


def as_object(facts: ClusterFacts, findings: Sequence[Finding]) -> dict[str, Any]:
    """For --json: findings, what could not be seen, who was compared, the exit code."""
    return {
        "version": VERSION,
        "node": facts.me,
        "findings": [msgspec.to_builtins(one) for one in findings],
        "unseen": list(facts.unseen),
        "hosts": [one.node for one in facts.hosts],
        "exit": exit_code(findings),
    }


def lines(facts: ClusterFacts, findings: Sequence[Finding], *, quiet: bool, everything: bool) -> list[str]:
    shown = [one for one in findings if not quiet or one.severity is not Severity.NOTE]
    found = [line for one in shown for line in _told(one)]
    if quiet:
        return found
    if everything:
        found += [f"ok       {name}" for name in _sound(facts, findings)]
    found += [f"not seen {line}" for line in facts.unseen]
    counts = [(kind.value, sum(one.severity is kind for one in findings)) for kind in Severity]
    told = ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for name, count in counts)
    hosts = ", ".join(one.node for one in facts.hosts)
    return [*found, f"{facts.me}: looked at {hosts}: {told}"]


def _told(one: Finding) -> list[str]:
    where = f"on {one.host}: " if one.host else ""
    return [
        f"{one.severity.value:<8} {one.what}  [{one.id}]",
        f"         why:  {one.why}",
        f"         mend: {where}{one.mend}",
    ]


def _sound(facts: ClusterFacts, findings: Sequence[Finding]) -> list[str]:
    """Checks that found nothing."""
    wrong = {one.id for one in findings}
    return [name for name, check in CHECKS.items() if not wrong & {one.id for one in check(facts)}]


def _progress(line: str) -> None:
    click.echo(f"{line} …", err=True)
