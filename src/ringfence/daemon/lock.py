"""One daemon a root: a lock file that lives exactly as long as the process that holds it."""

import fcntl
import os
from pathlib import Path

from ringfence.core.errors import Refused, Unavailable


class DaemonLock:
    """Held from construction until `release` or the end of the process, whichever comes first.

    Raises:
        Refused: another daemon holds it; the message names its pid.
        Unavailable: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise Unavailable(f"cannot make {path}: {error.strerror}", next="check the directory") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise Refused(
                f"a daemon is already running under {path.parent}" + (f", pid {pid}" if pid else ""),
                next="stop that one first, or use another --root",
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._fd)
