"""Operators' requests about fencing and machines: ordered for all (`words`), answered once applied.

Whoever stood still must not act for a word of the past: an order to fence is refused if the daemon finds it
late in its socket."""

from collections.abc import Callable

from ringfence.core.errors import BadInput, Refused
from ringfence.engine import fence_report
from ringfence.engine.arming import Arming
from ringfence.engine.context import Context
from ringfence.engine.reports import Doing
from ringfence.engine.state import ClusterState
from ringfence.engine.words import why_no_order, why_not_forgotten
from ringfence.wire import FENCING, entries
from ringfence.wire import client as calls
from ringfence.wire.client import Reply

Await = Callable[[entries.Entry, Callable[[], None]], None]
Send = Callable[[int, Reply], None]
LONGEST_MS = 7 * 86_400_000
SHORTEST_MS = 1_000
ACTIONS = ("", "off", "reboot")


class Operator:
    """Args:
    doing: what this node's own attempt on a victim waits for just now.
    wait: submits an entry, and calls back when it was applied (or this life is over).
    send: sends a reply to a client.
    must_act: raises Refused if this node cannot take part in anything for now."""

    def __init__(
        self,
        context: Context,
        arming: Arming,
        doing: Doing,
        wait: Await,
        send: Send,
        must_act: Callable[[], None],
    ) -> None:
        self._context = context
        self._arming = arming
        self._doing = doing
        self._wait = wait
        self._send = send
        self._must_act = must_act

    def asked(self, client: int, id: str, call: calls.Call, who: str) -> None:
        """Raises RingfenceError."""
        if isinstance(call, calls.FenceStatus):
            node = self._context.node_named(call.node) if call.node else None
            found = fence_report.report(self._context, self._arming, node, self._doing)
            self._send(client, Reply(id, result=found))
            return
        self._must_act()
        state = self._state()
        match call:
            case calls.FenceNode():
                self._fence(state, client, id, call, who)
            case calls.FenceDisarm():
                self._disarm(state, client, id, call, who)
            case calls.FenceArm():
                self._arm(state, client, id, call, who)
            case calls.NodeReenrol():
                self._re_enrol(state, client, id, call, who)

    def _fence(self, state: ClusterState, client: int, id: str, call: calls.FenceNode, who: str) -> None:
        context, node = self._context, self._context.node_named(call.node)
        if call.action not in ACTIONS:
            raise BadInput(f'action "{call.action}" is not known', next='give "off" or "reboot"')
        late_ms = (context.now_ns - call.asked_ns) // 1_000_000
        if late_ms > context.config.timing.silent_ms:
            raise Refused(
                f"{call.node} is not fenced: the order was found {late_ms / 1000:.0f} s after it was given",
                next="order it again",
                retry=True,
            )
        why, cure = why_no_order(state, node)
        if why:
            raise Refused(f"{call.node} is not fenced: {why}", node=call.node, next=cure)
        order = entries.FenceOrdered(
            id, node, state.lives.get(node), call.action, named(call.who, who), call.why
        )

        def answer() -> None:
            given = [one for one in context.state.orders if one.id == id] if context.state else []
            if given or node == context.me:
                lives = [str(one.life) for one in given] or [str(order.life)]
                result = {"node": call.node, "order": id, "lives": lives}
                self._send(client, Reply(id, result=result))
                return
            error = Refused(
                f"{call.node} changed while it was ordered fenced: nothing was done",
                next=f"ringfence fence status {call.node}, then order it again",
                retry=True,
            )
            self._send(client, Reply(id, error=error.as_dict()))

        self._wait(order, answer)

    def _disarm(
        self, state: ClusterState, client: int, id: str, call: calls.FenceDisarm, who: str
    ) -> None:
        if not SHORTEST_MS <= call.for_ms <= LONGEST_MS:
            raise BadInput(
                f"fencing cannot be disarmed for {call.for_ms} ms", next="give between 1 s and 7 days"
            )
        drills = Refused(
            "a drill goes on, and would leave an outlet off", next="wait for its end, then disarm", retry=True
        )
        if state.drill is not None:
            raise drills
        current = state.disarmed
        if current is not None and self._arming.left_ms(current, state.wall_ms) > call.for_ms:
            raise Refused(  # somebody's hands may be in the rack for as long as was said
                f"{current.who} has disarmed fencing for longer than that",
                next="ringfence fence status; ringfence fence arm ends it",
            )

        def answer() -> None:
            found = fence_report.disarmed(self._context, self._arming)
            done = Reply(id, result={"disarmed": found})
            self._send(client, done if found else Reply(id, error=drills.as_dict()))

        self._wait(entries.Disarmed(call.for_ms, named(call.who, who), call.why), answer)

    def _arm(self, state: ClusterState, client: int, id: str, call: calls.FenceArm, who: str) -> None:
        if state.disarmed is None:
            raise Refused("fencing is not disarmed: nothing to arm", next="ringfence fence status")
        reply = Reply(id, result={"disarmed": None})
        self._wait(entries.Armed(named(call.who, who)), lambda: self._send(client, reply))

    def _re_enrol(self, state: ClusterState, client: int, id: str, call: calls.NodeReenrol, who: str) -> None:
        node = self._context.node_named(call.node)
        machine = state.enrolled.get(node, "")
        if not machine:
            raise Refused(
                f"no machine is enrolled as {call.node}: the next to join will be", next="ringfence status"
            )
        why, cure = why_not_forgotten(state, node)
        if why:
            raise Refused(f"{call.node} keeps its machine: {why}", node=call.node, next=cure)
        reply = Reply(id, result={"node": call.node, "machine": machine})
        entry = entries.MachineForgotten(node, machine, named(call.who, who), call.why)
        self._wait(entry, lambda: self._send(client, reply))

    def _state(self) -> ClusterState:
        state = self._context.must_act()
        if state.protocol < FENCING:
            raise Refused(
                f"this needs protocol {FENCING}, and the cluster speaks {state.protocol}",
                next="upgrade every node (ringfence status)",
                retry=True,
            )
        return state


def named(given: str, credentials: str) -> str:
    """Who says so: by his own word, and by what the socket knows of him."""
    return f"{given} ({credentials})" if credentials and credentials != given else given
