"""Facts: what `ClusterState` returns when it applies an entry.

Every node computes the same facts at the same position; each acts on those that concern it."""

from typing import Any

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.ids import Life, Token
from ringfence.locks.resource import Effect as LockEffect
from ringfence.locks.resource import Granted, Released
from ringfence.wire.checkup import HostFacts
from ringfence.wire.entries import AskHandover, ClientLock, VgDelta
from ringfence.wire.proving import DrillKind, UseTest


class _Fact(msgspec.Struct, frozen=True):
    pass


class LockFact(_Fact, frozen=True):
    """A resource's effect for the node `effect.owner`; `token` belongs to a grant."""

    lockspace: str
    resource: str
    effect: LockEffect
    token: Token | None = None


class LockFacts(_Fact, frozen=True):
    """The same effect of each of these resources, for the node `effect.owner`, which is alone there."""

    lockspace: str
    resources: tuple[str, ...]
    effect: Granted | Released
    tokens: tuple[Token, ...] = ()
    """Of grants: one each, all of one epoch."""


class Retokened(_Fact, frozen=True):
    """A lock that this node was granted in an earlier epoch has a token of this one."""

    lockspace: str
    resource: str
    node: int
    token: Token


class JoinSeen(_Fact, frozen=True):
    """A node joined a lockspace; every other ready node must acknowledge it."""

    lockspace: str
    life: Life


class JoinDone(_Fact, frozen=True):
    lockspace: str
    node: int


class SpaceLeft(_Fact, frozen=True):
    """The node left the lockspace; `refused` says why it did not."""

    lockspace: str
    node: int
    refused: str = ""


class AttemptGranted(_Fact, frozen=True):
    """The actor's AttemptBegan was applied: it may run the level now."""

    life: Life
    actor: int
    level: int
    number: int


class PowerOnGranted(_Fact, frozen=True):
    """The actor's PowerOnBegan was applied: it may switch on now."""

    life: Life
    actor: int
    number: int


class VictimGone(_Fact, frozen=True):
    """No agent needs to run for this life any more (proven, purged or cleared)."""

    life: Life


class Left(_Fact, frozen=True):
    """A clean goodbye was applied."""

    node: int


class Expelled(_Fact, frozen=True):
    """The life was removed by an ordered entry (Suspect, FenceOrdered): it is stale from here on."""

    life: Life
    why: str = "the others did not hear this node's daemon"


class NotAdmitted(_Fact, frozen=True):
    """A member of the view is not let in: who it is, or what it is ordered to, forbids it."""

    node: int
    why: str


class VgChanged(_Fact, frozen=True):
    vg: str
    seqno: int
    crc: int
    what: str
    by: int
    delta: VgDelta | None = None
    removed: bool = False


class ConfigAccepted(_Fact, frozen=True):
    config: ClusterConfig


class ConfigRefused(_Fact, frozen=True):
    node: int
    why: str


class DeadlockSought(_Fact, frozen=True):
    """Every node tells `by` of its own waits, as they are now."""

    by: Life
    number: int


class WaitsTold(_Fact, frozen=True):
    """A node's answer to a search of `by`."""

    by: Life
    number: int
    node: int
    locks: tuple[ClientLock, ...]


class HostsAsked(_Fact, frozen=True):
    """Every node tells `by` what its host looks like."""

    by: Life
    number: int


class HostHeard(_Fact, frozen=True):
    """A node's answer to `by`, who had asked."""

    by: Life
    number: int
    node: int
    facts: HostFacts


class TestsAsked(_Fact, frozen=True):
    """Every node, in its turn, tries whether it could fence."""

    by: Life
    number: int
    target: str
    turns: tuple[int, ...]


class TestsHeard(_Fact, frozen=True):
    """A node's answer to `by`, who had asked."""

    by: Life
    number: int
    node: int
    results: tuple[UseTest, ...]


class DrillGranted(_Fact, frozen=True):
    """The drill may begin: its actor switches."""

    actor: Life


class DrillOver(_Fact, frozen=True):
    """The drill ended, or (with `refused`) did not begin."""

    actor: Life
    kind: DrillKind
    node: int
    passed: bool = False
    verdict: str = ""
    lines: tuple[str, ...] = ()
    refused: bool = False


class RefreshAsked(_Fact, frozen=True):
    """These nodes reload an LV's table and tell `by`."""

    by: Life
    number: int
    vg: str
    lv: str
    uuid: str
    nodes: tuple[int, ...]


class RefreshHeard(_Fact, frozen=True):
    """A node's answer to `by`, who had asked."""

    by: Life
    number: int
    node: int
    failed: str


class HandoverAsked(_Fact, frozen=True):
    """The taker is asked for the next step of a hand-over."""

    by: Life
    """The giver."""
    taker: int
    ask: AskHandover


class HandoverHeard(_Fact, frozen=True):
    """The answer to `by`, who had asked: the taker's, or the order's own."""

    by: Life
    number: int
    failed: str


class Noted(_Fact, frozen=True):
    """Worth a line in every node's history."""

    kind: str
    what: str
    fields: dict[str, Any]


Fact = (
    LockFact | LockFacts | Retokened | JoinSeen | JoinDone | SpaceLeft | AttemptGranted | PowerOnGranted
    | VictimGone | Left | Expelled | NotAdmitted | VgChanged | ConfigAccepted | ConfigRefused
    | DeadlockSought | WaitsTold | HostsAsked | HostHeard | TestsAsked | TestsHeard | DrillGranted | DrillOver
    | RefreshAsked | RefreshHeard | HandoverAsked | HandoverHeard | Noted
)  # fmt: skip
