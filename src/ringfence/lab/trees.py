"""Process trees: what freezing a host, or cutting its power, does to all of its processes.

A lab host is an init process that is a child subreaper, so every descendant stays below it, also
one in a session of its own.  Signals go through pidfds, and only to a process whose start time is
the one that was seen: a pid that was given to somebody else meanwhile is never hit.

Source: prctl(2), PR_SET_CHILD_SUBREAPER."""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ringfence.core.errors import RingfenceError
from ringfence.host.processes import GONE, STOPPED, Process, process

PR_SET_CHILD_SUBREAPER = 36
LIMIT_S = 30.0
POLL_S = 0.005


def become_subreaper() -> None:
    """Orphans below this process become its children.  Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def spawn(
    argv: list[str], log: Path, env: Mapping[str, str] = MappingProxyType({}), streams: Sequence[int] = ()
) -> int:
    """Start a program in a session of its own, its output appended to `log`; its pid.

    Args:
        env: beside this process's own environment.
        streams: its stdin, stdout and stderr, instead of nothing and the log.

    Raises OSError."""
    to_log = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    given = [(os.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate(streams)]
    return os.posix_spawn(
        argv[0], argv, {**os.environ, **env}, setsid=True, file_actions=given or to_log
    )


def alive(one: Process) -> bool:
    """Whether this very process still runs (a zombie does not)."""
    now = process(one.pid)
    return now is not None and now.start == one.start and now.state not in GONE


def tree(root: Process) -> list[Process]:
    """The process and all its descendants, parents first; without zombies."""
    children: dict[int, list[Process]] = {}
    for name in os.listdir("/proc"):
        one = process(int(name)) if name.isdigit() else None
        if one is not None:
            children.setdefault(one.parent, []).append(one)
    now = process(root.pid)
    if now is None or now.start != root.start:
        return []
    found, todo = [], [now]
    while todo:
        one = todo.pop(0)
        if one.state not in GONE:
            found.append(one)
        todo += children.get(one.pid, [])
    return found


def children(parent: int) -> list[Process]:
    """Without zombies."""
    root = process(parent)
    return [one for one in tree(root) if one.parent == parent] if root is not None else []


def freeze(root: Process) -> None:
    """Stop all of it.  Returns when nothing new is left: two looks, every process stopped in both."""
    _settle(root, signal.SIGSTOP, "freeze")


def thaw(root: Process) -> None:
    """Let all of it go on."""
    for one in reversed(tree(root)):
        send(one, signal.SIGCONT)


def kill(root: Process) -> None:
    """End all of it at once, as a loss of power does: stopped first, so that nothing is born meanwhile."""
    freeze(root)
    doomed = tree(root)
    for one in reversed(doomed):
        send(one, signal.SIGKILL)
    _until(lambda: not any(alive(one) for one in doomed), "end", root)


def end(one: Process) -> None:
    """Kill this process alone, and return when it has ended."""
    send(one, signal.SIGKILL)
    _until(lambda: not alive(one), "end", one)


def send(one: Process, number: signal.Signals) -> None:
    """Signal this very process, if it is still there."""
    try:
        fd = os.pidfd_open(one.pid)
    except ProcessLookupError:
        return
    try:
        now = process(one.pid)
        if now is not None and now.start == one.start:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
    finally:
        os.close(fd)


def _settle(root: Process, number: signal.Signals, what: str) -> None:
    before: list[int] | None = None
    give_up = time.monotonic() + LIMIT_S
    while True:
        found = tree(root)
        settled = all(one.state in STOPPED or _waits_for_child(one, found) for one in found)
        if settled and [one.pid for one in found] == before:
            return
        for one in found:
            if one.state not in STOPPED:
                send(one, number)
        # A look is not one instant: a child may be born after the list was read, by a parent that reads
        # as stopped a moment later.  Only a second list, begun when all were stopped, has it too.
        before = [one.pid for one in found] if settled else None
        if time.monotonic() > give_up:
            raise RingfenceError(f"the processes below {root.pid} do not {what}")
        time.sleep(POLL_S)


def _waits_for_child(one: Process, found: list[Process]) -> bool:
    """A parent in vfork(2), which posix_spawn uses, sleeps uninterruptibly until its child has called
    exec; that child, stopped before it, still is the parent's image.  It runs no more than the child does."""
    return one.state == "D" and any(
        child.parent == one.pid and child.state in STOPPED and _image(child) == _image(one) for child in found
    )


def command(pid: int) -> str:
    """Its words, joined by spaces; "" for one that has ended."""
    return _image(Process(pid, 0)).replace(b"\0", b" ").decode(errors="replace")


def _image(one: Process) -> bytes:
    """b"" for one that has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{one.pid}/cmdline").read_bytes()
    return b""


def _until(true: Callable[[], bool], what: str, root: Process) -> None:
    give_up = time.monotonic() + LIMIT_S
    while not true():
        if time.monotonic() > give_up:
            raise RingfenceError(f"the processes below {root.pid} do not {what}")
        time.sleep(POLL_S)
