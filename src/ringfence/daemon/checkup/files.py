"""Files, directories and sockets of the daemon, as lstat(2) and statvfs(3) show them."""

import grp
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ringfence.config import Paths
from ringfence.wire.checkup import DirectoryFacts, FileFacts

MOUNTS = Path("/proc/self/mountinfo")
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFSOCK: "socket"}


def file_facts(path: Path) -> FileFacts:
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            status = path.stat()
    except FileNotFoundError:
        return FileFacts(str(path))
    except OSError as error:
        return FileFacts(str(path), trouble=error.strerror or str(error))
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "other")
    return FileFacts(str(path), kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def secret_facts(paths: Paths, devices: Sequence[str]) -> tuple[FileFacts, ...]:
    """The secrets of configured devices that there are, and whatever else lies there."""
    try:
        names = sorted({*devices, *os.listdir(paths.secrets)})
    except (FileNotFoundError, PermissionError):
        names = list(devices)
    found = [file_facts(paths.secrets / name) for name in names]
    return tuple(one for one in found if one.kind or one.trouble)


def place_facts(paths: Paths) -> tuple[FileFacts, ...]:
    where = (paths.etc, paths.file, paths.secrets, paths.var, paths.run, paths.socket, paths.block_socket)
    return tuple(map(file_facts, where))


def group_of(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:
        return None


def directory_facts(path: Path) -> DirectoryFacts:
    if not path.is_dir():
        return DirectoryFacts(str(path))
    space = os.statvfs(path)
    return DirectoryFacts(
        str(path),
        kind=fstype(path, MOUNTS.read_text(errors="replace")),
        free_bytes=space.f_bavail * space.f_frsize,
        free_files=space.f_favail if space.f_files else None,
        read_only=bool(space.f_flag & os.ST_RDONLY),
    )


def fstype(path: Path, mounts: str) -> str:
    """The type of the file system that `path` is on: of the longest mount point above it, the last mounted.

    Source: proc_pid_mountinfo(5)."""
    real = os.path.realpath(path)
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].encode().decode("unicode_escape", "replace")
        below = real == point or real.startswith(point.rstrip("/") + "/")
        if below and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind
