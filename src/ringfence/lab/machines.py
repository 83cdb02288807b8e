"""The hosts of a lab, as its power switch boots them: an init under a new boot id, with an empty /run."""

import contextlib
import os
import shutil
import sys
import uuid
from collections.abc import Sequence

import msgspec

from ringfence.host.processes import Process, process
from ringfence.lab import trees
from ringfence.lab.layout import Layout


class LabMachines:
    """Only for a process that is a subreaper and has no other children."""

    def __init__(self, places: Layout) -> None:
        self._places = places

    def boot(self, host: str) -> Process | None:
        root = self._places.root(host)
        shutil.rmtree(root / "run", ignore_errors=True)
        (root / "run").mkdir(parents=True)
        (root / "run/boot_id").write_text(f"{uuid.uuid4()}\n")
        argv = [sys.executable, "-m", "ringfence.lab.init", str(self._places.dir), host]
        own = {"LVM_SYSTEM_DIR": str(self._places.lvm(host))}  # the daemon runs LVM2's commands, too
        pid = trees.spawn(argv, root / "init.log", own)
        init = process(pid)
        self._places.init_file(host).write_bytes(msgspec.json.encode((pid, init.start if init else 0)))
        return init

    def end_strays(self, inits: Sequence[Process]) -> None:
        """What an init leaves behind falls to this process, whose only other children are inits."""
        pids = [init.pid for init in inits]
        while strays := [one for one in trees.children(os.getpid()) if one.pid not in pids]:
            for stray in strays:
                trees.kill(stray)


def bury() -> None:
    """All children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
