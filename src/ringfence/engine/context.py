"""What the parts of one node's engine share: the moment, the phase, the state, the way out."""

import enum
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import NotFound, Refused
from ringfence.core.ids import Epoch, Life
from ringfence.core.locknames import VG_SPACE, is_literal
from ringfence.engine.effects import Effect, Record
from ringfence.engine.inputs import DiskState, LeftOpen
from ringfence.engine.outbox import Outbox
from ringfence.engine.state import ClusterState
from ringfence.fencing.actor import heartbeat_back
from ringfence.membership.authority import Authority
from ringfence.membership.hearing import Hearing
from ringfence.volumes.known import KnownVgs
from ringfence.wire import MANY_LOCKS, SPEAKS, WHOLE_DLM, Speaks
from ringfence.wire.entries import Entry, LockRequests, LockUnlocks, UncleanNoted, one_by_one
from ringfence.wire.ring import UNSAID_HARDWARE, Hardware

AT_ONCE = 128
"""How many locks one step handles at most: each costs some 20 us, and nothing may hold a daemon's event
loop for 20 ms."""


class Phase(enum.Enum):
    """Where this node stands.  Only RUNNING applies entries and sends heartbeats."""

    STARTING = "starting"
    NO_RING = "no ring"
    BARRIER = "barrier"
    """In a view; not every member has said Ready."""
    SUSPENDED = "suspended"
    """The view is not primary: state is kept, nothing is applied, nothing renewed."""
    JOINING = "joining"
    """Waits for the snapshot."""
    RUNNING = "running"
    STALE = "stale"
    """The cluster went on without this life: data paths are being dropped."""
    SHUT_OUT = "shut out"
    """Not admitted: given up for fenced, another machine, another configuration or protocol."""


