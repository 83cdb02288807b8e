"""`doctor --fix`: stock LVM2 is kept out of volumes, by a block of ours in lvmlocal.conf that it heeds."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest
from planted import host, sound, with_all

from ringfence.config import Paths
from ringfence.core.errors import RingfenceError
from ringfence.daemon.checkup.lvm import lvm_facts
from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.filters import accepts, is_inside, rejects_of
from ringfence.doctor.fix import FILE, fix, with_block
from ringfence.wire.checkup import DiskFacts

DISKS = ["/dev/mapper/mpatha", "/dev/sda"]


@pytest.mark.parametrize(
    ("device", "inside"),
    [
        ("/dev/nbd0", True), ("/run/ringfence/dev/vg0/vm1", True), ("/dev/mapper/vg0-vm1", True),
        ("/dev/mapper/a--b-vm1", True), ("/dev/a-b/vm1", True), ("/dev/mapper/mpatha", False),
        ("/dev/mapper/vg0--other-vm1", False), ("/dev/vg01/root", False), ("/dev/sda", False),
        ("/dev/mapper/v.g-x", True), ("/dev/mapper/vXg-x", False),
    ],
)  # fmt: skip
def test_what_leads_into_a_volume(device: str, inside: bool) -> None:
    assert is_inside(device, ["vg0", "a-b", "v.g"], DISKS) is inside


def test_a_disk_of_ours_is_not_rejected() -> None:
    rules = rejects_of(["vg0"], ["/dev/nbd0", "/dev/mapper/a"])
    assert accepts(rules, ("/dev/nbd0",))
    assert not accepts(rules, ("/dev/mapper/vg0-vm1",))


def test_the_rest_of_the_file_stays() -> None:
    mine = "local {\n\thost_id = 3\n}\n"
    once = with_block(mine, ["r|^/dev/nbd|"])
    assert once.startswith(mine)
    assert with_block(once + "# behind\n", ["r|^/x|"]) == once.replace("/dev/nbd", "/x") + "# behind\n"


def facts_of(paths: Paths, *disks: str) -> ClusterFacts:
    own = msgspec.structs.replace(
        host(1), lvm=lvm_facts(paths), disks=tuple(DiskFacts(disk, 1 << 30, True) for disk in disks)
    )
    return with_all(sound(), own=own)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A host that lets LVM2 look everywhere."""
    (tmp_path / "etc/lvm").mkdir(parents=True)
    (tmp_path / "etc/lvm/lvm.conf").write_text(
        'devices {\n\tscan_lvs = 1\n\tuse_devicesfile = 0\n\thints = "none"\n'
        '\tglobal_filter = [ "r|^/dev/cdrom|" ]\n\tobtain_device_list_from_udev = 0\n'
        '\texternal_device_info_source = "none"\n}\nglobal {\n\tuse_lvmlockd = 0\n\tevent_activation = 0\n}\n'
        "activation {\n\tudev_sync = 0\n\tudev_rules = 0\n}\n"
    )
    return Paths(tmp_path)


def test_stock_lvm2_heeds_it_and_once_more_changes_nothing(paths: Paths) -> None:
    (done,) = fix(paths, facts_of(paths, "/dev/sda"))
    assert done.startswith(f"wrote {paths.root / FILE}")
    settings = lvm_facts(paths).settings
    assert settings["devices/scan_lvs"] == "0"
    filters = settings["devices/global_filter"].splitlines()
    assert filters == [*rejects_of(["vg0"], ["/dev/sda"]), "r|^/dev/cdrom|"]
    text = (paths.root / FILE).read_text()
    assert fix(paths, facts_of(paths, "/dev/sda")) == ["stock LVM2 keeps out of volumes already"]
    assert (paths.root / FILE).read_text() == text


def test_where_lvm2_does_not_heed_it_that_is_said(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = facts_of(paths)
    monkeypatch.setattr("ringfence.doctor.fix.FILE", "etc/lvm/elsewhere.conf")
    with pytest.raises(RingfenceError, match="LVM2 does not heed it"):
        fix(paths, facts)


def test_a_guests_vg_is_not_seen_any_more(paths: Paths, tmp_path: Path) -> None:
    """Real LVM2 looks at a real PV, under the name of an LV of vg0 (in a namespace of its own)."""
    image = tmp_path / "guest.img"
    image.touch()
    os.truncate(image, 32 << 20)
    loop = subprocess.run(
        ["losetup", "-f", "--show", image], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        script = tmp_path / "look.sh"
        numbers = os.stat(loop).st_rdev
        node = f"b {os.major(numbers)} {os.minor(numbers)}"
        script.write_text(
            "set -e\nmount -t tmpfs none /dev\nmkdir /dev/mapper\n"
            "mknod /dev/null c 1 3\nmknod /dev/zero c 1 5\nmknod /dev/urandom c 1 9\n"
            f"mknod {loop} {node}\nmknod /dev/mapper/vg0-vm1 {node}\n"
            'exec "$@"\n'
        )
        environment = {**os.environ, "LVM_SYSTEM_DIR": str(paths.root / "etc/lvm"),
                       "LVM_SUPPRESS_FD_WARNINGS": "1", "LC_ALL": "C"}  # fmt: skip

        def stock(*words: str) -> str:
            ran = subprocess.run(
                ["unshare", "--mount", "sh", script, *words], capture_output=True, text=True,
                env=environment, timeout=60, check=False,
            )  # fmt: skip
            assert ran.returncode == 0, ran
            return ran.stdout

        only = f'devices{{filter=["a|^{loop}$|","a|^/dev/mapper/vg0-vm1$|","r|.*|"]}}'
        off = f'global{{activation=0 locking_dir="{tmp_path}"}} backup{{backup=0 archive=0}}'
        config = ("--config", f"{only} {off}")
        stock("vgcreate", *config, "guest", loop)
        assert "guest" in stock("vgs", *config, "--noheadings", "-o", "vg_name")
        fix(paths, facts_of(paths))
        assert stock("vgs", *config, "--noheadings", "-o", "vg_name").split() == []
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
