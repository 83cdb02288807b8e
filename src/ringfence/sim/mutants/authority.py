"""Without a rule about authority and its expiry."""

from typing import Any

from ringfence.engine.context import Context, Phase
from ringfence.engine.deadlines import Deadlines
from ringfence.engine.node import _Node
from ringfence.engine.state import ClusterState
from ringfence.engine.views import Views
from ringfence.membership.authority import Authority
from ringfence.sim.mutants.table import Change, mutant
from ringfence.sim.mutants.views import old_frames
from ringfence.wire.ring import Heartbeat


@mutant("authority-for-ever", "authority never expires")
def _() -> list[Change]:
    return [
        (Context, "may_report", property(lambda self: True)),
        (Context, "deadlines_ns", lambda self: (1 << 62, 1 << 62)),
    ]


@mutant("authority-of-one", "one member's echo renews authority, not a majority's")
def _() -> list[Change]:
    return [(Authority, "base_ns", lambda self, others_out: max(self._echoed.values(), default=0))]


@mutant(
    "authority-from-receipt",
    "authority counts from the echo's receipt, not from the sending",
    story="clocks",
)
def _() -> list[Change]:
    real = Authority.heard

    def heard(self: Authority, now_ns: int, node: int, heartbeat: Heartbeat) -> None:
        real(self, now_ns, node, heartbeat)
        if node in self._echoed:
            self._echoed[node] = now_ns

    return [(Authority, "heard", heard)]


@mutant("no-grant-authority", "grants are told without grant authority", story="frozen-half")
def _() -> list[Change]:
    return [(Context, "may_report", property(lambda self: True))]


@mutant(
    "alone-without-evidence",
    "one of two renews its authority alone, without evidence about the other",
    story="lie-apart",
)
def _() -> list[Change]:
    return [(ClusterState, "others_out", lambda self, me: True)]


@mutant("one-page", "two incarnations share one authority page", story="restarts")
def _() -> list[Change]:
    def to_first(self: Deadlines, page: tuple[int, str], deadline_ns: int) -> None:
        real(self, (1, page[1]), deadline_ns)

    real = Deadlines._set
    return [(Deadlines, "_set", to_first)]


@mutant(
    "echo-before-barrier",
    "heartbeats are sent and echoed before the barrier is complete",
    story="slow-barrier",
)
def _() -> list[Change]:
    return _echo_early()


@mutant(
    "echo-across-views",
    "heartbeats of earlier views are echoed, and echoes of them count; and nobody waits for the barrier, "
    "without which that rule is never needed",
    story="slow-barrier",
)
def _() -> list[Change]:
    def suspended(self: Authority) -> None:
        pass

    def entered(self: Authority, epoch: object, ready: tuple[int, ...]) -> None:
        self.set_ready(ready)

    return [
        *_echo_early(),
        old_frames(Heartbeat),
        (Authority, "suspended", suspended),
        (Authority, "entered", entered),
    ]


def _echo_early() -> list[Change]:
    def before(self: Any, sender: int, life: Any, item: Any) -> None:
        if isinstance(item, Heartbeat):
            self._context.authority.heard(self._context.now_ns, sender, item)
        real_before(self, sender, life, item)

    def view_changed(self: Any, view: Any) -> None:
        real_changed(self, view)
        self._context.authority.entered(view.epoch, view.members)

    def beat(self: Any) -> None:
        context = self.context
        due_ns = self._sent_ns + context.config.timing.heartbeat_ms * 1_000_000
        if context.phase in (Phase.RUNNING, Phase.BARRIER) and context.now_ns >= due_ns:
            self._sent_ns = context.now_ns
            context.outbox.say(context.authority.sent(context.now_ns))

    real_before, real_changed = Views._before, Views._view_changed
    return [(Views, "_before", before), (Views, "_view_changed", view_changed), (_Node, "_beat", beat)]
