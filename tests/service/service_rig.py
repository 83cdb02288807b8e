"""A host that runs a real systemd, in namespaces of its own, with the packaged units; and a second node.

The second node is a witness: plain processes outside of that systemd, on the same hub and disk, so that it
sees how the first one goes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringfence.client import Connection, connect
from ringfence.config import Paths
from ringfence.core.errors import Unavailable

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
LIMIT_S = 60.0
WITNESS = "/srv/n2"
"""The second node's root, on the first one's disk."""
PYTHON = ["/usr/bin/env", "PYTHONDONTWRITEBYTECODE=1", sys.executable]


class Rig:
    """Boots on construction; `end` leaves nothing behind."""

    def __init__(self) -> None:
        self._dir = Path(tempfile.mkdtemp(prefix="rfservice"))
        hierarchy = next(one for one in CGROUPS if (one / "cgroup.controllers").exists())
        self._cgroup = hierarchy / self._dir.name
        self._witness: list[subprocess.Popen[bytes]] = []
        self._boot: subprocess.Popen[bytes] | None = None
        self._since = 0
        try:
            self._cgroup.mkdir()
            self._start()
            self._until("systemd to be up", lambda: self._systemd_state() in ("running", "degraded"))
        except BaseException:
            self.end()
            raise

    def _start(self) -> None:
        command = " ".join([*PYTHON, "-m", "ringfence"])
        guest = " ".join([*PYTHON, str(HERE / "guest.py")])
        enter = f'echo $$ >{self._cgroup}/cgroup.procs; exec "$@"'
        unshare = ["--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--ipc", "--uts", "--net"]
        boot = [str(HERE / "boot.sh"), str(self._dir), str(HERE / "furnish.sh")]
        with (self._dir.with_suffix(".log")).open("wb") as log:
            self._boot = subprocess.Popen(
                ["sh", "-c", enter, "sh", "unshare", *unshare, *boot],
                env={**os.environ, "RINGFENCE": command, "UNITS": str(ROOT / "packaging"), "GUEST": guest},
                stdout=log,
                stderr=log,
            )

    def end(self) -> None:
        for process in (*self._witness, self._boot):
            if process is not None:
                process.kill()  # the namespaces' first process goes with its parent, and all others with it
                process.wait()
        give_up = time.monotonic() + LIMIT_S
        for place in sorted(self._cgroup.rglob("*/"), reverse=True) if self._cgroup.exists() else ():
            if place.is_dir():
                _remove_cgroup(place, give_up)
        if self._cgroup.exists():
            _remove_cgroup(self._cgroup, give_up)
        shutil.rmtree(self._dir)
        self._dir.with_suffix(".log").unlink(missing_ok=True)

    # -- the host -----------------------------------------------------------------------

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command on the host, as root; what it says on stdout."""
        done = subprocess.run(
            [*self._enter("--all"), *words], capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.journal()}")
        return done.stdout

    def systemctl(self, *words: str) -> None:
        self.run("systemctl", *words)

    def show(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def pid(self) -> int:
        """The daemon's, as the host counts; 0: it does not run."""
        return int(self.show("ringfence", "MainPID"))

    def journal(self, *matches: str) -> str:
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", *matches, check=False)

    def entries(self, *matches: str) -> list[dict[str, Any]]:
        lines = self.run("journalctl", "--no-pager", "--all", "--output=json", *matches).splitlines()
        return [json.loads(line) for line in lines]

    def write(self, path: str, text: str) -> None:
        self.run("mkdir", "-p", str(Path(path).parent))
        self.run("sh", "-c", 'printf %s "$1" >"$2"', "sh", text, path)

    def off(self) -> bool:
        assert self._boot is not None
        return self._boot.poll() is not None

    # -- the second node ------------------------------------------------------------------

    def start_witness(self) -> None:
        for words in (["block"], ["daemon", "--node", "n2"]):
            argv = [*self._enter("--mount"), *PYTHON, "-m", "ringfence", *words, "--root", WITNESS]
            self._witness.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        self._until("both nodes to be ready", lambda: self.members() == {"n1": "ready", "n2": "ready"})

    def ask_witness(self, *words: str) -> Any:
        """A command at the second node, which answers also when the first is off."""
        return json.loads(self._beside(*PYTHON, "-m", "ringfence", *words, "--root", WITNESS, "--json"))

    def read(self, path: str) -> str:
        """A file of the host, also when it is off."""
        return self._beside("cat", path)

    def old_journal(self) -> str:
        """The journal of the host, also when it is off."""
        return self._beside("journalctl", "--directory=/var/log/journal", "--no-pager", "--quiet")

    def stop_witness(self) -> None:
        self._witness[1].send_signal(signal.SIGSTOP)

    def _beside(self, *words: str) -> str:
        enter = ["nsenter", "--target", str(self._witness[1].pid), "--mount"]
        done = subprocess.run([*enter, *words], capture_output=True, text=True, timeout=LIMIT_S, check=False)
        return done.stdout

    def members(self) -> dict[str, str]:
        """As the witness says; {}: it does not answer."""
        try:
            with self._witness_daemon() as daemon:
                return {one["name"]: one["state"] for one in daemon.status()["members"]}
        except Unavailable:
            return {}

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """What the witness has seen of the first node, since `look_away`."""
        with self._witness_daemon() as daemon:
            seen = daemon.events(since=self._since)
            return [one for one in seen if one["kind"] in kinds and one["fields"].get("node") == 1]

    def look_away(self) -> None:
        """What happened until now is told no more."""
        with self._witness_daemon() as daemon:
            self._since = max([self._since, *(int(one["seq"]) for one in daemon.events(since=self._since))])

    def _witness_daemon(self) -> Connection:
        """Through its own root, which this machine sees: no process is started to ask."""
        root = f"/proc/{self._witness[1].pid}/root{WITNESS}"
        return connect(Paths(Path(root)).socket, retry_ms=0)

    # -- inside -------------------------------------------------------------------------------

    def until(self, true: Callable[[], object], what: str = "it") -> None:
        self._until(what, true)

    def _until(self, what: str, true: Callable[[], object]) -> None:
        give_up = time.monotonic() + LIMIT_S
        while not true():
            assert time.monotonic() < give_up, f"waited in vain for {what}\n{self._story()}"
            time.sleep(0.05)

    def _story(self) -> str:
        log = self._dir.with_suffix(".log").read_text()
        return log if self.off() else f"{log}\n{self.journal()}"

    def _init(self) -> int:
        """systemd's pid, as this machine counts; 0: not yet."""
        assert self._boot is not None
        children = Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _systemd_state(self) -> str:
        assert self._boot is not None
        assert self._boot.poll() is None, self._story()
        if not self._init():
            return ""
        if Path(f"/proc/{self._init()}/comm").read_text().strip() != "systemd":
            return ""
        return self.run("systemctl", "is-system-running", check=False).strip()

    def _enter(self, what: str) -> list[str]:
        return ["nsenter", "--target", str(self._init()), what]


def _remove_cgroup(place: Path, give_up: float) -> None:
    """The kernel counts an ended process as there for a moment."""
    while True:
        try:
            place.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            assert time.monotonic() < give_up, f"somebody is left in {place}"
            os.sched_yield()
        else:
            return
