"""Effects: orders that `Node.step` returns; the driver carries them out in order.

`Keep` is a barrier: what follows it must not happen before it is on stable storage."""

from typing import Any

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.engine.inputs import DiskState
from ringfence.engine.orders import DriverOrder
from ringfence.wire.client import Reply
from ringfence.wire.lvmlockd import LvmAnswered, LvmLock

LOST = 0
"""A deadline page's value for ever after: authority lost, fail writes."""
LAPSED = 1
"""A deadline in the past: authority lapsed, hold writes until it is renewed."""
UNCHECKED = (1 << 64) - 1
"""Naive mode: always valid."""


class _Effect(msgspec.Struct, frozen=True):
    pass


class Multicast(_Effect, frozen=True):
    payload: bytes


class Keep(_Effect, frozen=True):
    """Store on disk (write to a new file, fsync, rename, fsync the directory)."""

    disk: DiskState


class KeepConfig(_Effect, frozen=True):
    """An ordered entry changed the configuration: write it over this node's own file."""

    config: ClusterConfig


class KeepLvmLocks(_Effect, frozen=True):
    """Note which locks stock LVM2 has through this node, where the next daemon of this boot finds them.

    A lock is noted after it is granted and before anybody is told; it is struck off, or noted in the lower
    mode, before its release or its conversion downward is said: what is noted is held, whenever a daemon is
    killed."""

    kept: tuple[LvmLock, ...] = ()
    """New ones, and those whose mode or token is another now."""
    gone: tuple[LvmLock, ...] = ()
    """Only their `key` counts."""


class WatchProcess(_Effect, frozen=True):
    """Say when this process has ended; at once, if it has.  Answer: inputs.ProcessEnded."""

    pid: int
    started: int
    """In clock ticks since boot (/proc/PID/stat, field 22)."""


class SetDeadline(_Effect, frozen=True):
    """Store an aligned u64 in the authority page.  page: "grant", or "vg/NAME"."""

    incarnation: int
    page: str
    deadline_ns: int


class RunAgent(_Effect, frozen=True):
    """Run a configured device's agent once.  Answer: inputs.AgentExited(run)."""

    run: int
    device: str
    action: str
    """off | on | status | list."""
    timeout_ms: int
    nodename: str
    parameters: dict[str, str] = {}
    """Of the plug that is meant: handed to the agent over the device's own."""


class CancelAgent(_Effect, frozen=True):
    """Kill the run's whole process group.  AgentExited still follows."""

    run: int


class DoOrder(_Effect, frozen=True):
    """Carry out a storage or block order.  Answer: inputs.OrderDone(order)."""

    order: int
    body: DriverOrder


class DropPaths(_Effect, frozen=True):
    """Close every data path now, without flush; writes fail.  Answer: inputs.PathsDropped."""

    generation: int


class Answer(_Effect, frozen=True):
    client: int
    reply: Reply


class LvmAnswer(_Effect, frozen=True):
    """To a request of stock LVM2."""

    client: int
    answered: LvmAnswered


class Note(_Effect, frozen=True):
    """One line for the daemon's log alone: what may come by the thousand, and nobody looks up later."""

    kind: str
    what: str


class CallAgain(_Effect, frozen=True):
    """There is more to do than one step should do: call again soon, but let others have their turn.

    At most one is out.  Answer: inputs.CalledAgain."""


class TickAt(_Effect, frozen=True):
    """There is something to do at that time, and no tick may be due just then.  Answer: inputs.Tick.

    Nothing is taken back: a tick that came for nothing changes nothing."""

    at_ns: int


class Record(_Effect, frozen=True):
    """Append an event to the history.  `kind` is a stable word; `fields` JSON-able."""

    kind: str
    what: str
    """One line for people."""
    fields: dict[str, Any]


class Trace(_Effect, frozen=True):
    """Log where in the code a command has met a fault of ringfence itself; the daemon goes on."""

    error: Exception


class Ended(_Effect, frozen=True):
    """The daemon should end (clean leave done, or a state that must not go on)."""

    reason: str
    failed: bool = False


Effect = (
    Multicast | Keep | KeepConfig | KeepLvmLocks | WatchProcess | SetDeadline | RunAgent | CancelAgent
    | DoOrder | DropPaths | Answer | LvmAnswer | Note | CallAgain | TickAt | Record | Trace | Ended
)  # fmt: skip
