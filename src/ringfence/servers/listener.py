"""A Unix socket of this process's own: never open to the world, and never somebody else's.

A socket somebody listens on is never taken over, not even by two that start at once: a lock file beside it
says whose it is.  Linux gives a new name the socket inode's mode: 0600 from the first instant, without
touching the process's umask, which other threads may be using."""

import contextlib
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path

from ringfence.core.errors import ConfigError, Refused, Unavailable

BACKLOG = 1024
PEERCRED = struct.Struct("3i")
"""SO_PEERCRED: pid, uid, gid."""


class Listener:
    """Args:
    path: where; its directory must exist.
    service: for messages, what listens there: "a daemon"."""

    def __init__(self, path: Path, service: str = "a daemon") -> None:
        self.path = path
        self._service = service
        self._lock_fd = -1
        self._inode = 0

    def take(self, *, mode: int = 0o600, gid: int = -1) -> socket.socket:
        """Listen; does not block.

        Raises:
            Refused: somebody listens there already; the message names the process.
            ConfigError: the path is too long for a Unix socket.
            Unavailable: the directory cannot be written."""
        if len(os.fsencode(self.path)) >= 108:
            raise ConfigError(f"socket path {self.path} is too long", next="use a shorter --root")
        self._lock()
        try:
            return self._bind(mode, gid)
        except BaseException:
            self.unlock()
            raise

    def remove(self) -> None:
        """Remove the socket's name, unless somebody has put another socket there."""
        with contextlib.suppress(OSError):
            if os.stat(self.path).st_ino == self._inode:
                os.unlink(self.path)

    def unlock(self) -> None:
        """Another may take it from here on."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _lock(self) -> None:
        try:
            fd = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._cannot_make(error) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            raise self._running(holder) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def _bind(self, mode: int, gid: int) -> socket.socket:
        self._clear_stale()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listener.fileno(), 0o600)
            listener.bind(os.fspath(self.path))
            if gid >= 0:
                os.chown(self.path, -1, gid)
            os.chmod(self.path, mode)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            self._inode = os.stat(self.path).st_ino
        except OSError as error:
            listener.close()
            raise self._cannot_make(error) from None
        return listener

    def _clear_stale(self) -> None:
        """Remove what a process that is gone left behind.  Raises Refused if somebody listens."""
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        probe.setblocking(False)  # a frozen one's full backlog must not hold us: it counts as listening
        try:
            probe.connect(os.fspath(self.path))
            raw = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEERCRED.size)
            raise self._running(str(PEERCRED.unpack(raw)[0]))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if not self.path.is_socket():
                raise Refused(f"{self.path} is in the way and no socket", next="move it away") from None
            os.unlink(self.path)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise self._running("") from None
            raise Unavailable(
                f"cannot use socket {self.path}: {error.strerror}", next="check its owner"
            ) from None
        finally:
            probe.close()

    def _cannot_make(self, error: OSError) -> Unavailable:
        return Unavailable(f"cannot make socket {self.path}: {error.strerror}", next="check the directory")

    def _running(self, pid: str) -> Refused:
        return Refused(
            f"{self._service} is already running on {self.path}" + (f", pid {pid}" if pid else ""),
            next="stop that one first, or use another --root",
        )
