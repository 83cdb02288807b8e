"""The checker of lock histories: what all clients saw, held against what a lock manager promises.

1. Mutual exclusion, on beliefs.  A client looks at its lock (held, authority valid) before each use and
   at the page after it.  The use is *sure* until its end if authority was valid then too: a page never
   comes back from lost, and authority that was renewed was never anybody else's.  Where it had lapsed,
   the use is sure until the deadline; where it was lost, only at its first instant (a daemon that comes
   back takes authority away at any time).  Sure uses under modes that are not compatible may not overlap,
   on one host neither.  What a use does after it is sure is the one operation in flight that
   docs/ARCHITECTURE.md grants to a process that stood still: counted as late, and as a clash where it
   overlapped a sure use of somebody else.
2. Tokens.  A grant that was asked for after an incompatible one of the same resource had been received
   has a greater token; on one node, which keeps its own, not a smaller one.
3. Value blocks.  In the order of tokens (on one node: of receipt), each reading under a lock that shuts
   out writers is the last value that was written and acknowledged, or one that was sent since without an
   answer, or "not valid".  A block of zeroes instead of an acknowledged value is the resource's end and
   new beginning, which needs an instant at which no client held any lock of it.

Pure.  Source of 3: docs of the DLM's value blocks, and `locks.resource`."""

from collections.abc import Sequence

import msgspec

from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.lab.torture.history import (
    After,
    Asked,
    Converting,
    Granted,
    Log,
    Lost,
    Refused,
    Released,
    Releasing,
    Started,
    Used,
)
from ringfence.locks.compat import compatible

ZEROES = "00" * 32


class Use(msgspec.Struct, frozen=True):
    client: str
    mode: Mode
    began_ns: int
    sure_ns: int
    """Until when it is sure that the lock was its own."""
    ended_ns: int


class Grant(msgspec.Struct, frozen=True):
    client: str
    node: str
    mode: Mode
    token: Token
    asked_ns: int
    granted_ns: int


class Reading(msgspec.Struct, frozen=True):
    """A grant of a mode that shuts out writers, and what was written under it."""

    grant: Grant
    value: str | None
    """None: not valid."""
    written: str | None = None
    acknowledged_ns: int = 0
    """0: it was not."""


class Span(msgspec.Struct, frozen=True):
    """An operation that is known to have held some mode, NL at least, from one instant to another."""

    began_ns: int
    ended_ns: int


class Story(msgspec.Struct):
    """All that happened to one resource."""

    uses: list[Use] = []
    grants: list[Grant] = []
    readings: list[Reading] = []
    spans: list[Span] = []


class Verdict(msgspec.Struct, frozen=True):
    violations: tuple[str, ...]
    grants: int
    uses: int
    late_uses: int
    """Went on after authority had ended."""
    clashes: int
    """Late ones during which somebody else used the resource."""
    writes: int
    """Of value blocks, acknowledged."""
    not_valid: int
    """Readings that said so."""
    longest_wait_ms: int
    """Of a grant, without a limit of the client's own."""


def check(logs: Sequence[Log], counters: Sequence[str]) -> Verdict:
    """Args: counters: names of resources whose value blocks are checked, in every lockspace.

    Raises ValueError for a history that no client can have written."""
    stories: dict[tuple[str, str], Story] = {}
    longest_ms = 0
    for log in logs:
        longest_ms = max(longest_ms, _read(log, stories, counters))
    violations: list[str] = []
    late = clashes = 0
    for (space, resource), story in sorted(stories.items()):
        what = f"{space}/{resource}"
        violations += [f"{what}: {one}" for one in overlaps(story.uses)]
        violations += [f"{what}: {one}" for one in tokens(story.grants)]
        violations += [f"{what}: {one}" for one in values(story.readings, story.spans)]
        late += sum(1 for use in story.uses if use.sure_ns < use.ended_ns)
        clashes += len(_clashes(story.uses))
    readings = [one for story in stories.values() for one in story.readings]
    return Verdict(
        tuple(violations),
        sum(len(story.grants) for story in stories.values()),
        sum(len(story.uses) for story in stories.values()),
        late,
        clashes,
        sum(1 for one in readings if one.acknowledged_ns),
        sum(1 for one in readings if one.value is None),
        longest_ms,
    )


# -- 1: mutual exclusion -----------------------------------------------------------------


def overlaps(uses: Sequence[Use]) -> list[str]:
    """One line for each pair of sure uses that may not be."""
    found = []
    running: list[Use] = []
    for use in sorted(uses, key=lambda one: one.began_ns):
        running = [one for one in running if one.sure_ns >= use.began_ns]
        for one in running:
            if one.client != use.client and not compatible(one.mode, use.mode):
                both_ms = (min(one.sure_ns, use.sure_ns) - use.began_ns) / 1e6
                found.append(
                    f"used {one.mode.name} by {one.client} and {use.mode.name} by {use.client} at once, "
                    f"for {both_ms:.3f} ms from {use.began_ns} on"
                )
        running.append(use)
    return found


def _clashes(uses: Sequence[Use]) -> list[tuple[Use, Use]]:
    """(late use, sure use of another client after it was sure)."""
    late = [use for use in uses if use.sure_ns < use.ended_ns]
    return [
        (one, other)
        for one in late
        for other in uses
        if other is not one
        and not compatible(one.mode, other.mode)
        and one.sure_ns < other.sure_ns
        and other.began_ns < one.ended_ns
    ]


# -- 2: tokens -----------------------------------------------------------------------------


