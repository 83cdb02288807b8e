"""Who serves stock LVM2's commands on this host, and what systemd would start beside it.

Source: lvmlockd(8); LVM2 lib/locking/lvmlockd.c (both the socket and the pid file are looked for)."""

import contextlib
import os
import socket
import struct
from pathlib import Path

from ringfence.config import Paths
from ringfence.core.errors import RingfenceError
from ringfence.host.probes import tool
from ringfence.wire.checkup import LockdFacts

PROC = Path("/proc")
TOOL_S = 2.0
STAND_IN = "ringfence.conf"
"""Our drop-in of lvmlockd.service: with it the unit starts no daemon of LVM2's own."""
_CREDENTIALS = struct.Struct("3i")


def lockd_facts(paths: Paths) -> LockdFacts:
    pid = listener(paths.lvmlockd_socket)
    ours = bool(pid) and pid == _daemon(paths)
    stock_starts = lockstop = None
    if paths.root == Path("/"):  # units belong to the machine, not to a lab's host
        stock_starts = starts(_unit("lvmlockd.service"))
        lockstop = _active(_unit("lvmlocks.service"))
    return LockdFacts(
        ours,
        _called(pid) if pid and not ours else "",
        paths.lvmlockd_pid.exists(),
        _stock() if paths.root == Path("/") else "",
        stock_starts,
        lockstop,
    )


def listener(path: Path) -> int:
    """The pid of the process that listens on a socket; 0: nobody does.

    Raises OSError: it could not be asked."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return 0
        data = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[0])


def _daemon(paths: Paths) -> int:
    """The pid of this root's daemon, if one has ever run; see daemon.lock."""
    try:
        return int(paths.lock.read_text())
    except (OSError, ValueError):
        return 0


def _called(pid: int) -> str:
    try:
        return f"{(PROC / str(pid) / 'comm').read_text().strip()} (pid {pid})"
    except OSError:
        return f"pid {pid}"


def _stock() -> str:
    """The first process that is LVM2's own program, whatever it is called: our stand-in bears its name."""
    for entry in sorted(PROC.iterdir()):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if Path(os.readlink(entry / "exe")).name == "lvmlockd":
                    return _called(int(entry.name))
    return ""


def _unit(name: str) -> dict[str, str]:
    """Empty: systemd could not be asked, or has no such unit."""
    words = ("systemctl", "show", "--property=LoadState,UnitFileState,ActiveState,DropInPaths", name)
    try:
        return read_unit(tool(words, TOOL_S))
    except RingfenceError:
        return {}


def read_unit(text: str) -> dict[str, str]:
    """What `systemctl show` prints; empty: there is no such unit."""
    keys = dict(line.partition("=")[::2] for line in text.splitlines())
    return keys if keys.get("LoadState") not in ("not-found", None) else {}


def starts(unit: dict[str, str]) -> bool | None:
    """Whether lvmlockd.service starts LVM2's own daemon at boot; None: not known."""
    if not unit:
        return None
    ours = any(Path(one).name == STAND_IN for one in unit.get("DropInPaths", "").split())
    return unit.get("UnitFileState") in ("enabled", "enabled-runtime") and not ours


def _active(unit: dict[str, str]) -> bool | None:
    return unit.get("ActiveState") == "active" if unit else None
