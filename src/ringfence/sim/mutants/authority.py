"""Without a rule about authority and its expiry."""

from ringfence.engine.context import Context
from ringfence.engine.deadlines import Deadlines
from ringfence.engine.state import ClusterState
from ringfence.membership.authority import Authority
from ringfence.sim.mutants.table import Change, mutant
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


@mutant("authority-from-receipt", "authority counts from the echo's receipt, not from the sending")
def _() -> list[Change]:
    real = Authority.heard

    def heard(self: Authority, now_ns: int, node: int, heartbeat: Heartbeat) -> None:
        real(self, now_ns, node, heartbeat)
        if node in self._echoed:
            self._echoed[node] = now_ns

    return [(Authority, "heard", heard)]


@mutant("no-grant-authority", "grants are told without grant authority")
def _() -> list[Change]:
    return [(Context, "may_report", property(lambda self: True))]


@mutant(
    "alone-without-evidence",
    "one of two renews its authority alone, without evidence about the other",
    story="lie-apart",
)
def _() -> list[Change]:
    return [(ClusterState, "others_out", lambda self, me: True)]


@mutant("one-page", "two incarnations share one authority page")
def _() -> list[Change]:
    def to_first(self: Deadlines, page: tuple[int, str], deadline_ns: int) -> None:
        real(self, (1, page[1]), deadline_ns)

    real = Deadlines._set
    return [(Deadlines, "_set", to_first)]
