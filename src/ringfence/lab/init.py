"""A lab host's init: `python -m ringfence.lab.init DIR NODE`, the root of all processes of that host.

It holds the host's own link to the hub (as long as it answers, the host lives), or starts a corosync in
the host's own network; starts the block service and the daemon, further programs when asked, and buries
orphans.  It starts nothing again by itself: what ends stays ended until the host is booted, and is noted in
ROOT/ended.log with its exit code (a signal's is negative)."""

import contextlib
import os
import shlex
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ringfence.config import load
from ringfence.core.errors import Refused, Unavailable
from ringfence.host.processes import GONE, Process, process
from ringfence.lab.corosync import remove_leftovers
from ringfence.lab.layout import Layout
from ringfence.lab.line_socket import Json, LineServer
from ringfence.lab.namespaces import enter, private_mounts
from ringfence.lab.parts import Part
from ringfence.lab.trees import become_subreaper, spawn
from ringfence.ring.hostlink import HostLink


def main(directory: str, node: str) -> None:
    places = Layout(Path(directory))
    for name in os.listdir("/proc/self/fd"):  # what the lab's maker had open is no program's of this host
        with contextlib.suppress(OSError):
            os.set_inheritable(int(name), int(name) <= 2)
    on_corosync = places.kept().ring.is_corosync
    if on_corosync:
        _move_in(places, node)  # before there are threads, which would stay outside
    become_subreaper()
    programs = _Programs(places.ended(node))
    parts = [Part.BLOCK, Part.DAEMON]
    if on_corosync:
        parts.insert(0, Part.COROSYNC)
    else:
        loaded = load(places.paths(node))
        HostLink(loaded.hub(places.paths(node)), loaded.cluster.node_named(node).id).start()
    for part in parts:
        programs.start(part.argv(places, node), places.root(node) / part.log)
    LineServer(places.init_socket(node), programs.asked)
    while True:
        programs.bury()


def _move_in(places: Layout, node: str) -> None:
    """Into the host's own network, /run and /dev/shm: all that runs below this init is there."""
    wires = places.wires()
    if wires is None:
        raise Unavailable("the lab's switch does not run", next="ringfence lab down, and up")
    enter(wires.hosts[node])
    private_mounts(places.root(node) / "run")


class _Programs:
    """What this init has started; orphans are none of it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._words: dict[int, str] = {}
        self._told: dict[int, int] = {}
        """Pid -> the file in which its exit code is waited for."""
        self._starting = threading.Lock()

    def asked(self, request: Json) -> Json:
        argv, out = list(request["argv"]), Path(request["out"]) if request.get("out") else Path(os.devnull)
        running = self._running(shlex.join(argv)) if request.get("once") else None
        if running is not None:
            said = f"{request['once']} runs already (process {running.pid}, state {running.state})"
            raise Refused(said, next="ringfence lab status")
        return {"pid": self.start(argv, out, dict(request.get("env") or {}), request["files"])}

    def _running(self, words: str) -> Process | None:
        with self._starting:
            found = [process(pid) for pid, one in self._words.items() if one == words]
        return next((one for one in found if one is not None and one.state not in GONE), None)

    def start(
        self,
        argv: list[str],
        out: Path,
        env: Mapping[str, str] = MappingProxyType({}),
        files: Sequence[int] = (),
    ) -> int:
        """Its pid.  Raises Unavailable.

        Args:
            files: its stdin, stdout and stderr, and where its exit code is to be written; or none."""
        with self._starting:
            try:
                pid = spawn(argv, out, env, files[:3])
            except OSError as error:
                raise Unavailable(f"cannot run {argv[0]}: {error.strerror}", next="see its name") from None
            self._words[pid] = shlex.join(argv)
            if len(files) > 3:
                self._told[pid] = os.dup(files[3])
            return pid

    def bury(self) -> None:
        """Wait for the next that ends."""
        try:
            pid, status = os.wait()
        except ChildProcessError:
            time.sleep(0.05)
            return
        with self._starting:  # else it may have ended before its start was noted
            words, told = self._words.pop(pid, None), self._told.pop(pid, None)
        if told is not None:
            with contextlib.suppress(OSError):  # who waited for it has ended
                os.write(told, b"%d" % os.waitstatus_to_exitcode(status))
            os.close(told)
        if words is not None:
            remove_leftovers(pid)  # else each corosync that is killed fills more of the host's /dev/shm
            with self._log.open("a") as file:
                file.write(f"{os.waitstatus_to_exitcode(status)} {words}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
