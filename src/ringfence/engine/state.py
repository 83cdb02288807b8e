"""The ordered state: what every ready node of a primary view agrees on.

Pure and deterministic: nodes that apply the same entries hold the same bytes, so any node can
answer who holds what, who waits for what, and who must be fenced.  Nothing here reads a clock:
dates come with the entries, and time itself reaches the state only as facts that nodes witness
(`VictimDue`, `BoundPassed`).

What changes it: `apply` (entries, with `spaces` for locks), `arrivals` (views), `losses` (who must be
fenced, and what becomes of what they held)."""

from typing import Any

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.ids import Epoch, Life
from ringfence.core.locknames import VG_SPACE, vg_of
from ringfence.fencing.domain import Domain, Victim
from ringfence.fencing.drills import Drill
from ringfence.fencing.power_on import PowerOn
from ringfence.fencing.proving import Kept
from ringfence.locks.lockspace import Lockspace
from ringfence.locks.resource import Resource
from ringfence.locks.table import Resources
from ringfence.wire.entries import HandoverStep, Incident
from ringfence.wire.proving import DrillKind
from ringfence.wire.ring import Submitted

INCIDENTS_KEPT = 100
ORDERS_KEPT = 16
ABSENT = "absent-"


class VgVersion(msgspec.Struct):
    seqno: int
    crc: int
    what: str
    by: int


class Sender(msgspec.Struct):
    """How far a life's submissions were applied, so that a repeated one counts once."""

    life: Life
    seq: int


class GivenUp(msgspec.Struct):
    """A victim that was given up in some lockspaces; for the others its mark must be on a disk first."""

    life: Life
    lockspaces: list[str]
    """Those it was in and is given up in."""


class FenceOrder(msgspec.Struct):
    """A person's order to fence a life.  Open as long as that life is a victim."""

    id: str
    life: Life
    action: str
    """off | reboot; empty: as the configuration says."""
    who: str
    why: str
    at_wall_ms: int


class Disarm(msgspec.Struct):
    """Maintenance: no agent is started."""

    number: int
    """Its place in the order: no other has it."""
    for_ms: int
    who: str
    why: str
    at_wall_ms: int
    expired: list[int] = []
    """Ready members on whose clocks its time is over."""


class Handover(msgspec.Struct):
    """An LV that is on its way from one node to another; see `handover_entries`."""

    vg: str
    lv: str
    """Its name."""
    giver: int
    taker: int
    life: Life
    """The giver's that asked last, and by which number."""
    number: int
    step: HandoverStep
    since_ms: int
    opened: bool = False
    """The taker has opened its end."""


