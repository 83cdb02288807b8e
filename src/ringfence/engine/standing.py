"""What keeps this node itself from acting, in words for people; the same for `why` and for `status`.

The ring underneath tells little.  Of a path that is cut between two of three nodes corosync tells nobody
anything, nor does it when it is frozen itself: multicasts go on to succeed.  What a node can see by
itself are its own heartbeats (do they come back, and who answers them), its deadlines, and how often the
ring formed anew."""

from ringfence.core.cluster import ClusterConfig
from ringfence.engine.context import Context, Phase
from ringfence.fencing.explain import clock
from ringfence.membership.barrier import Barrier

_NS_PER_S = 1_000_000_000


def standing(context: Context, barrier: Barrier | None, ring_reason: str) -> list[str]:
    """Why this node cannot act, most important first, and what comes next; nothing if it can.

    Args:
        barrier: of the ring's present view; None without a ring.
        ring_reason: what keeps this node from running, as `Views.why`."""
    me = context.name(context.me)
    if context.phase is not Phase.RUNNING:
        phase = context.phase.value
        lines = [f"{me} cannot act ({phase}): {ring_reason.removeprefix(f'{phase}: ')}"]
        if barrier is not None and not barrier.complete:
            missing = ", ".join(context.name(node) for node in barrier.missing)
            lines.append(f"view {barrier.epoch} waits for {missing} to say that it is ready")
            if _unheard(context, barrier):
                lines.append(_no_delivery(context, context.hearing.view_ns))
            elif barrier.silent(context.config):
                patience_s = context.config.timing.left_out_ms() / 1000
                lines[-1] += f"; after {patience_s:.0f} s it goes on without, and has that fenced"
        return [*lines, *_authority_left(context), f"next: {_next_step(context, barrier)}"]
    if context.vetoed:
        return [
            f"{me} may not act: {context.config.ring} says that it is not quorate, though by ringfence's own "
            "count it is; nothing is granted and nobody fenced here",
            *_authority_left(context),
            "next: see corosync's votes (`corosync-quorumtool -s`); with wait_for_all it waits until every "
            "node was there once",
        ]
    if context.may_report:
        return []
    back_ns = context.authority.own_heartbeat_ns
    lines = [f"{me} has no authority: {_unanswered(context)}"]
    if not context.heartbeat_back:
        lines[0] = f"{me} has no authority: {_no_delivery(context, back_ns or context.hearing.view_ns)}"
        return [*lines, *_authority_left(context), f"next: {_look_at_ring(context.config)}"]
    return [*lines, *_authority_left(context)]


def disarmed_line(context: Context) -> str:
    """That no agent is started for now, so loud that nobody overlooks it; "" while fencing is armed."""
    state = context.state
    if state is None or state.disarmed is None:
        return ""
    disarm = state.disarmed
    why = f", {disarm.why}" if disarm.why else ""
    until = clock(disarm.at_wall_ms + disarm.for_ms) if disarm.at_wall_ms else "its time is over"
    return f"FENCING IS DISARMED by {disarm.who}{why}, until {until}: nobody is fenced"


def restless(context: Context) -> list[str]:
    """The ring forms anew again and again; each time everything stands still for a moment."""
    times, over_s = context.hearing.restless(context.now_ns)
    if not times:
        return []
    return [
        f"the ring re-formed {times} times in {over_s:.0f} s, and nobody joined it or ended: messages get "
        f"lost, or a node sends and does not receive; next: {_look_at_ring(context.config)}"
    ]


def _unheard(context: Context, barrier: Barrier) -> bool:
    """This node's own word in the barrier ought to have come back."""
    detection_ns = context.config.timing.detection_ms * 1_000_000
    return context.me in barrier.missing and context.now_ns - context.hearing.view_ns > detection_ns


def _no_delivery(context: Context, since_ns: int) -> str:
    culprit = {
        "hub": "the ring stands still (`ringfence hub`)",
        "corosync": "corosync does not deliver (it is frozen, or a path between two nodes is cut)",
    }.get(context.config.ring, "the ring does not deliver")
    since_s = (context.now_ns - since_ns) / _NS_PER_S
    me = context.name(context.me)
    return f"messages of {me} do not come back from the ring since {since_s:.1f} s: {culprit}"


