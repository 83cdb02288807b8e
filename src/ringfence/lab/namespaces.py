"""Linux namespaces: a network of one's own for each lab host, and private places for what its programs share.

A network namespace lives as long as somebody holds it: a process in it, or a descriptor of it.  Here it is
the descriptor, and no name: when the holder has ended, however that came, nothing is left to be removed.

Needs root (CAP_SYS_ADMIN).  Source: network_namespaces(7), mount_namespaces(7), setns(2)."""

import contextlib
import ctypes
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from ringfence.core.errors import Refused, RingfenceError, Unavailable

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 1 << 18
LIMIT_S = 20.0


class Namespace:
    """A network namespace that this process holds until `close`.  It has a loopback, and nothing else."""

    def __init__(self) -> None:
        """Make a new one.  This process itself stays where it is.  Raises Refused: without root."""
        made: list[int | OSError] = []

        def make() -> None:
            try:
                _call("unshare", CLONE_NEWNET)
                made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                made.append(error)

        # A namespace is a thread's: one that ends takes nobody else along.
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        found = made[0]
        if isinstance(found, OSError):
            raise Refused(
                f"network namespaces cannot be made here: {found.strerror}",
                next="become root (CAP_SYS_ADMIN), or --ring hub",
            )
        self._fd = found
        self.run(["ip", "link", "set", "lo", "up"])

    @property
    def path(self) -> str:
        """By which any process may enter it while this one holds it."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def run(self, argv: Sequence[str], stdin: str = "") -> str:
        """Run a program in it; what it printed.  Raises Unavailable: it failed, or is not there."""
        return run_in(self.path, argv, stdin)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in it until the block is left; sockets that it opens meanwhile stay there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter(self.path)
            yield
        finally:
            _call("setns", before, CLONE_NEWNET)
            os.close(before)

    def close(self) -> None:
        """It is gone when the last process in it has ended.  May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def run_in(path: str, argv: Sequence[str], stdin: str = "") -> str:
    """As `Namespace.run`, for one that another process holds."""
    try:
        ran = subprocess.run(
            ["nsenter", f"--net={path}", *argv],
            input=stdin, text=True, capture_output=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{argv[0]} does not run: {error}") from None
    if ran.returncode:
        words = (ran.stderr or ran.stdout).strip().splitlines() or ["it says nothing"]
        raise Unavailable(f"{' '.join(argv)} failed: {words[-1]}", next="look at `ringfence lab status`")
    return ran.stdout


def enter(path: str) -> None:
    """Move this thread, and what it starts from now on, into a network namespace.  Raises RingfenceError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", fd, CLONE_NEWNET)
        finally:
            os.close(fd)
    except OSError as error:
        raise RingfenceError(f"cannot enter the namespace {path}: {error.strerror}") from None


def private_mounts(run: Path) -> None:
    """Give this process, and all that it starts, a /run and a /dev/shm of its own.

    Before any thread is started.  With them go the files that corosync leaves there when it is killed.

    Args:
        run: the directory that is to be its /run.

    Raises RingfenceError."""
    try:
        _call("unshare", CLONE_NEWNS)
        _mount("none", "/", "", MS_REC | MS_PRIVATE)  # nothing of it shows outside
        _mount("lab", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV)
        _mount(str(run), "/run", "", MS_BIND)
    except OSError as error:
        raise RingfenceError(f"cannot have a /run of its own: {error.strerror}") from None


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    _call("mount", os.fsencode(source), os.fsencode(target), os.fsencode(kind), ctypes.c_ulong(flags), None)


def _call(name: str, *arguments: object) -> None:
    """A call of libc that returns 0.  Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc[name](*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
