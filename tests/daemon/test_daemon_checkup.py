"""What a host tells of itself: read from what tools print and files hold, small, and without a secret."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from ringfence.config import Paths, digest, parse
from ringfence.core.cluster import ClusterConfig, NodeConfig
from ringfence.daemon.checkup import corosync, disks, files, leftovers, lockd, look, lvm, watchdog
from ringfence.host.probes import Probes
from ringfence.lvm2.label import Area, PvLabel, print_label
from ringfence.lvm2.text import parse_text
from ringfence.wire.checkup import DiskFacts, HostFacts, LockdFacts, VgFacts

FILE = """
[cluster]
name = "ring"
[node.n1]
id = 1
[[node.n1.level]]
devices = ["bmc1"]
[device.bmc1]
agent = "fence_any"
confirms = "host-off"
[devices]
paths = ["{disk}"]
[lab]
"""
PV = "abcdef" + "0" * 26


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "root")
    for directory in (paths.secrets, paths.var, paths.run):
        directory.mkdir(parents=True)
    disk = tmp_path / "disk.img"
    label = PvLabel(PV, 1 << 20, (Area(1 << 19, 0),), (Area(4096, 65536),))
    with disk.open("wb") as file:
        file.truncate(1 << 20)
        file.seek(512)
        file.write(print_label(label))
    paths.file.write_text(FILE.format(disk=disk))
    secret = paths.secrets / "bmc1"
    secret.write_text("password=hunter2\n")
    secret.chmod(0o600)
    (paths.root / "etc/machine-id").write_text("aaaa\n")
    (paths.run.parent / "boot_id").write_text("bbbb\n")
    return paths


def test_a_host_told_whole(paths: Paths, tmp_path: Path) -> None:
    loaded = parse(paths.file.read_text())
    facts = look.look_at_host(paths, "n1", loaded.cluster, Probes())
    assert (facts.machine, facts.boot, facts.lab, facts.unseen) == ("aaaa", "bbbb", True, ())
    assert facts.running == facts.file == digest(loaded.cluster)
    (secret,) = facts.secrets
    assert (secret.path, secret.mode) == (str(paths.secrets / "bmc1"), 0o600)
    (disk,) = facts.disks
    assert (disk.path, disk.pv, disk.size_bytes, disk.block) == (
        str(tmp_path / "disk.img"),
        PV,
        1 << 20,
        False,
    )
    assert disk.pv_bytes == disk.size_bytes
    assert disk.label
    assert disk.text
    assert facts.state is not None
    assert facts.state.free_bytes > 0
    told = msgspec.msgpack.encode(facts)
    assert len(told) < 4096
    assert b"hunter2" not in told


def test_a_secret_with_a_wrong_mode_does_not_hide_the_file(paths: Paths) -> None:
    """The daemon refuses such a configuration; doctor must still see all the rest."""
    (paths.secrets / "bmc1").chmod(0o644)
    facts = look.look_at_host(paths, "n1", None, Probes())
    assert (facts.file_trouble, facts.secrets[0].mode, len(facts.disks)) == ("", 0o644, 1)


def test_a_file_that_cannot_be_used_is_said(paths: Paths) -> None:
    paths.file.write_text("[cluster]\nnom = 3\n")
    facts = look.look_at_host(paths, "n1", None, Probes())
    assert "unknown key 'nom'" in facts.file_trouble
    assert facts.file == ""
    paths.file.unlink()
    assert look.look_at_host(paths, "n1", None, Probes()).file_trouble == f"there is no {paths.file}"


def test_nothing_at_all_is_told_too(tmp_path: Path) -> None:
    facts = look.look_at_host(Paths(tmp_path / "nowhere"), "n1", None, Probes())
    assert facts.state is not None
    assert facts.state.kind == ""
    assert facts.secrets == ()


def test_a_disk_whose_label_is_damaged(paths: Paths, tmp_path: Path) -> None:
    with (tmp_path / "disk.img").open("r+b") as file:
        file.seek(560)
        file.write(b"\xff")
    (disk,) = look.look_at_host(paths, "n1", None, Probes()).disks
    assert "wrong checksum" in disk.trouble


def test_a_disk_that_this_user_may_not_read_is_not_called_broken(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    facts = look.look_at_host(paths, "n1", None, Probes())
    assert (facts.disks[0].trouble, facts.disks[0].pv) == ("", "")
    assert facts.unseen == (f"disk {tmp_path / 'disk.img'}: this user may not read it",)


def test_a_daemon_looks_off_its_loop_and_does_not_wait_for_it_at_its_end(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = parse(paths.file.read_text()).cluster
    turns = 0

    async def looked() -> HostFacts:
        nonlocal turns
        looking = asyncio.ensure_future(look.HostLook(paths, "n1").look(cluster))
        while not looking.done():
            turns += 1
            await asyncio.sleep(0)
        return looking.result()

    assert asyncio.run(looked()).machine == "aaaa"
    assert turns > 1

    over = threading.Event()

    def hangs(*words: object) -> HostFacts:
        over.wait(60)
        return HostFacts()

    async def ended() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(look.HostLook(paths, "n1").look(cluster), 0.1)

    monkeypatch.setattr(look, "look_at_host", hangs)
    began = time.monotonic()
    asyncio.run(ended())
    assert time.monotonic() - began < 30
    over.set()


def test_a_disk_that_hangs_is_a_trouble_of_its_own(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hangs(disk: DiskFacts, *, read: bool) -> DiskFacts:
        over.wait(60)
        return disk

    monkeypatch.setattr(look, "disk_facts", hangs)
    monkeypatch.setattr(look, "LIMIT_S", 2)
    began = time.monotonic()
    facts = look.look_at_host(paths, "n1", None, Probes())
    assert time.monotonic() - began < 30
    over.set()
    assert facts.disks[0].trouble == "no answer within 2 s"
    assert facts.machine == "aaaa"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("naa.600A0980383046\n", "600a0980383046"),
        ("mpath-3600a0980383046", "600a0980383046"),
        ("eui.0025385b71b0", "0025385b71b0"),
        ("t10.ATA     Some disk", ""),
        ("nvme.1234-abcd", ""),
        ("LVM-abc", ""),
        ("", ""),
    ],
)
def test_a_disk_and_its_multipath_device_have_one_name(text: str, number: str) -> None:
    assert disks.bare_wwid(text) == number


MOUNTS = """\
32 30 0:6 / /run/a rw - ext4 /dev/vdb rw
33 30 0:7 / /run/a rw - xfs /dev/vdc rw
30 22 0:5 / /run rw shared:2 - tmpfs tmpfs rw
31 22 0:9 / /var/lib/ring\\040fence rw - nfs4 server:/x rw
22 1 254:0 / / rw - ext4 /dev/vda rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc", "ext4"),
        ("/run", "tmpfs"),
        ("/running", "ext4"),
        ("/run/a/b", "xfs"),
        ("/var/lib/ring fence", "nfs4"),
    ],
)
def test_the_file_system_below_a_path(path: str, kind: str) -> None:
    assert files.fstype(Path(path), MOUNTS) == kind