class ClusterState(msgspec.Struct, omit_defaults=True):
    """What has its default is not written: a field that a newer protocol needs leaves the bytes, and the
    digest, of the older one as they were."""

    config: ClusterConfig
    protocol: int = 1
    """What is spoken in the view of `epoch`; never lowered."""
    epoch: Epoch = Epoch()
    """The last primary epoch that this state went through."""
    position: int = 0
    """Counts entries and grants; with the epoch it makes tokens."""
    wall_ms: int = 0
    lives: dict[int, Life] = {}
    """Admitted lives of the current view's ready members."""
    out: dict[int, Life] = {}
    """Nodes that left cleanly."""
    enrolled: dict[int, str] = {}
    """The machine behind each node, since its first join."""
    senders: dict[int, Sender] = {}
    lockspaces: dict[str, Lockspace] = {}
    frozen: list[str] = []
    pending_joins: list[tuple[str, int]] = []
    """Joins that wait until a frozen lockspace runs again."""
    domain: Domain = msgspec.field(default_factory=Domain)
    vgs: dict[str, VgVersion] = {}
    incidents: list[Incident] = []
    favoured: list[Life] = []
    """Victims that are fenced later than they would be: see `fencing.delays`."""
    power_ons: list[PowerOn] = []
    """What is to be switched on, sorted by life."""
    slots: dict[str, list[int]] = {}
    """VGs with disk slots, and the nodes that keep one there; see `marks`."""
    slots_ending: list[str] = []
    """Of these, VGs that are being removed."""
    marked: dict[str, list[Life]] = {}
    """VG -> victims whose marks are on its disk."""
    given_up: list[GivenUp] = []
    tested: dict[int, tuple[Kept, ...]] = {}
    """What each member's tests of fence devices came to."""
    drill: Drill | None = None
    """The one that goes on."""
    tests_asked_ms: int = 0
    """Wall clock of the last order to test everything."""
    boards: dict[int, str] = {}
    """The enrolled machines' boards, where they could be read."""
    virtual: dict[int, str] = {}
    """Nodes whose host is itself a virtual machine, with its kind, as they said when they joined last."""
    orders: list[FenceOrder] = []
    """The last ones, oldest first."""
    disarmed: Disarm | None = None
    unclean: dict[str, list[str]] = {}
    """LVs that are being zeroed or wiped: VG -> their uuids."""
    handovers: dict[str, Handover] = {}
    """By the LV's uuid; `handover_entries.under_way` says whether one still counts."""

    def clear(self) -> list[dict[Any, Any]]:
        """Forget every lock.  Returns the tables, to be emptied by whoever has the time."""
        return [table for space in self.lockspaces.values() for table in space.resources.clear()]

    # -- reading ---------------------------------------------------------------

    @property
    def ready(self) -> tuple[int, ...]:
        return tuple(sorted(self.lives))

    def victims(self) -> list[Victim]:
        return sorted(self.domain.victims, key=lambda victim: victim.life)

    def blocking(self, lockspace: str) -> list[Victim]:
        """Victims that keep the lockspace frozen.  An unknown life may have been in any."""
        if not self.domain.victims:  # as nearly always
            return []
        return [victim for victim in self.victims() if self.freezes(victim, lockspace)]

    def freezes(self, victim: Victim, lockspace: str) -> bool:
        """Whether this victim keeps the lockspace frozen."""
        if lockspace in victim.lockspaces:
            return True
        return victim.life.unknown and self.partly(victim.life) is None

    def partly(self, life: Life) -> GivenUp | None:
        """Where a victim was given up already; None: nowhere."""
        return next((one for one in self.given_up if one.life == life), None)

    def unmarked(self, victim: Victim) -> list[str]:
        """Lockspaces in which the victim's locks must not move before its mark is on the VG's disk.

        Not after what proves that nothing of it runs: nobody is there to read a mark."""
        if not self.slots or self.domain.ended_itself(victim):
            return []
        if victim.life.unknown and self.partly(victim.life) is None:
            names = [f"{VG_SPACE}{vg}" for vg in sorted(self.slots)]
        else:
            names = victim.lockspaces
        return [name for name in names if self._awaits_mark(victim, vg_of(name))]

    def _awaits_mark(self, victim: Victim, vg: str | None) -> bool:
        return vg is not None and vg in self.slots and victim.life not in self.marked.get(vg, [])

    def fenced_lives(self) -> tuple[Life, ...]:
        """Lives whose locks may be others' by now, for `Ready` and the disk: given up for fenced, or in part,
        or found out to run on after that."""
        partly = {one.life for one in self.given_up}
        lied = {victim.life for victim in self.domain.victims if victim.lied}
        return tuple(sorted({*self.domain.fenced_lives(), *partly, *lied}))

    def member(self, lockspace: str, node: int) -> bool:
        """Whether the node's present life is in the lockspace.

        A membership that a lost life of the node left behind is that life's until it is purged: what it
        held there must not be taken for its successor's."""
        space = self.lockspaces.get(lockspace)
        if space is None or node not in space.members:
            return False
        return not self.domain.victims or not any(
            victim.life.node == node and lockspace in victim.lockspaces for victim in self.domain.victims
        )

    def others_out(self, node: int) -> bool:
        """Every other configured life is cleanly out or has evidence (the lone half's rule)."""
        for other in self.config.nodes:
            if other.id == node:
                continue
            if other.id in self.lives:
                return False
            victims = [victim for victim in self.domain.victims if victim.life.node == other.id]
            if not all(self.domain.proven(victim) or is_absent(victim.life) for victim in victims):
                return False
        return True

    def may_be_virtual(self, node: int) -> bool:
        """Whether the node's host is a virtual machine, or nothing is known of it: then what rests on its own
        clock or watchdog proves nothing."""
        return bool(self.virtual.get(node)) or node not in self.enrolled

    def order_of(self, life: Life) -> FenceOrder | None:
        """The newest order to fence this life, be it carried out or not."""
        return next((one for one in reversed(self.orders) if one.life == life), None)

    def action_for(self, life: Life) -> str:
        """off | reboot: what is to become of the host once this life is proven fenced."""
        order = self.order_of(life)
        return (order.action if order is not None else "") or self.config.fence_action

    def keeps_out(self, life: Life) -> FenceOrder | None:
        """An open order because of which this life is not let in: the host it runs on is to be fenced."""
        for order in reversed(self.orders):
            about = order.life.same_boot(life) or (order.life.node == life.node and is_absent(order.life))
            if about and self.domain.victim(order.life) is not None:
                return order
        return None

    @property
    def unsettled(self) -> bool:
        """Whether `losses.settle` may find anything to do."""
        return bool(self.domain.victims or self.frozen or self.pending_joins or self.power_ons)

    def being_cut(self, life: Life) -> bool:
        """Whether a destructive drill is just cutting this life's power: the first attempt to fence it.

        Others begin when it is over, be it because its actor is lost; and until then it may not come to hold
        anything."""
        drill = self.drill
        return (
            drill is not None
            and drill.kind is DrillKind.DESTRUCTIVE
            and drill.life == life
            and not drill.attempted
            and drill.actor in self.lives.values()
        )

    def lied(self, lockspace: str) -> bool:
        """A life that was given up for fenced is alive: writes under this lockspace must wait."""
        return any(victim.lied and self.freezes(victim, lockspace) for victim in self.domain.victims)

    def name(self, node: int) -> str:
        return self.config.name_of(node)

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self, enc_hook=_encode_resources)

    @classmethod
    def decode(cls, data: bytes) -> "ClusterState":
        """Raises msgspec.MsgspecError."""
        return msgspec.msgpack.decode(data, type=cls, dec_hook=_decode_resources)

    def told(self) -> dict[int, tuple[int, int]]:
        """Of each sender: its incarnation, and the number of its last entry that was applied."""
        return {node: (one.life.incarnation, one.seq) for node, one in sorted(self.senders.items())}

    def fits(self, life: Life, item: Submitted) -> bool:
        """Whether a submission counts: from an admitted life, and right after the one it follows.

        One that was applied before does not, nor one that came though an earlier one was lost: that would
        take the lost one for applied, and whoever waits for it would wait for ever."""
        sender = self.senders.get(life.node)
        return sender is not None and sender.life == life and sender.seq == item.after < item.seq


def absent_life(node: int, epoch: Epoch, position: int) -> Life:
    """What an order names that is about a node which is no member: it held nothing, so it freezes nothing."""
    return Life(node, boot=f"{ABSENT}{epoch.seq}-{position}")


def is_absent(life: Life) -> bool:
    return not life.machine and life.boot.startswith(ABSENT)


def _encode_resources(value: Any) -> dict[str, Resource]:
    assert isinstance(value, Resources)
    return dict(value)


def _decode_resources(type: type, value: Any) -> Resources:
    assert type is Resources
    return Resources(msgspec.convert(value, dict[str, Resource]).values())