def _look_at_ring(config: ClusterConfig) -> str:
    """The command that shows what is wrong with it."""
    if config.ring == "corosync":
        return (
            "on every node: corosync-cfgtool -n; where a peer is not connected mend the network, "
            "where nothing is answered restart corosync"
        )
    return "is `ringfence hub` running, and its socket?"


def _unanswered(context: Context) -> str:
    """Own heartbeats come back; not enough of the others answer them."""
    state = context.running
    assert state is not None
    timing, now_ns = context.config.timing, context.now_ns
    silent = [
        f"{context.name(node)} (for {(now_ns - context.hearing.last_heard_ns(life)) / _NS_PER_S:.1f} s)"
        for node, life in sorted(state.lives.items())
        if node != context.me and context.hearing.silent(life, now_ns, timing.silent_ms)
    ]
    said = f"; in the ring and silent: {', '.join(silent)}" if silent else ""
    if context.config.two_node and not silent:
        return "the other node does not answer, and is not proven fenced yet"
    return f"no majority of {context.config.votes} votes has answered its heartbeats{said}"


def _authority_left(context: Context) -> list[str]:
    """Until when, or since when not any more, locks are granted and writes go through here."""
    if context.config.naive or context.phase in (Phase.STALE, Phase.SHUT_OUT):
        return []
    grant_ns, write_ns = context.deadlines_ns()
    if not write_ns:
        return ["it has had no authority in this life: nothing is granted and nothing written here"]
    grant_s, write_s = ((at_ns - context.now_ns) / _NS_PER_S for at_ns in (grant_ns, write_ns))
    granted = f"locks are granted for {grant_s:.1f} s more"
    if grant_s <= 0:
        granted = f"grant authority ran out {-grant_s:.1f} s ago: nothing is granted here"
    written = f"writes go on for {write_s:.1f} s more, then they are held"
    if write_s <= 0:
        hold_s = context.config.timing.hold_ms / 1000
        written = f"write authority ran out {-write_s:.1f} s ago: writes are held, each for {hold_s:.0f} s"
        if context.config.two_node and context.state is not None and context.state.slots:
            written += ", but where a VG's disk slots carry them"
    return [f"{granted}; {written}"]


def _next_step(context: Context, barrier: Barrier | None) -> str:
    match context.phase:
        case Phase.STARTING | Phase.NO_RING:
            hint = _look_at_ring(context.config)
            if context.config.ring == "corosync":
                hint = "does corosync run (`systemctl status corosync`)?"
            return f"it joins by itself when the ring is back; {hint}"
        case Phase.BARRIER:
            if barrier is not None and _unheard(context, barrier):
                return _look_at_ring(context.config)
            return "a member that does not speak is removed from the ring, or becomes a victim"
        case Phase.SUSPENDED:
            return _how_quorum_comes_back(context, barrier)
        case Phase.JOINING:
            return "it goes on as soon as a ready member has sent the state"
        case Phase.STALE:
            return "it starts again by itself when its volumes are closed; is `ringfence block` running?"
        case _:
            name = context.name(context.me)
            where = f"on a ready member: ringfence why {name}"
            return f"{where}; what was not admitted must be put right and restarted"


def _how_quorum_comes_back(context: Context, barrier: Barrier | None) -> str:
    step = "it goes on by itself when enough of the missing nodes are back"
    if barrier is None:
        return step
    if context.refused and all(node.id in barrier.members for node in context.config.nodes):
        return "it goes on when who is not admitted is put right, and restarted"
    if context.state is not None:
        return step
    # It was started without the others: what they last held, nobody here can know.
    absent = ", ".join(node.name for node in context.config.nodes if node.id not in barrier.members)
    return (
        f"{step}; if {absent} never comes back, make sure that it is off, take it out of the "
        "configuration on every node that is left, and restart their daemons"
    )