class Context:
    """Shared by the parts of one `Node`; owned by it."""

    def __init__(
        self,
        config: ClusterConfig,
        me: int,
        life: Life,
        disk: DiskState,
        speaks: Speaks = SPEAKS,
        at_once: int = AT_ONCE,
        hardware: Hardware = UNSAID_HARDWARE,
    ) -> None:
        self.config = config
        self.hardware = hardware
        self.me = me
        self.life = life
        self.speaks = speaks
        self.disk = disk
        self.at_once = at_once
        self.keep = False
        """`disk` has changed and must be kept before anything of this step is said."""
        self.now_ns = 0
        self.wall_ms = 0
        self._phase = Phase.STARTING
        self._state: ClusterState | None = None
        self.running: ClusterState | None = None
        """The state, if this node may act on it now.  Follows `phase` and `state`; it is read many times a
        lock, and so is no property."""
        self.epoch = Epoch()
        """The ring's present epoch; zero without a view."""
        self.ring: tuple[int, ...] = ()
        """The nodes of the ring's present view, admitted or not; empty without a view."""
        self.outbox = Outbox(at_once)
        self.authority = Authority(config, me)
        self.hearing = Hearing(config.timing)
        self.vetoed = False
        """The ring's own quorum service says "not quorate": this node renews and reports nothing and fences
        nobody, whatever its own count of votes says."""
        self.vetoed_ns = 0
        """Since when."""
        self.ring_remark = ""
        """What a person should know of the ring though it works."""
        self.admitted: Epoch | None = None
        """The first epoch in which this life was a ready member; None if it never was."""
        self.narrowed: dict[str, int] = {}
        """Lockspaces of VGs whose disk slots this node's authority depends on now -> until when it may report
        grants there."""
        self.left_open: tuple[LeftOpen, ...] = ()
        """Data paths of an earlier life, whose adoption is not decided yet."""
        self.vg_uuids: dict[str, str] = {}
        """Uuids of VGs by their lockspace, as this node last saw them."""
        self.known_vgs = KnownVgs()
        self.unclean_seen: dict[str, tuple[str, ...]] = {}
        """LVs that are being zeroed or wiped, by VG, as this host saw them when it started its VGs; where the
        state does not tell, also those that its own commands have made so."""
        self.left = False
        """This life has left the cluster cleanly."""
        self.only_locks = False
        """This step has touched nothing but locks: see `Node.step`."""
        self.budget = 0
        """How many more locks this step may handle, where an event concerns many."""
        self.step = 0
        """Counts steps."""
        self.more = False
        """There is more to do than fits into this step."""
        self.more_locks = False
        """There is, but no more than `Locker.look` and `Lvmlockd.look` do."""
        self.settled = True
        """False: the state is in the middle of an entry that concerns many locks."""
        self.discarded: list[dict[Any, Any]] = []
        """Tables that nobody needs any more, emptied little by little (`Locker.look`): to give back the
        memory of a hundred thousand locks takes a while, too."""
        self.effects: list[Effect] = []
        self.refused: dict[int, str] = {}
        """Members of the present view that are not admitted, and why."""

        self.killed: list[str] = []
        """VGs that an admin has stopped here (lvmlockctl --kill): no lock is given there, no table loaded."""
        self.unseen: tuple[str, ...] = ()
        """VGs that were stopped here by hand and were on no disk when this host last looked for them."""

    @property
    def now_ms(self) -> int:
        """The moment, rounded up: what is due at a time in ms is due then."""
        return -(-self.now_ns // 1_000_000)

    @property
    def phase(self) -> Phase:
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._phase = phase
        self.running = self._state if phase is Phase.RUNNING else None

    @property
    def state(self) -> ClusterState | None:
        """As far as this node has applied it, whether or not it may act on it."""
        return self._state

    @state.setter
    def state(self, state: ClusterState | None) -> None:
        self._state = state
        self.running = state if self._phase is Phase.RUNNING else None

    @property
    def protocol(self) -> int:
        """What this node speaks now; while it may not act, the oldest that it can."""
        return self.running.protocol if self.running is not None else self.speaks.low

    @property
    def speaks_whole_dlm(self) -> bool:
        """Whether every node that has the state knows all flags and names (it may be known to this one)."""
        return self._state is not None and self._state.protocol >= WHOLE_DLM

    def check_name(self, name: str) -> None:
        """Raises Refused for a lockspace or resource that older nodes would take for another, or for none."""
        if not self.speaks_whole_dlm and not is_literal(name):
            raise Refused(
                f"{name}: a name with bytes that are not written as they are needs protocol {WHOLE_DLM}",
                next="upgrade every node (ringfence status), or choose another name",
                retry=True,
            )

    def out(self, effect: Effect) -> None:
        self.effects.append(effect)

    def submit(self, entry: Entry, *, unhurried: bool = False) -> int:
        """Send an entry into the total order; it goes out when this node runs, once.

        Returns its number, for `outbox.waits`."""
        many_locks = self.running is not None and self.running.protocol >= MANY_LOCKS
        return self.outbox.submit(entry, self.wall_ms, unhurried=unhurried, many_locks=many_locks)

    def submit_many(self, entry: LockRequests | LockUnlocks) -> None:
        """The same for an entry about many locks; one by one, where an older node would not know it."""
        if self.running is not None and self.running.protocol >= MANY_LOCKS:
            self.outbox.submit(entry, self.wall_ms)
            return
        for one in one_by_one(entry):
            self.submit(one)

    def record(self, kind: str, what: str, **fields: Any) -> None:
        self.out(Record(kind, what, fields))

    def name(self, node: int) -> str:
        return self.config.name_of(node)

    @property
    def others_out(self) -> bool:
        """The two-node rule: alone, and every other configured life is out or has evidence."""
        return self.config.two_node and self.running is not None and self.running.others_out(self.me)

    def renew(self) -> None:
        """Bring the deadlines up to date with what was heard and who is out; under a veto they stand."""
        if not self.vetoed:
            self.authority.deadlines(self.others_out)

    def deadlines_ns(self) -> tuple[int, int]:
        """(grant, write) authority of this node, on its own clock, as last renewed; 0 = none."""
        return self.authority.grant_deadline_ns, self.authority.write_deadline_ns

    @property
    def calm(self) -> bool:
        """This host's clock has had no gap for one detection time: what it is about to do is no old plan."""
        return self.hearing.calm(self.now_ns, self.config.timing.detection_ms)

    @property
    def heartbeat_back(self) -> bool:
        """An own heartbeat of this view, sent just now, has come back through the ring."""
        return heartbeat_back(self.authority.own_heartbeat_ns, self.now_ns, self.config.timing)

    def node_named(self, name: str) -> int:
        """A configured node's id.  Raises NotFound."""
        for node in self.config.nodes:
            if node.name == name:
                return node.id
        raise NotFound(f"no node is called {name}", next="ringfence status")

    def is_in(self, lockspace: str) -> bool:
        """Whether this node is fully in it, as far as it knows."""
        state = self.state
        space = state.lockspaces.get(lockspace) if state is not None else None
        if state is None or space is None or self.me in space.joining:
            return False
        return state.member(lockspace, self.me)

    def vg_uuid(self, lockspace: str) -> str:
        """Of the VG that a lockspace belongs to; empty if it is not known here."""
        return self.vg_uuids.get(lockspace, "")

    def unclean(self, vg: str) -> tuple[str, ...]:
        """The VG's LVs that are being zeroed or wiped, as far as this node knows."""
        told = self.state.unclean.get(vg, ()) if self.state is not None else ()
        return tuple(dict.fromkeys((*told, *self.unclean_seen.get(vg, ()))))

    def is_unclean(self, vg: str, uuid: str) -> bool:
        """Whether this LV is one of `unclean`, or about to be told as one: on this host who has the VG's
        lock next may ask before that."""
        told = self.state.unclean.get(vg, ()) if self.state is not None else ()
        if uuid in told or uuid in self.unclean_seen.get(vg, ()):
            return True
        said = self.outbox.unapplied(UncleanNoted)
        return any(isinstance(one, UncleanNoted) and one.vg == vg and uuid in one.uuids for one in said)

    def see_unclean(self, vg: str, uuids: Sequence[str]) -> None:
        """This host has seen on the disks which LVs of a VG those are."""
        self.unclean_seen.pop(vg, None)
        if uuids:
            self.unclean_seen[vg] = tuple(uuids)

    @property
    def stopped(self) -> dict[str, str]:
        """VGs that somebody stopped here by hand, with uuids, "" if not known.  They do not start by
        themselves, whatever daemon of this boot it is: LVM2's own comes back without them, too, and who works
        on their disks meanwhile (restores a backup, say) has asked each host once.  A boot starts all."""
        return dict(zip_longest(self.disk.stopped, self.disk.stopped_uuids, fillvalue=""))

    def note_stopped(self, vgs: Sequence[str]) -> None:
        kept = self.stopped
        uuids = {vg: self.vg_uuid(f"{VG_SPACE}{vg}") or kept.get(vg, "") for vg in vgs}
        self._keep_stopped({vg: uuid for vg, uuid in kept.items() if vg not in vgs} | uuids)

    def note_renamed(self, names: dict[str, str]) -> None:
        """Args: names: of VGs that are stopped: name now -> name that they were stopped under.  All of them
        at once, for one may have got the name of another."""
        kept = self.stopped
        uuids = {vg: kept.get(was) or self.vg_uuid(f"{VG_SPACE}{was}") for vg, was in names.items()}
        others = {vg: uuid for vg, uuid in kept.items() if vg not in names and vg not in names.values()}
        self._keep_stopped(others | uuids)

    def note_unseen(self, vgs: Sequence[str], removed: Sequence[str]) -> None:
        """Args: removed: of them, those that are no more.  The others may be on disks that come back."""
        gone = dict.fromkeys(removed)
        self._keep_stopped({vg: uuid for vg, uuid in self.stopped.items() if vg not in gone})
        self.unseen = tuple(vg for vg in vgs if vg not in gone)

    def note_started(self, vg: str) -> None:
        """Whoever starts it: the next daemon then does, too."""
        self._keep_stopped({one: uuid for one, uuid in self.stopped.items() if one != vg})
        self.unseen = tuple(one for one in self.unseen if one != vg)

    def _keep_stopped(self, stopped: dict[str, str]) -> None:
        if stopped != self.stopped:
            names, uuids = tuple(stopped), tuple(stopped.values())
            self.disk = msgspec.structs.replace(self.disk, stopped=names, stopped_uuids=uuids)
            self.keep = True

    def must_act(self) -> ClusterState:
        """The state that this node may act on.  Raises Refused."""
        if self.running is None:
            raise Refused(f"{self.name(self.me)} cannot act now", next="ringfence why", retry=True)
        return self.running

    def must_speak(self, protocol: int, what: str) -> None:
        """Raises Refused while the cluster's protocol is older than what is asked of it.

        Args: what: the clause of the message: "drills"."""
        state = self.running
        if state is not None and state.protocol < protocol:
            raise Refused(
                f"the cluster speaks protocol {state.protocol}, and {what} from {protocol} on",
                next="upgrade every configured node: see ringfence status",
            )

    @property
    def may_report(self) -> bool:
        """Grant authority: a grant may be told to a client only now."""
        return self.config.naive or (not self.vetoed and self.now_ns < self.authority.grant_deadline_ns)

    def may_report_in(self, lockspace: str) -> bool:
        """The same for a lock of this lockspace, where a disk may have taken authority away."""
        if not self.may_report:
            return False
        if not self.narrowed:
            return True
        deadline_ns = self.narrowed.get(lockspace)
        return deadline_ns is None or self.now_ns < deadline_ns
