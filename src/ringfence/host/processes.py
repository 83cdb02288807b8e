"""Processes of this host as /proc shows them.

Source: proc(5), /proc/PID/stat."""

import contextlib
import os
from pathlib import Path

import msgspec

STOPPED = "tT"
"""States of a process that stands still until it gets SIGCONT."""
GONE = "ZXx"


class Process(msgspec.Struct, frozen=True):
    pid: int
    start: int
    """Clock ticks after boot: with the pid it names one process for ever."""
    parent: int = 0
    state: str = ""
    group: int = 0


def process(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = _fields(text)
    state = fields[0] if fields[0] not in GONE else _state_of_threads(pid, fields[0])
    return Process(pid, int(fields[19]), int(fields[1]), state, int(fields[2]))


def group_lives(group: int) -> bool:
    """Whether anybody of this process group still runs.  A zombie does not, though it bears the number.

    Cheap where the group is gone; where it is not, all of /proc is read."""
    with contextlib.suppress(PermissionError):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
    everybody = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return any(one is not None and one.group == group and one.state not in GONE for one in everybody)


def _fields(text: str) -> list[str]:
    """Of a stat file, from the state on: the name before it may hold anything."""
    return text[text.rindex(")") + 2 :].split()


def _state_of_threads(pid: int, state: str) -> str:
    """A process whose first thread has ended reads as a zombie while its other threads write on."""
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{thread}/stat").read_text(encoding="utf-8", errors="replace")
                found.append(_fields(text)[0])
    living = [one for one in found if one not in GONE]
    return next((one for one in living if one not in STOPPED), living[0] if living else state)