RUNTIME = """\
runtime.config.totem.token (u32) = 1000
runtime.config.totem.token_retransmit (u32) = 238
runtime.members.1.config_version (u64) = 0
runtime.members.1.status (str) = joined
runtime.members.2.status (str) = left
runtime.members.13.status (str) = joined
"""


def test_what_corosyncs_tools_print() -> None:
    quorum = "Quorum information\n------------------\nNodes:            2\nQuorate:          Yes\n"
    assert corosync.read_runtime(RUNTIME, quorum) == ((1, 13), True, 1000, "")
    assert corosync.read_runtime("", "") == (None, None, None, "")
    assert corosync.read_runtime(RUNTIME, "Quorate:          No\n")[1] is False


def test_keys_are_told_apart_and_not_told(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    directory = tmp_path / "etc/corosync"
    directory.mkdir(parents=True)
    cluster = ClusterConfig("ring", ring="corosync", nodes=(NodeConfig(1, "n1", addresses=("10.0.0.1",)),))
    found = []
    for key in (b"k" * 256, b"k" * 256, b"j" * 256):
        (directory / "authkey").write_bytes(key)
        found.append(corosync.corosync_facts(paths, cluster))
    assert found[0].key == found[1].key != found[2].key
    assert len(found[0].key) == 16
    assert found[0].differences == (f"there is no {directory / 'corosync.conf'}",)


def test_what_lvmconfig_prints() -> None:
    text = (
        b'devices {\n\tfilter=["a|/dev/sd|","r|.*|"]\n\tuse_devicesfile=1\n\tdir="/dev"\n}\n'
        b"global {\n\tuse_lvmlockd=0\n}\nactivation {\n}\n"
    )
    assert lvm.read_settings(parse_text(text, "lvmconfig")) == {
        "devices/filter": "a|/dev/sd|\nr|.*|",
        "devices/use_devicesfile": "1",
        "global/use_lvmlockd": "0",
    }


def test_lvm2_of_this_machine_is_understood() -> None:
    facts = lvm.lvm_facts(Paths())
    assert facts.trouble == ""
    assert facts.settings["global/use_lvmlockd"] in ("0", "1")
    assert facts.version.startswith("2.")


def test_a_devices_file() -> None:
    text = f"VERSION=1.1.2\nIDTYPE=sys_wwid IDNAME=naa.6 DEVNAME=/dev/sda PVID={PV}\nIDTYPE=none PVID=.\n"
    assert lvm.read_devices(text) == (PV,)


UUID = "HlKQrc-vdrd-qx5M-F8OH-Jlr3-2Tdb-3yWyKW"
HEAD = """\
vg-0.a {
id = "HlKQrc-vdrd-qx5M-F8OH-Jlr3-2Tdb-3yWyKW"
seqno = 3
format = "lvm2"
status = ["RESIZEABLE", "READ"]
flags = ["WRITE_LOCKED", "NOAUTOACTIVATE"]
tags = ["lock_type = sanlock"]
lock_type = "dlm"
lock_args = "1.0.0:ring"
extent_size = 8192

physical_volumes {

pv0 {
lock_type = "sanlock"
"""


def test_what_the_head_of_a_vgs_text_says() -> None:
    """Only what stands before its PVs, however much of the text was read."""
    shared = VgFacts("vg-0.a", "dlm", "1.0.0:ring", autoactivated=False, uuid=UUID)
    assert disks.read_head(HEAD.encode()) == shared
    assert disks.read_head(HEAD.encode()[: HEAD.index("extent_size")]) == shared
    local = HEAD.replace('lock_type = "dlm"', 'lock_type = "none"').replace(', "NOAUTOACTIVATE"', "")
    assert disks.read_head(local.encode()) == VgFacts("vg-0.a", "", "1.0.0:ring", uuid=UUID)
    assert disks.read_head(b"\0" * 512) is None


def test_who_is_lvmlockd(paths: Paths) -> None:
    place = paths.root / "run/lvm/lvmlockd.socket"
    place.parent.mkdir()
    assert lockd.lockd_facts(paths) == LockdFacts()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        assert lockd.lockd_facts(paths) == LockdFacts(), "a socket that is left over"
        server.listen()
        (paths.root / "run/lvmlockd.pid").touch()
        found = lockd.lockd_facts(paths)
        assert (found.ours, found.pid_file) == (False, True)
        assert found.holder.endswith(f" (pid {os.getpid()})")
        paths.lock.write_text(f"{os.getpid()}\n")
        assert lockd.lockd_facts(paths) == LockdFacts(ours=True, pid_file=True)


@pytest.mark.parametrize(
    ("drop_ins", "state", "starts"),
    [
        ("", "enabled", True),
        ("/etc/systemd/system/lvmlockd.service.d/mine.conf", "enabled", True),
        ("/usr/lib/systemd/system/lvmlockd.service.d/ringfence.conf", "enabled", False),
        ("", "disabled", False),
        ("", "masked", False),
    ],
)
def test_whether_systemd_would_start_a_stock_lvmlockd(drop_ins: str, state: str, starts: bool) -> None:
    text = f"LoadState=loaded\nActiveState=inactive\nUnitFileState={state}\nDropInPaths={drop_ins}\n"
    assert lockd.starts(lockd.read_unit(text)) is starts
    assert lockd.starts(lockd.read_unit("LoadState=not-found\nActiveState=inactive\n")) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("LoadState=loaded\nWatchdogUSec=10s\n", 10_000_000),
        ("LoadState=loaded\nWatchdogUSec=1min 30s 500ms\n", 90_500_000),
        ("LoadState=loaded\nWatchdogUSec=0\n", 0),
        ("LoadState=not-found\nWatchdogUSec=0\n", None),
        ("", None),
    ],
)
def test_systemds_watch_over_the_daemon(text: str, found: int | None) -> None:
    assert watchdog.read_watchdog_us(text) == found


