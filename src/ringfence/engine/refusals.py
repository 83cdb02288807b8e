"""Why members of a view are not admitted, in words that name the next step.

Every member says the same of every other: so whoever is asked can tell."""

from ringfence.engine.context import Context
from ringfence.membership.barrier import Barrier, Verdict
from ringfence.wire import UNSAID


def refusals(context: Context, barrier: Barrier, verdict: Verdict) -> dict[int, str]:
    """Member -> why it has no part in this view; once its barrier is complete."""
    found = {node: _differs(context, barrier, node) for node in verdict.differs}
    return found | {node: _foreign(context, barrier, verdict, node) for node in verdict.foreign}


def _differs(context: Context, barrier: Barrier, node: int) -> str:
    ready = barrier.ready(node)
    assert ready is not None
    return (
        f"{context.name(node)} has another configuration than the cluster (version {ready.config_version}): "
        "it is not admitted; compare with: ringfence config show"
    )


def _foreign(context: Context, barrier: Barrier, verdict: Verdict, node: int) -> str:
    """A node that is too old is upgraded; for one that is too new the others are."""
    others = [one for one in barrier.members if one not in (*verdict.differs, *verdict.foreign)]
    speaks = {one: word.speaks for one in (node, *others) if (word := barrier.ready(one)) is not None}
    mine, protocol = speaks[node], verdict.protocol
    if mine == UNSAID:
        return (
            f"{context.name(node)} does not say which protocols it speaks: its ringfence is too old to be in "
            "one cluster with this one; it is not admitted; stop it there, upgrade it, start it again"
        )
    if mine.high < protocol:
        step = f"upgrade ringfence on {context.name(node)} to one that speaks protocol {protocol}"
    else:
        old = [context.name(one) for one in others if speaks[one].high < mine.low]
        step = f"upgrade {', '.join(old) or 'the other nodes'} first, or start an older ringfence there"
    low, high = max(speaks[one].low for one in others), min(speaks[one].high for one in others)
    can = f"protocol {low}" if low == high else f"protocols {low} to {high}"
    return (
        f"{context.name(node)} speaks {mine} and the cluster protocol {protocol} (its members can: {can}): "
        f"it is not admitted; {step}"
    )
