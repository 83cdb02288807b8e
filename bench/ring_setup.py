"""From `ringfence init` to the first EX lock, on two hosts that are namespaces of this one.

The files are used where init says they belong: each host has an /etc/corosync, a /var/lib/corosync, a /run
and a /dev/shm of its own, and a root for ringfence."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ringfence.client import Connection, connect
from ringfence.config import Paths
from ringfence.core.errors import Unavailable
from ringfence.lab.network import Network, address

NAMES = ("n1", "n2")
BOOT = """
set -e
mount -t proc proc /proc
mount -t tmpfs shm /dev/shm
for place in run etc/corosync var/lib/corosync var/log; do mount --bind "$0/$place" "/$place"; done
corosync -f &
"$1" -m ringfence block --root "$0" &
"$1" -m ringfence daemon --node "$2" --root "$0" &
wait
"""
PLACES = ("run", "etc/corosync", "etc/ringfence", "var/lib/corosync", "var/log")
START_S = 30.0
POLL_S = 0.02
END_S = 10.0


def init_to_lock(directory: Path) -> dict[str, float]:
    """Seconds: of `init` itself, from the hosts' start to the first EX lock, and both together."""
    directory.mkdir()
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "ringfence", "init", "--name", "bench", "--out", str(directory / "files")]
        + [f"{name}={address(number)}" for number, name in enumerate(NAMES, 1)],
        check=True, capture_output=True,
    )  # fmt: skip
    wrote = time.monotonic()
    roots = [_installed(directory, name) for name in NAMES]
    network = Network(len(NAMES))
    try:
        with contextlib.ExitStack() as stack:
            booted = time.monotonic()
            for number, (name, root) in enumerate(zip(NAMES, roots, strict=True), 1):
                stack.enter_context(_host(network.hosts[number].path, root, name))
            with _connected(Paths(roots[0]).socket) as ring, ring.lockspace("bench").lock("first"):
                locked = time.monotonic()
    finally:
        network.close()
    return {"init_s": wrote - began, "hosts_s": locked - booted, "both_s": wrote - began + locked - booted}


def _installed(directory: Path, name: str) -> Path:
    """What NEXT.txt says to copy, copied."""
    root, files = directory / name, directory / "files" / name
    for place in PLACES:
        (root / place).mkdir(parents=True)
    for file in ("corosync.conf", "authkey"):
        shutil.copy(files / file, root / "etc/corosync")
    shutil.copy(files / "ringfence.toml", root / "etc/ringfence")
    (root / "etc/machine-id").write_text(uuid.uuid4().hex)
    (root / "run/boot_id").write_text(str(uuid.uuid4()))
    return root


def _connected(socket: Path) -> Connection:
    """As soon as the daemon listens."""
    give_up = time.monotonic() + START_S
    while True:
        try:
            return connect(socket)
        except Unavailable:
            if time.monotonic() > give_up:
                raise
        time.sleep(POLL_S)


@contextlib.contextmanager
def _host(namespace: str, root: Path, name: str) -> Iterator[None]:
    """All its processes, until the block is left."""
    words = ["nsenter", f"--net={namespace}", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [*words, "sh", "-c", BOOT, str(root), sys.executable, name],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with the first process of a pid namespace go all others
        process.wait(END_S)