def test_sockets_on_which_nobody_listens(paths: Paths) -> None:
    with socket.socket(socket.AF_UNIX) as alive, socket.socket(socket.AF_UNIX) as dead:
        alive.bind(str(paths.socket))
        alive.listen()
        dead.bind(str(paths.block_socket))
        (paths.dev / "vg0").mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as volume:
            volume.bind(str(paths.dev / "vg0/vm1"))
        found = leftovers.leftovers(paths)
    assert [(one.kind, one.what) for one in found] == [
        ("socket", str(paths.block_socket)),
        ("socket", str(paths.dev / "vg0/vm1")),
    ]


def test_a_worker_whose_service_is_gone(paths: Paths) -> None:
    """Known by its command line, its service's pid and the lock that it holds open."""
    code = "import sys; print(flush=True); sys.stdin.read()"
    nobody = 2**22 + 5
    started: list[subprocess.Popen[bytes]] = []

    def worker(service: int, *holds: int) -> int:
        words = [sys.executable, "-c", code, "ringfence.block.worker", "9", str(service)]
        one = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=holds)
        started.append(one)
        assert one.stdout is not None
        one.stdout.readline()
        return one.pid

    with (paths.run / "block.lock").open("w") as lock:
        try:
            lonely = worker(nobody, lock.fileno())
            worker(nobody)  # of another root
            worker(lonely, lock.fileno())  # its service lives: a process with "block" in its command
            found = [one.what for one in leftovers.leftovers(paths) if one.kind == "worker"]
            (paths.run / "block.lock").write_text(f"{lonely}\n")
            assert leftovers.leftovers(paths) == (), "a service that lives"
        finally:
            for one in started:
                one.communicate()
    assert found == [str(lonely)]


def test_shared_memory_of_the_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "SHM", tmp_path)
    names = (
        f"qb-{2**22 + 5}-12-3",
        f"qb-corosync-{2**22 + 5}-blackbox-header",
        f"qb-{os.getpid()}-1-2",
        "other",
    )
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in leftovers._dead_memory()] == sorted(names[:2])


@pytest.mark.parametrize(
    ("name", "text"), [("dm/uuid", "mpath-3600a"), ("device/wwid", "naa.600a"), ("wwid", "x")]
)
def test_a_disks_own_name_is_where_the_kernel_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    number = os.stat("/dev/null").st_rdev
    file = tmp_path / f"{os.major(number)}:{os.minor(number)}" / name
    file.parent.mkdir(parents=True)
    file.write_text(f"{text}\n")
    monkeypatch.setattr(disks, "BLOCK_DEVICES", tmp_path)
    assert disks._wwid("/dev/null") == ("" if text == "x" else "600a")
    assert disks._wwid("/dev/zero") == ""