def tokens(grants: Sequence[Grant]) -> list[str]:
    """One line for each grant whose token is not above those of its predecessors."""
    found = []
    highest: dict[tuple[str, Mode], Grant] = {}
    """Per node and mode, of those received so far."""
    waiting = sorted(grants, key=lambda grant: grant.asked_ns)
    received = sorted(grants, key=lambda grant: grant.granted_ns)
    at = 0
    for grant in waiting:
        while received[at].granted_ns < grant.asked_ns:
            key = (received[at].node, received[at].mode)
            if key not in highest or highest[key].token < received[at].token:
                highest[key] = received[at]
            at += 1
        for (node, mode), earlier in highest.items():
            if compatible(mode, grant.mode):
                continue
            if earlier.token > grant.token or (earlier.token == grant.token and node != grant.node):
                found.append(
                    f"{grant.client} asked for {grant.mode.name} after {earlier.client} had {mode.name} "
                    f"with token {earlier.token}, and got {grant.token}"
                )
    return found


# -- 3: value blocks -------------------------------------------------------------------------


def values(readings: Sequence[Reading], spans: Sequence[Span]) -> list[str]:
    """One line for each reading that returned what it should not."""
    found = []
    possible, known_ns = {ZEROES}, 0
    for one in sorted(readings, key=lambda reading: (reading.grant.token, reading.grant.granted_ns)):
        if one.value is not None:
            ended = one.value == ZEROES and _unheld(spans, known_ns, one.grant.granted_ns)
            if one.value not in possible and not ended:
                told = " or ".join(sorted(map(_short, possible)))
                found.append(
                    f"{one.grant.client} read {_short(one.value)} with token {one.grant.token}, not {told}"
                )
            possible, known_ns = {one.value}, one.grant.granted_ns
        if one.acknowledged_ns and one.written is not None:
            possible, known_ns = {one.written}, one.acknowledged_ns
        elif one.written is not None:
            possible = {*possible, one.written}
    return found


def _unheld(spans: Sequence[Span], from_ns: int, to_ns: int) -> bool:
    """Whether there was an instant between the two at which nobody is known to have held any lock."""
    reached_ns = from_ns
    for span in sorted(spans, key=lambda one: one.began_ns):
        if span.began_ns > reached_ns or reached_ns >= to_ns:
            break
        reached_ns = max(reached_ns, span.ended_ns)
    return reached_ns < to_ns


def _short(value: str) -> str:
    text = bytes.fromhex(value).rstrip(b"\0").decode(errors="replace")
    return repr(text) if text else "zeroes"


# -- from logs to stories ---------------------------------------------------------------------


class _Op(msgspec.Struct):
    """An operation as far as its log was read."""

    story: Story
    counts: bool
    asked: Asked | Converting
    span: Span | None = None
    """None: it holds nothing (yet, or any more)."""


def _read(log: Log, stories: dict[tuple[str, str], Story], counters: Sequence[str]) -> int:
    """Add a log's events to the stories; the longest wait in it, in ms.  Raises ValueError."""
    ops: dict[int, _Op] = {}
    longest_ns = 0
    for event in log.events:
        if isinstance(event, Started):
            continue
        if isinstance(event, Asked):
            story = stories.setdefault((event.space, event.resource), Story())
            ops[event.op] = _Op(story, event.resource in counters, event)
            continue
        op = ops.get(event.op)
        if op is None:
            raise ValueError(f"{log.client}: an event of no operation: {event}")
        match event:
            case Converting():
                op.asked = event
                _sent(op, log, event)
            case Granted():
                if op.asked.wait_ms is None:
                    longest_ns = max(longest_ns, event.at_ns - op.asked.at_ns)
                _granted(op, log, event)
            case Used():
                _used(op, log, event)
            case Releasing() | Lost():
                _over(op)
            case Refused() | Released():
                pass  # a node that is cut off refuses, too: that says nothing of what is still held
    for op in ops.values():
        _over(op)
    return longest_ns // 1_000_000


def _sent(op: _Op, log: Log, event: Converting) -> None:
    """A value block goes out, under the newest reading's lock."""
    if not op.counts or event.writes is None:
        return
    last = op.story.readings[-1] if op.story.readings else None
    if last is None or last.grant.client != log.client:
        raise ValueError(f"{log.client}: a value block is written without a lock: {event}")
    op.story.readings[-1] = msgspec.structs.replace(last, written=event.writes)


def _granted(op: _Op, log: Log, event: Granted) -> None:
    mode = Mode[event.mode]
    if op.counts and isinstance(op.asked, Converting) and op.asked.writes is not None:
        last = op.story.readings[-1]
        op.story.readings[-1] = msgspec.structs.replace(last, acknowledged_ns=event.at_ns)
    grant = Grant(log.client, log.node, mode, Token.parse(event.token), op.asked.at_ns, event.at_ns)
    op.span = Span(op.span.began_ns if op.span else event.at_ns, event.at_ns)
    op.story.grants.append(grant)
    if op.counts and not compatible(mode, Mode.PW):
        op.story.readings.append(Reading(grant, event.value))


def _used(op: _Op, log: Log, event: Used) -> None:
    if op.span is None:
        raise ValueError(f"{log.client}: a use without a lock: {event}")
    use = _use(log, event)
    op.story.uses.append(use)
    op.span = msgspec.structs.replace(op.span, ended_ns=max(op.span.ended_ns, use.sure_ns))


def _over(op: _Op) -> None:
    """It held something until it was last heard of."""
    if op.span is not None:
        op.story.spans.append(op.span)
        op.span = None


def _use(log: Log, event: Used) -> Use:
    sure_ns = {
        After.VALID: event.ended_ns,
        After.LAPSED: max(event.began_ns, min(event.ended_ns, event.until_ns)),
        After.LOST: event.began_ns,
    }[event.after]
    return Use(log.client, Mode[event.mode], event.began_ns, sure_ns, event.ended_ns)
