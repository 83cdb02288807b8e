"""Commands typed on a lab host: they run below its init, in its own /run, and end with it.

On corosync the init is in the host's own mounts and network, and so is what it starts.  On the hub each
command gets mounts of its own, in which /run is the host's: there programs with fixed places
(lvmlockctl, and LVM2's look for /run/lvmlockd.pid) find that host's."""

import contextlib
import os
import select
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ringfence.core.errors import BadInput, Refused, Unavailable
from ringfence.host.processes import process
from ringfence.lab import trees
from ringfence.lab.cluster import Lab

STANDARD = (0, 1, 2)
_OWN_RUN = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
_MOUNTS = 'mount --bind "$0" /run && cd "$1" && shift && exec "$@"'


class Typed:
    """A command that runs on a lab host.  `wait` for it, or `end` it."""

    def __init__(
        self, lab: Lab, node: str, argv: Sequence[str], streams: Sequence[int] = STANDARD,
        env: Mapping[str, str] | None = None, cwd: Path | None = None,
    ) -> None:  # fmt: skip
        """Start it.

        Args:
            streams: descriptors for its stdin, stdout and stderr.
            env: its environment beside what makes it that host's (`Lab.env`); None: this process's.

        Raises BadInput: no such program.  Refused, Unavailable: the host starts nothing, or not here."""
        env = os.environ if env is None else env
        # This program's own neighbours last: ringfence need not be on the PATH to be typed on a host.
        path = os.pathsep.join((env.get("PATH", os.defpath), str(Path(sys.executable).parent)))
        program = shutil.which(argv[0], path=path) if argv else None
        if program is None:
            name = argv[0] if argv else ""
            raise BadInput(f"there is no program {name!r}", next="ringfence lab exec --help")
        where = str(cwd or Path.cwd())
        words = [program, *argv[1:]]
        if lab.ring.is_corosync:
            words = ["sh", "-c", 'cd "$0" && exec "$@"', where, *words]
        elif os.geteuid() == 0:
            words = [*_OWN_RUN, _MOUNTS, str(lab.root(node) / "run"), where, *words]
        else:
            raise Refused("a command has a /run of its own only as root's", next="become root")
        words[0] = shutil.which(words[0]) or words[0]
        self._node = node
        self._code, told = os.pipe()
        try:
            self.pid = lab.spawn(node, words, env={**env, **lab.env(node)}, files=(*streams, told))
        except BaseException:
            os.close(self._code)
            raise
        finally:
            os.close(told)
        self._process = process(self.pid)

    def wait(self, limit_s: float | None = None) -> int:
        """Its exit code; 128 and the signal's number, if one ended it.

        Raises TimeoutError: it still runs.  Unavailable: the host went off under it."""
        if not select.select([self._code], [], [], limit_s)[0]:
            raise TimeoutError(f"{self.pid} on {self._node} still runs")
        text = os.read(self._code, 16).decode()
        os.close(self._code)
        if not text:
            raise Unavailable(
                f"{self._node} was switched off before the command ended", next="ringfence lab status"
            )
        code = int(text)
        return code if code >= 0 else 128 - code

    def end(self) -> None:
        """Kill it, and all that it started."""
        if self._process is not None:
            trees.kill(self._process)
        with contextlib.suppress(OSError):
            os.close(self._code)
