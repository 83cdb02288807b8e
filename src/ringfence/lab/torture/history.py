"""What the clients of a torture run saw: one JSON line an event, in the kernel's hands before they go on.

All hosts of a lab share one machine, so its CLOCK_BOOTTIME orders the events of all of them.

An *operation* (`op`) is one lock from its request to its end; conversions are part of it.  A log is one
client process's; numbers are unique within it.  A torn last line (SIGKILL) is left out."""

import enum
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec


class After(enum.Enum):
    """What the authority page said when a use was over."""

    VALID = "valid"
    LAPSED = "lapsed"
    LOST = "lost"


class _Event(msgspec.Struct, frozen=True, tag=True):
    pass


class Started(_Event, frozen=True):
    client: str
    node: str
    at_ns: int


class Asked(_Event, frozen=True):
    """A request goes out.  `wait_ms`: as in `wire.client.Lock`."""

    op: int
    space: str
    resource: str
    mode: str
    wait_ms: int | None
    at_ns: int


class Converting(_Event, frozen=True):
    """A conversion goes out; from here on the client does not act on the old mode.  `writes`: the value
    block, in hexadecimal digits, that goes with it."""

    op: int
    mode: str
    wait_ms: int | None
    at_ns: int
    writes: str | None = None


class Granted(_Event, frozen=True):
    """The answer to a request or a conversion, as it was received."""

    op: int
    mode: str
    token: str
    at_ns: int
    value: str | None = None
    """The value block as the grant read it; None: it read none, or the block is not valid."""


class Refused(_Event, frozen=True):
    """Not granted; after a conversion the old mode stays."""

    op: int
    code: str
    at_ns: int


class Used(_Event, frozen=True):
    """The lock was looked at (held, authority valid), then what it protects was used, then the page was
    looked at again.  `until_ns`: the deadline that the second look saw."""

    op: int
    mode: str
    began_ns: int
    ended_ns: int
    after: After
    until_ns: int


class Releasing(_Event, frozen=True):
    op: int
    at_ns: int


class Released(_Event, frozen=True):
    op: int
    at_ns: int


class Lost(_Event, frozen=True):
    """The client learned that the lock is gone."""

    op: int
    why: str
    at_ns: int


Event = Started | Asked | Converting | Granted | Refused | Used | Releasing | Released | Lost

_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Event)


class Log(msgspec.Struct, frozen=True):
    """One client process's events, in its order."""

    client: str
    node: str
    events: tuple[Event, ...]


class HistoryWriter:
    """Appends to a log; raises OSError."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def append(self, event: Event) -> None:
        line = _encode(event) + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]


def parse_log(data: bytes) -> Log | None:
    """None: its client ended before it had begun.  Raises ValueError for a line that is no event."""
    events = list(_events(data.split(b"\n")))
    if not events:
        return None
    first = events[0]
    if not isinstance(first, Started):
        raise ValueError("a history that does not begin with a start")
    return Log(first.client, first.node, tuple(events))


def _events(lines: list[bytes]) -> Iterable[Event]:
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is torn, or nothing
        try:
            yield _decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise ValueError(f"line {number} of the history is no event: {error}") from None


def read_logs(directory: Path) -> list[Log]:
    """All of a run's, by name.  Raises OSError, ValueError."""
    logs = (parse_log(path.read_bytes()) for path in sorted(directory.glob("*.jsonl")))
    return [log for log in logs if log is not None]
