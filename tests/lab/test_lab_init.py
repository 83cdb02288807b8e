"""What `ringfence init` writes, put where NEXT.txt says: real corosyncs and daemons make a cluster of it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.client import Connection, connect
from ringfence.config import Paths
from ringfence.core.errors import LockHeld, Unavailable
from ringfence.lab.network import Network, address

NAMES = ("n1", "n2")
HOST = """
set -e
mount -t proc proc /proc
mount -t tmpfs shm /dev/shm
hostname "$2"
for place in run etc/corosync var/lib/corosync; do mount --bind "$0/$place" "/$place"; done
corosync -f &
"$1" -m ringfence block --root "$0" &
"$1" -m ringfence daemon --node "$2" --root "$0" &
wait
"""


@contextlib.contextmanager
def booted(namespace: str, root: Path, name: str) -> Iterator[None]:
    """A host in namespaces of its own; with its first process go all others."""
    words = [
        "nsenter",
        f"--net={namespace}",
        "unshare",
        "--mount",
        "--uts",
        "--pid",
        "--fork",
        "--kill-child",
    ]
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [*words, "sh", "-c", HOST, str(root), sys.executable, name],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def copied(out: Path, root: Path, name: str) -> Path:
    """As NEXT.txt has it: three files to their places; the secrets' directory is empty here."""
    for place in ("run", "etc/corosync", "etc/ringfence", "var/lib/corosync"):
        (root / place).mkdir(parents=True)
    for file in ("corosync.conf", "authkey"):
        shutil.copy(out / name / file, root / "etc/corosync")
    shutil.copy(out / name / "ringfence.toml", root / "etc/ringfence")
    (root / "etc/machine-id").write_text(f"machine-{name}")
    (root / "run/boot_id").write_text(f"boot-{name}")
    return root


def connected(root: Path, limit_s: float = 60) -> Connection:
    give_up = time.monotonic() + limit_s
    while True:
        try:
            return connect(Paths(root).socket)
        except Unavailable:
            assert time.monotonic() < give_up, (root / "log").read_text()
        time.sleep(0.05)


def test_two_bare_hosts_have_an_exclusive_lock(tmp_path: Path) -> None:
    out = tmp_path / "files"
    hosts = [f"{name}={address(number, 0)},{address(number, 1)}" for number, name in enumerate(NAMES, 1)]
    words = ["init", "--name", "alteeve", "--out", str(out), *hosts]
    subprocess.run([sys.executable, "-m", "ringfence", *words], check=True, capture_output=True)
    roots = [copied(out, tmp_path / name, name) for name in NAMES]
    network = Network(len(NAMES), links=2)
    with contextlib.closing(network), contextlib.ExitStack() as stack:
        for number, (name, root) in enumerate(zip(NAMES, roots, strict=True), 1):
            stack.enter_context(booted(network.hosts[number].path, root, name))
        one, other = (stack.enter_context(connected(root)) for root in roots)
        with one.lockspace("games").lock("chess", "EX", wait_ms=60_000) as lock:
            first = lock.token
            with pytest.raises(LockHeld, match="n1"):
                other.lockspace("games").lock("chess", "EX", wait_ms=0)
        with other.lockspace("games").lock("chess", "EX", wait_ms=60_000) as lock:
            assert lock.token > first
