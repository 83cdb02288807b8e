"""corosync on a lab host: its files below the host's root, how it is started, what a killed one leaves."""

import os
import shutil
import signal
from pathlib import Path

import msgspec

from ringfence.config.corosync_conf import Options, render_corosync
from ringfence.core.cluster import ClusterConfig, Timing
from ringfence.core.errors import Unavailable
from ringfence.lab.namespaces import Namespace
from ringfence.lab.trees import spawn

SHARED = Path("/dev/shm")
QUICK_ROTATIONS = 3
"""With quick times some host of three or more says something within corosync's 30 rotations, and its token
would never rest: 12 % of a core for each corosync, instead of 4 %, and all share the lab's machine."""
KEY_BYTES = 256
"""As corosync-keygen makes it."""
PROGRAMS = {"corosync": "corosync", "ip": "iproute2", "nft": "nftables", "nsenter": "util-linux"}
"""Program -> the Debian package that has it."""


class CorosyncFiles(msgspec.Struct, frozen=True):
    root: Path

    @property
    def conf(self) -> Path:
        return self.root / "etc/corosync/corosync.conf"

    @property
    def key(self) -> Path:
        return self.root / "etc/corosync/authkey"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/corosync"

    @property
    def log(self) -> Path:
        return self.root / "corosync.log"

    def argv(self) -> list[str]:
        """In the host's network, with a /run that no other host has."""
        return [shutil.which("corosync") or "/usr/sbin/corosync", "-f", "-c", str(self.conf)]

    def write(self, cluster: ClusterConfig, transport: str, key: bytes) -> None:
        """Raises OSError; ConfigError: see `render_corosync`."""
        self.conf.parent.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(parents=True, exist_ok=True)
        quick = cluster.timing.token_ms < Timing().token_ms
        options = Options(
            transport, keyfile=str(self.key), state_dir=str(self.state), logfile=str(self.log),
            seqno_unchanged_const=QUICK_ROTATIONS if quick else 0,
        )  # fmt: skip
        self.conf.write_text(render_corosync(cluster, options))
        self.key.touch(0o600)
        self.key.write_bytes(key)


def new_key() -> bytes:
    """One for all hosts of a cluster."""
    return os.urandom(KEY_BYTES)


def check_host() -> None:
    """Raises Unavailable: names what is not installed; Refused: not root."""
    missing = {name: package for name, package in PROGRAMS.items() if shutil.which(name) is None}
    if missing:
        raise Unavailable(
            f"not installed: {', '.join(missing)}", next=f"apt-get install {' '.join(missing.values())}"
        )
    Namespace().close()


def remove_leftovers(pid: int) -> None:
    """What a corosync that was killed left in shared memory: its clients' rings, and its flight recorder."""
    for path in (*SHARED.glob(f"qb-{pid}-*"), *SHARED.glob(f"qb-corosync-{pid}-*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


class LoneCorosync:
    """A corosync without a lab host around it: for what is tested on the bare ring.

    Args:
        files: written already.
        namespace: path of the network namespace.
        run: a directory that is to be its /run."""

    def __init__(self, files: CorosyncFiles, namespace: str, run: Path) -> None:
        self.files = files
        self.pid = 0
        script = 'mount --bind "$0" /run && exec "$@"'
        self._argv = [
            shutil.which("nsenter") or "nsenter", f"--net={namespace}", "unshare", "--mount",
            "sh", "-c", script, str(run), *files.argv(),
        ]  # fmt: skip
        run.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Returns at once; until it serves its clients takes it some tenths of a second."""
        assert not self.pid
        self.pid = spawn(self._argv, self.files.log.with_suffix(".out"))

    def send(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT."""
        os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait for that: SIGTERM, or SIGKILL.  May be called twice."""
        if self.pid:
            os.kill(self.pid, signal.SIGCONT)
            os.kill(self.pid, number)
            os.waitpid(self.pid, 0)
            remove_leftovers(self.pid)
            self.pid = 0
