"""The error tree, by whose fault it is.  Every error is one line and says what to do next.

Exit codes follow LVM2: 3 bad command line, 5 refused or failed."""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes long to load, and quick commands need nothing else of it
if TYPE_CHECKING:
    from typing import Any

EXIT_OK = 0
EXIT_BAD_COMMAND = 3
EXIT_FAILED = 5


def printable(text: str) -> str:
    """One line that can be shown and sent, whatever bytes it came from."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class RingfenceError(Exception):
    """Base.  `code` is a stable word for programs; `next` tells a person the next step.

    Args:
        message: one line, naming the node, volume or device.  Names that people gave or disks have may be
            anything: what of it cannot be printed is escaped here, in `next` likewise.
        node: the node that the message is about, or that can help.
        next: the command or action that gets the user further.
        retry: whether repeating the same request later may succeed unchanged.
    """

    code = "failed"
    exit_code = EXIT_FAILED

    def __init__(
        self, message: str, *, node: str = "", next: str = "", retry: bool = False, code: str = ""
    ) -> None:
        self.message = printable(message)
        super().__init__(self.message)
        self.node = node
        self.next = printable(next)
        self.retry = retry
        if code:
            self.code = code

    def as_dict(self) -> dict[str, Any]:
        """The JSON shape: code, message, node, next, retry."""
        return {
            "code": self.code,
            "message": self.message,
            "node": self.node,
            "next": self.next,
            "retry": self.retry,
        }

    def __str__(self) -> str:
        return f"{self.message}{'; ' + self.next if self.next else ''}"


class BadInput(RingfenceError):
    """The caller's fault: a name, size, option or file that cannot be right."""

    code = "bad-input"


class BadName(BadInput):
    """A name that no VG or LV may be given, whatever there is: LVM2 finds that out from the words alone."""

    code = "bad-name"
    exit_code = EXIT_BAD_COMMAND


class ConfigError(BadInput):
    code = "bad-config"


class NotFound(BadInput):
    code = "not-found"


class Refused(RingfenceError):
    """Nobody's fault: the rules say no, for now (a lock is held, a lockspace is frozen)."""

    code = "refused"


class LockHeld(Refused):
    """Another node or client holds a conflicting lock; the message names it."""

    code = "lock-held"


class Deadlock(Refused):
    code = "deadlock"


class TimedOut(Refused):
    code = "timed-out"


class LocksLost(Refused):
    """This node went stale: its locks are gone and its data paths were dropped."""

    code = "locks-lost"


class NoAuthority(Refused):
    """This node's authority has lapsed; no grant may be reported and no write let through."""

    code = "no-authority"


class VgChanged(Refused):
    """The VG's metadata is not what it was when this host last read it."""

    code = "vg-changed"


class Unavailable(RingfenceError):
    """The daemon, ring or block service cannot be reached."""

    code = "unavailable"


class Damaged(RingfenceError):
    """Bytes on a disk are not what they must be.  Nothing was written."""

    code = "damaged"


class DeviceFailed(RingfenceError):
    """Reading or writing a device failed."""

    code = "device-failed"


class InternalError(RingfenceError):
    """A command met a fault of ringfence itself; what it had done stands as after a crash in its midst."""

    code = "internal"


KINDS: dict[str, type[RingfenceError]] = {
    kind.code: kind
    for kind in (
        RingfenceError, BadInput, BadName, ConfigError, NotFound, Refused, LockHeld, Deadlock,
        TimedOut, LocksLost, NoAuthority, VgChanged, Unavailable, Damaged, DeviceFailed, InternalError,
    )
}  # fmt: skip


def from_dict(fields: dict[str, Any]) -> RingfenceError:
    """Rebuild an error that crossed a socket.  Unknown codes become the base class."""
    kind = KINDS.get(str(fields.get("code", "")), RingfenceError)
    return kind(
        str(fields.get("message", "failed")),
        node=str(fields.get("node", "")),
        next=str(fields.get("next", "")),
        retry=bool(fields.get("retry", False)),
        code=str(fields.get("code", "failed")),
    )
