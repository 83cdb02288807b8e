"""Processes of this host as /proc shows them.

Source: proc(5), /proc/PID/stat."""

import contextlib
import os

import msgspec

STOPPED = "tT"
"""States of a process that stands still until it gets SIGCONT."""
GONE = "ZXx"
ENDING = "D"
"""Of a process whose threads are ending: not gone, and no signal changes that."""
_THREADS = 17
"""How many threads it still has, itself among them: a field of its stat, counted from its state."""


class Process(msgspec.Struct, frozen=True):
    pid: int
    start: int
    """Clock ticks after boot: with the pid it names one process for ever."""
    parent: int = 0
    state: str = ""
    group: int = 0


def process(pid: int) -> Process | None:
    """None: there is none of this number.

    Raises OSError: whether there is cannot be told now (no file can be opened any more, say)."""
    try:
        fields = _stat(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    state = fields[0]
    if state in GONE and int(fields[_THREADS]) > 1:
        state = _state_of_threads(pid)
    return Process(pid, int(fields[19]), int(fields[1]), state, int(fields[2]))


def group_lives(group: int) -> bool:
    """Whether anybody of this process group still runs, or may.  A zombie does not, for all its number.

    Cheap where the group is gone; where it is not, all of /proc is read."""
    with contextlib.suppress(PermissionError):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
    try:
        everybody = [process(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return True
    return any(one is not None and one.group == group and one.state not in GONE for one in everybody)


def _stat(path: str) -> list[str]:
    """The fields of a stat file, from the state on (the name may hold anything).  Raises OSError.

    Whoever looks for a process's children reads this of everybody: so without what `Path` and text files do
    beside the system calls."""
    with open(path, "rb", buffering=0) as file:
        text = file.read().decode(errors="replace")
    return text[text.rindex(")") + 2 :].split()


def _state_of_threads(pid: int) -> str:
    """A process whose first thread has ended reads as a zombie while its other threads write on.

    The list of its threads may end early where one ends while it is read (the kernel goes from each to the
    next): so how many there are decides whether there are any, and the list only what they do."""
    living = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                state = _stat(f"/proc/{pid}/task/{thread}/stat")[0]
                if state not in GONE:
                    living.append(state)
    return next((one for one in living if one not in STOPPED), living[0] if living else ENDING)
