"""What `make install-files` puts where, judged by systemd's own tools in a root of its own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEMD_UNITS = Path("/usr/lib/systemd/system")
UNITS = sorted(one.name for one in (ROOT / "packaging/systemd").iterdir())
LVM2_UNITS = ("lvmlockd.service", "lvmlocks.service")
"""LVM2's own, one of them with a drop-in of ours."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With systemd's and LVM2's own units, which ours name, and commands that do nothing in their places."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(SYSTEMD_UNITS, root / "usr/lib/systemd/system", symlinks=True)
    venv = [f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.runtime"]
    make = ["make", "install-files", f"DESTDIR={root}", *venv]
    subprocess.run(make, cwd=ROOT, capture_output=True, check=True)
    for name in ("usr/bin/ringfence", "sbin/lvm", "sbin/lvmlockctl"):
        command = root / name
        command.parent.mkdir(exist_ok=True)
        command.write_text("#!/bin/sh\n")
        command.chmod(0o755)
    (root / "etc").mkdir(exist_ok=True)
    return root


def verified(root: Path) -> str:
    words = ["systemd-analyze", "verify", f"--root={root}", "--man=no", *UNITS, *LVM2_UNITS]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or done.stderr
    return done.stderr


def test_systemd_has_nothing_to_say_about_the_units(root: Path) -> None:
    assert verified(root) == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("[Service]\nRestartKilSignal=SIGHUP\n", "Unknown key"),
        ("[Service]\nExecStop=/usr/bin/ringfense leave\n", "ringfense is not executable"),
    ],
)
def test_what_is_wrong_with_a_unit_is_found(root: Path, wrong: str, said: str) -> None:
    drop_in = root / "usr/lib/systemd/system/ringfence.service.d/wrong.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(wrong)
    try:
        assert said in verified(root)
    finally:
        shutil.rmtree(drop_in.parent)


def test_the_pages_that_units_name_are_installed(root: Path) -> None:
    for unit in UNITS:
        text = (root / "usr/lib/systemd/system" / unit).read_text()
        pages = re.findall(r"man:([\w.]+)\((\d)\)", text)
        assert pages
        for name, section in pages:
            assert (root / f"usr/share/man/man{section}/{name}.{section}").exists()


def test_the_group_and_the_directories_are_made(root: Path) -> None:
    subprocess.run(["systemd-sysusers", f"--root={root}"], check=True, capture_output=True)
    assert "ringfence:" in (root / "etc/group").read_text()
    subprocess.run(["systemd-tmpfiles", f"--root={root}", "--create", "ringfence.conf"], check=True)
    modes = {one: (root / one).stat().st_mode & 0o777 for one in ("run/ringfence", "etc/ringfence/secrets")}
    assert modes == {"run/ringfence": 0o755, "etc/ringfence/secrets": 0o700}


def test_nothing_starts_before_it_is_configured(root: Path) -> None:
    preset = (root / "usr/lib/systemd/system-preset/90-ringfence.preset").read_text()
    for unit in UNITS:
        assert f"disable {unit}\n" in preset
        text = (root / "usr/lib/systemd/system" / unit).read_text()
        assert "ConditionPathExists=/etc/ringfence/ringfence.toml\n" in text


def test_the_packaging_page_names_every_file(root: Path) -> None:
    page = (ROOT / "docs/PACKAGING.md").read_text()
    before = {one.relative_to(SYSTEMD_UNITS) for one in SYSTEMD_UNITS.rglob("*")}
    for one in root.joinpath("usr/lib").rglob("*"):
        ours = one.is_file() and not (
            one.is_relative_to(root / "usr/lib/systemd/system")
            and one.relative_to(root / "usr/lib/systemd/system") in before
        )
        if ours:
            assert f"`{one.name}`" in page or one.name in UNITS, one
    for unit in UNITS:
        assert f"`{unit}`" in page


def test_pacemaker_finds_our_agent_where_it_looks_for_agents(root: Path) -> None:
    link = root / "usr/sbin/fence_ringfence"
    assert (link.parent / link.readlink()).resolve() == (root / "usr/bin/fence_ringfence").resolve()
