"""The lock daemons that stock LVM2 is set on: each on one disk, with one or two hosts that use it.

A server is a context manager that gives the hosts, locking started.  All of it lives in a mount namespace
whose /run is empty but for what LVM2's commands look for (`private_run`)."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lvm_disks import Host, disk_bytes, loop, write_vg

GRANTS, REAL, OURS, OURS_TWO = "grant everything", "lvmlockd -T", "ringfence", "ringfence, 2 hosts"
VG = "vg0"
START_S = 30.0
_INSIDE = "RINGFENCE_BENCH_NAMESPACE"


class Missing(Exception):
    """This server cannot be had here; why."""


def private_run() -> None:
    """Start this program once more, in a mount namespace of its own, where /run is empty.

    LVM2's commands want a /run/lvmlockd.pid and do not read it."""
    if _INSIDE not in os.environ:
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvpe(words[0], words, {**os.environ, _INSIDE: "1"})
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    for place in ("/run/lvm", "/run/lock"):
        Path(place).mkdir()
    Path("/run/lvmlockd.pid").touch()


@contextlib.contextmanager
def grant_everything(directory: Path, lvs: int, hosts: int = 1) -> Iterator[list[Host]]:
    words = [sys.executable, "-I", "-S", str(Path(__file__).with_name("grant_everything.py"))]
    with _disk(directory, "test", lvs) as device, _daemon(words, directory, "socket") as socket:
        yield _hosts(directory, device, [socket] * hosts)


@contextlib.contextmanager
def real(directory: Path, lvs: int, hosts: int = 1) -> Iterator[list[Host]]:
    """Debian's lvmlockd without a DLM below it.  Several hosts of it are one to it: it tells nobody's locks
    from another's by where they come from."""
    words = ["lvmlockd", "-T", "-f", "-g", "dlm", "-p", str(directory / "pid"), "-s"]
    with _disk(directory, "test", lvs) as device, _daemon(words, directory, "socket") as socket:
        yield _hosts(directory, device, [socket] * hosts)


@contextlib.contextmanager
def ringfence(directory: Path, lvs: int, hosts: int = 1) -> Iterator[list[Host]]:
    """A lab on the hub ring."""
    from ringfence.lab.cluster import Lab

    lab = Lab.up(directory / "lab", hosts, disk_bytes(lvs))
    try:
        sockets = [lab.env(node)["LVM_LVMLOCKD_SOCKET"] for node in lab.nodes]
        write_vg(lab.disk, VG, "lab", lvs)
        with loop(lab.disk) as device:
            yield _hosts(directory, device, sockets)
    finally:
        lab.down()


@contextlib.contextmanager
def ringfence_two(directory: Path, lvs: int, hosts: int = 2) -> Iterator[list[Host]]:
    with ringfence(directory, lvs, 2) as found:
        yield found


SERVERS: dict[str, Callable[..., contextlib.AbstractContextManager[list[Host]]]] = {
    GRANTS: grant_everything,
    REAL: real,
    OURS: ringfence,
    OURS_TWO: ringfence_two,
}


@contextlib.contextmanager
def running(
    servers: list[str], lvs: int, hosts: int, say: Callable[[str], None]
) -> Iterator[dict[str, list[Host]]]:
    """Several servers at once, each on a disk of its own; those that cannot be had are left out."""
    found = {}
    with contextlib.ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix=f"rfbl{os.getpid()}-", dir="/tmp"))
        )
        for number, server in enumerate(servers):
            place = directory / str(number)
            place.mkdir()
            try:
                found[server] = stack.enter_context(SERVERS[server](place, lvs, hosts))
            except Missing as error:
                say(f"{server} is left out: {error}")
        yield found


@contextlib.contextmanager
def _disk(directory: Path, cluster: str, lvs: int) -> Iterator[str]:
    image = directory / "disk.img"
    with image.open("xb") as file:
        file.truncate(disk_bytes(lvs))
    write_vg(image, VG, cluster, lvs)
    with loop(image) as device:
        yield device


@contextlib.contextmanager
def _daemon(words: list[str], directory: Path, name: str) -> Iterator[str]:
    """One that is given its socket's path as the last word; it ends with this process, however that ends.

    The variable of that path must not be there: lvmlockd would free what it got from getenv, and abort."""
    socket = directory / name
    env = {key: value for key, value in os.environ.items() if key != "LVM_LVMLOCKD_SOCKET"}
    with (directory / "log").open("ab") as log:
        bound = ["setpriv", "--pdeathsig", "KILL", *words, str(socket)]
        process = subprocess.Popen(bound, env=env, stdout=log, stderr=log)
    try:
        give_up = time.monotonic() + START_S
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > give_up:
                raise Missing(f"{words[0]} does not run: {(directory / 'log').read_text()[-300:]}")
            time.sleep(0.02)
        yield str(socket)
    finally:
        process.kill()
        process.wait()


def _hosts(directory: Path, device: str, sockets: list[str]) -> list[Host]:
    found = [Host(directory / f"host{number}", device, socket) for number, socket in enumerate(sockets, 1)]
    for host in found:
        host.run("vgchange", "--lockstart", VG)
    return found
