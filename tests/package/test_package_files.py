"""What is not Python: make, locks, units, pages, completion, documents."""

import configparser
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ringfence.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]


def pinned(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    return dict(re.fullmatch(r"([\w.-]+)==([\w.]+).*", line).groups() for line in lines if "==" in line)  # type: ignore[union-attr]


def wanted(*groups: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    requirements = list(project["project"]["dependencies"])
    for group in groups:
        requirements += project["dependency-groups"][group]
    return [re.match(r"[\w-]+", one)[0] for one in requirements]  # type: ignore[index]


@pytest.mark.parametrize(
    ("file", "groups"), [("requirements.lock", ["build"]), ("requirements-dev.lock", ["build", "dev"])]
)
def test_every_dependency_is_pinned_with_hashes(file: str, groups: list[str]) -> None:
    pins = pinned(file)
    assert set(wanted(*groups)) <= set(pins)
    blocks = re.split(r"\n(?=[a-z])", (ROOT / file).read_text())
    assert all("--hash=sha256:" in block for block in blocks if "==" in block.splitlines()[0])


def test_both_locks_pin_the_same_versions() -> None:
    runtime, dev = pinned("requirements.lock"), pinned("requirements-dev.lock")
    assert runtime.items() <= dev.items()


def test_the_daemon_needs_few_packages() -> None:
    assert len(wanted()) <= 5


def test_make_help_names_what_can_be_made() -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("demo", "test", "check", "help"):
        assert f"make {target}" in said


def test_ci_runs_make_test() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_packages_have_a_name_and_a_reason() -> None:
    lines = [line for line in (ROOT / "packages.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9.+-]+ +# .+", line), line


@pytest.mark.parametrize(
    "unit", sorted((ROOT / "packaging/systemd").glob("*.service")), ids=lambda unit: unit.name
)
def test_units_call_commands_that_there_are(unit: Path) -> None:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read(unit)
    if "ExecStart" not in parsed["Service"]:  # it only has something to do when it is stopped
        assert parsed["Service"]["ExecStop"].startswith("-/sbin/lvm ")
        return
    binary, command, *options = parsed["Service"]["ExecStart"].split()
    assert (binary, command in COMMANDS) == ("/usr/bin/ringfence", True)
    shown = subprocess.run(
        [sys.executable, "-m", "ringfence", command, "--help"], capture_output=True, text=True, check=True
    ).stdout
    for option in options:
        if option.startswith("--"):
            assert option in shown


@pytest.mark.parametrize(
    ("lvmlockd", "becomes"),
    [(None, "stock"), ("serve = false", "stock"), ("", "stand-in"), ("serve = maybe", "stand-in")],
)
def test_lvmlockds_unit_starts_lvm2s_own_only_where_ringfence_does_not_serve(
    tmp_path: Path, lvmlockd: str | None, becomes: str
) -> None:
    """A file that cannot be read may be that of a daemon which serves."""
    config = tmp_path / "etc/ringfence/ringfence.toml"
    if lvmlockd is not None:
        config.parent.mkdir(parents=True)
        node = '[node.n1]\nid = 1\nfence = "manual"\n'
        config.write_text(f'[cluster]\nname = "x"\n[lvmlockd]\n{lvmlockd}\n{node}')
    script = (ROOT / "packaging/lvm2/lvmlockd").read_text()
    for there, here in (
        ("/etc/ringfence/ringfence.toml", str(config)),
        ("/usr/bin/ringfence config check", f"{sys.executable} -m ringfence config check --root {tmp_path}"),
        ("exec /sbin/lvmlockd --foreground", "echo stock"),
        ("sleep 86400 &", "echo stand-in; exit"),
    ):
        assert there in script
        script = script.replace(there, here)
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{becomes}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_what_click_makes(shell: str) -> None:
    made = subprocess.run(
        [sys.executable, "-c", "from ringfence.cli import main; main()"],
        env={**os.environ, "_RINGFENCE_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    file = ROOT / f"packaging/ringfence.{shell}"
    lines = file.read_text().splitlines()
    assert "\n".join(line for line in lines if "made by:" not in line).strip() == made.strip()
    assert lines[0].startswith({"bash": "#", "zsh": "#compdef ringfence"}[shell])
    if shell == "bash":
        subprocess.run(["bash", "-n", file], check=True)


def test_the_document_of_the_verbs_is_made_from_their_table() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "packaging/verbs.py"], capture_output=True, text=True, check=True
    ).stdout
    kept = ROOT / "docs/commands.md"
    if os.environ.get("REWRITE"):
        kept.write_text(made)
    assert kept.read_text() == made, "REWRITE=1 writes it anew"


def test_the_man_page_has_every_command() -> None:
    page = subprocess.run(
        [sys.executable, ROOT / "packaging/man/page.py"], capture_output=True, text=True, check=True
    ).stdout
    for name in COMMANDS:
        assert f".SS ringfence {name.replace('-', chr(92) + '-')}\n" in page
    assert page.startswith(".TH RINGFENCE 1")
    assert ".B \\-\\-version\n" in page.partition(".SH COMMANDS")[0]
    assert "\n.nf\nExamples:\n  ringfence init \\-\\-name alteeve n1=10.0.0.1 n2=10.0.0.2\n" in page


def test_documents_name_only_files_that_there_are() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / link).exists(), (document, link)


def test_readme_shows_only_commands_that_there_are() -> None:
    for name in re.findall(r"^    ringfence (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert name in COMMANDS


def test_the_command_s_script_loads_nothing_that_a_verb_does_not_need() -> None:
    """What pip writes for an entry point loads `re`, which takes as long as a verb."""
    script = ROOT / "packaging/bin/ringfence"
    assert script.read_text().startswith("#!python\n"), "what installers put their Python for"
    verb = ["lvcreate", "-l", "1", "vg", "--socket", "/nosuch"]
    line = [sys.executable, "-S", "-X", "importtime", script, *verb]
    ran = subprocess.run(
        line, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT / "src")}
    )
    assert ran.returncode == 5
    loaded = {one.rpartition("|")[2].strip() for one in ran.stderr.splitlines()}
    assert "ringfence.cli.verbs.lv" in loaded
    assert not loaded & {"re", "enum", "typing", "json", "socket"}
