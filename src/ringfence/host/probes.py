"""Looks that may hang (a dead array, a frozen daemon): none is waited for longer than its limit.

Each runs in a thread of its own, which ends whenever its look does; Python does not wait for it at exit.
A look that hangs since an earlier round is not started once more, so that asking often costs nothing."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Generic, TypeVar

import msgspec

from ringfence.core.errors import RingfenceError, Unavailable

T = TypeVar("T")
TOOLS_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
KILLED_S = 1.0


class Outcome(msgspec.Struct, Generic[T], frozen=True):
    value: T | None = None
    trouble: str = ""
    """Why there is no value, for people."""


class Probes:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hanging: dict[str, threading.Thread] = {}

    def all(self, looks: Mapping[str, Callable[[], T]], limit_s: float) -> dict[str, Outcome[T]]:
        """Run all at once, each under its name; return when all are done, at the limit at the latest.

        What a look raises as OSError, ValueError or RingfenceError is its trouble."""
        found: dict[str, Outcome[T]] = {}
        started: list[threading.Thread] = []
        with self._lock:
            self._hanging = {name: one for name, one in self._hanging.items() if one.is_alive()}
            for name, look in looks.items():
                if name in self._hanging:
                    found[name] = Outcome(trouble="still no answer to an earlier look")
                    continue
                thread = threading.Thread(target=_run, args=(look, name, found), name=name, daemon=True)
                self._hanging[name] = thread
                started.append(thread)
        for thread in started:
            thread.start()
        give_up = time.monotonic() + limit_s
        for thread in started:
            thread.join(max(0.0, give_up - time.monotonic()))
        late: Outcome[T] = Outcome(trouble=f"no answer within {limit_s:g} s")
        return {name: found.get(name, late) for name in looks}


def _run(look: Callable[[], T], name: str, found: dict[str, Outcome[T]]) -> None:
    try:
        found[name] = Outcome(look())
    except RingfenceError as error:
        found[name] = Outcome(trouble=str(error))
    except OSError as error:
        found[name] = Outcome(trouble=error.strerror or str(error))
    except ValueError as error:
        found[name] = Outcome(trouble=str(error))


def tool(words: Sequence[str], limit_s: float, more: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a program that only reports prints on stdout, whatever its exit code.

    Args: more: of its environment.

    Raises Unavailable: it is not installed, or does not answer in time (it is killed then), or has
    failed with nothing on stdout; with its own last words."""
    try:
        process = subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": TOOLS_PATH, "LC_ALL": "C.UTF-8", "LVM_SUPPRESS_FD_WARNINGS": "1", **more},
            start_new_session=True,
            text=True,
            errors="replace",
        )
    except FileNotFoundError:
        raise Unavailable(f"{words[0]} is not installed on this host") from None
    except OSError as error:
        raise Unavailable(f"{words[0]} cannot be started: {error.strerror}") from None
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # then the kernel holds it
            process.communicate(timeout=KILLED_S)
        raise Unavailable(f"{words[0]} did not answer within {limit_s:g} s") from None
    if process.returncode != 0 and not out.strip():
        lines = [line.strip() for line in err.splitlines() if line.strip()]
        last = lines[-1][:200] if lines else f"exit code {process.returncode}"
        raise Unavailable(f"{words[0]} failed: {last}")
    return out
