"""The acting member: when it may start an agent, and how long it waits between rounds.

It needs no authority (the lone half of two has none until there is evidence; to ask for it would
block both for ever).  It does need to be sure that it is itself no ghost: a ready member of a
primary view, whose own heartbeat came back through the ring just now, and whose clock ran without
a gap for one detection time.  A host that was frozen must not wake up and shoot."""

from ringfence.core.cluster import Timing

BACKOFF_MAX_MS = 30_000


def backoff_ms(round: int, timing: Timing) -> int:
    """The pause after every level of a turn has failed: doubles with each round, up to 30 s.

    Between the levels of one turn there is none."""
    return min(timing.backoff_ms << min(round, 16), max(BACKOFF_MAX_MS, timing.backoff_ms))


def heartbeat_back(own_heartbeat_ns: int, now_ns: int, timing: Timing) -> bool:
    """Did an own heartbeat, sent within the last token time, come back?  0 = none ever did."""
    return own_heartbeat_ns > 0 and now_ns - own_heartbeat_ns < timing.token_ms * 1_000_000


def why_not_start(*, ready: bool, primary: bool, heartbeat_back: bool, calm: bool) -> str:
    """What keeps this node from starting an agent, for people; empty = nothing."""
    if not primary:
        return "this node is in no primary view"
    if not ready:
        return "this node is not ready"
    if not heartbeat_back:
        return "its own heartbeat did not come back through the ring"
    if not calm:
        return "its own clock had a gap just now"
    return ""


def may_start(*, ready: bool, primary: bool, heartbeat_back: bool, calm: bool) -> bool:
    """May this node start a fence agent now?"""
    return not why_not_start(ready=ready, primary=primary, heartbeat_back=heartbeat_back, calm=calm)
