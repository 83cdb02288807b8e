"""The agents that are installed on this host, and what each says of itself.

An agent is started once for its metadata: with nothing but `action=metadata` on stdin, in a session of its
own, under a time limit, its output bounded.  What it said is kept by path, time and size of its executable,
in a file that holds nothing else and may be lost; what was broken is kept, too, with the reason, until it
changes."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from ringfence.agents.process import Running
from ringfence.config.agents.metadata import MOST_BYTES, Metadata, parse_metadata
from ringfence.core.errors import RingfenceError
from ringfence.host import kept

LIMIT_S = 10.0
"""For one agent's metadata: stock ones take 0.1 s."""
MOST_KEPT_BYTES = 16 << 20
FORMAT = 1
"""Raised whenever metadata is read otherwise than before."""


class Known(msgspec.Struct, frozen=True):
    """What an executable has said of itself."""

    path: str
    changed_ns: int
    size_bytes: int
    metadata: Metadata | None = None
    trouble: str = ""
    """Why there is no metadata."""
    lasting: bool = True
    """False: another try may end otherwise."""


class _File(msgspec.Struct, frozen=True):
    format: int = FORMAT
    known: tuple[Known, ...] = ()


class Catalogue:
    """
    Args:
        file: where what is known is kept; it is not written if its directory is not there, or not ours.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = {one.path: one for one in _load(file).known}

    async def look(
        self, paths: Iterable[str], progress: Callable[[str], None] = lambda line: None
    ) -> list[Known]:
        """What each executable says of itself, in the order given; never raises for what it does."""
        wanted = list(paths)
        new = [path for path in wanted if not self._is_fresh(path)]
        if new:
            progress(f"asking {len(new)} fence agents for their metadata")
            gate = asyncio.Semaphore(max(2, os.cpu_count() or 2))
            for one in await asyncio.gather(*(_ask(path, gate) for path in new)):
                self._known[one.path] = one
            self._keep()
        return [self._known[path] for path in wanted]

    def _is_fresh(self, path: str) -> bool:
        known = self._known.get(path)
        return known is not None and (known.changed_ns, known.size_bytes) == _stamp(path)

    def _keep(self) -> None:
        """What cannot be kept is asked for again the next time."""
        if not self._file.parent.is_dir() or self._file.parent.stat().st_uid != os.geteuid():
            return
        there = tuple(one for one in self._known.values() if one.lasting and os.path.exists(one.path))
        with contextlib.suppress(OSError, RingfenceError):
            kept.keep_bytes(self._file, msgspec.json.encode(_File(known=there)), 0o644)


def _load(file: Path) -> _File:
    try:
        if file.stat().st_size > MOST_KEPT_BYTES:
            return _File()
        found = msgspec.json.decode(file.read_bytes(), type=_File)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return _File()
    return found if found.format == FORMAT else _File()


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_size


async def _ask(path: str, gate: asyncio.Semaphore) -> Known:
    async with gate:
        changed_ns, size_bytes = _stamp(path)
        try:
            metadata = await _metadata(path)
        except RingfenceError as error:
            return Known(path, changed_ns, size_bytes, None, error.message, not error.retry)
        return Known(path, changed_ns, size_bytes, metadata)


async def _metadata(path: str) -> Metadata:
    """Raises RingfenceError with what is wrong with the agent."""
    with contextlib.closing(Running([path], MOST_BYTES)) as running:
        late = await running.ended(b"action=metadata\n", asyncio.Event(), LIMIT_S)
        code = await running.buried()
    if late or code is None:
        raise RingfenceError(f"it says nothing within {LIMIT_S:g} s: killed", retry=True)
    if running.out.cut:
        raise RingfenceError(f"it prints more than {MOST_BYTES >> 20} MiB")
    try:
        return parse_metadata(running.out.data)
    except RingfenceError as error:
        ended = "" if code == 0 else f" (exit code {code})"
        raise RingfenceError(f"{error.message}{ended}") from None
