"""/run/lvmlockd.pid: stock commands look whether it is there, and LVM2's own lvmlockd locks it.

So it is locked here in the same way, and that daemon does not start beside us: it would remove the file as it
ends, and stock commands would then take nobody for lvmlockd.  It names no process: whoever ends the one that
stands in there (ocf:heartbeat:lvmlockd does, by SIGTERM) would make this host leave the cluster.

Source: LVM2 libdm/libdm-common.c (dm_create_lockfile, dm_daemon_is_running), lib/locking/lvmlockd.c."""

import contextlib
import fcntl
import os
from pathlib import Path

from ringfence.core.errors import Unavailable

TEXT = b"ringfence\n"


class PidFile:
    """A POSIX lock: it ends when this process closes the file, however it opened it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1

    def claim(self) -> None:
        """Raises Unavailable: an lvmlockd has it, or it cannot be made."""
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.write(self._fd, TEXT)
        except BlockingIOError:
            self.release()
            raise Unavailable(
                f"LVM2's own lvmlockd runs here: it has {self.path}",
                next="vgchange -an; systemctl stop lvmlocks lvmlockd; systemctl restart ringfence",
            ) from None
        except OSError as error:
            self.release()
            next = "check the directory"
            raise Unavailable(f"cannot write {self.path}: {error.strerror}", next=next) from None

    def remove(self) -> None:
        """Nothing, if it is not ours."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            self.release()

    def release(self) -> None:
        """Somebody else may have it; the file stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
