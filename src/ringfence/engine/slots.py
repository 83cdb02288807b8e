"""This node at the disk slots: writes its own, reads its mark, marks victims, watches who should be gone.

One order at a time for each VG, twice a token: *tend* writes the own block, then reads the own mark and the
own blocks of nodes that are missed, all counted from the order's issue.  What it is for:

- **Authority in the lone half of two.**  An unmarked slot, read, renews write authority for that VG, before
  evidence and after it: whoever gives this life up marks it first, and waits.  The time counts from the
  order's issue: a mark that was complete before then would have been read.
- **Marks.**  A proven victim is marked on every gated VG whose lockspace it was in; `Marked` is said when
  that is done and the authority that the unmarked slot may have given has run out.  That counts from the
  mark, or from the moment since which the slot stands still, if it still does so after the mark: a later tend
  of the victim would have written first, and read the mark then.  (No wait after the mark: two writers, 14.)
- **A mark for this life** ends it: nothing of it may go on.
- **Contradiction.**  One write may land after its host's end; two that followed one another cannot.

A place holds for one text of the VG's metadata: each order compares it, before and after (`SlotIo`).  When it
is another one, by whomever it was written, nothing that was read counts and nothing is written until this
host has looked again.  In the lone half, slots that somebody else has made anew give no authority at all:
nobody knows what marks the old ones bore.

What cannot be read (no answer, a damaged block) gives no authority, and proves nothing."""

import enum
from collections.abc import Callable
from typing import Any

import msgspec

from ringfence.core.errors import Damaged, VgChanged, from_dict
from ringfence.core.evidence import CUTS
from ringfence.core.ids import Epoch, Life
from ringfence.core.locknames import VG_SPACE
from ringfence.engine.context import Context, Phase
from ringfence.engine.effects import DoOrder
from ringfence.engine.losses import is_fenced
from ringfence.engine.orders import SlotIo, SlotsPlace
from ringfence.engine.slot_watch import Watches
from ringfence.engine.state import ClusterState
from ringfence.fencing.domain import Victim
from ringfence.wire import FENCING
from ringfence.wire.entries import LifeSeen, Marked, SlotsKept, SlotsLeft
from ringfence.wire.slots import Mark, Own, mark_offset, own_offset, parse_mark, parse_own, print_block

NS_PER_MS = 1_000_000
SCAN_AGAIN_MS = 10_000
SCAN_CHANGED_MS = 1000
"""Least time between two looks at the disks for the sake of slots that may have moved."""
MOVED = "/moved"
"""No VG is called that."""


class Kind(enum.Enum):
    TEND = "tend"
    CLEAN = "clean"
    """The last word of this life there."""
    MARK = "mark"


class _Job(msgspec.Struct):
    order: int
    kind: Kind
    life: Life
    """This node's when it was ordered."""
    issued_ns: int
    watched: tuple[int, ...] = ()
    victim: Life | None = None
    data: bytes = b""
    """The mark that is written."""


class _Slot(msgspec.Struct):
    """This node's in one VG."""

    place: SlotsPlace
    job: _Job | None = None
    tended_ns: int = 0
    """When the newest tend was ordered."""
    unmarked_ns: int = 0
    """When the newest tend was ordered that found no mark for this life; 0: none did."""
    answered_ns: int = 0
    """When the newest tend was ordered that was answered, with whatever."""
    in_use: bool = False
    """It was tended, and the last word there was not said."""
    trouble: str = ""
    changed_ns: int = 0
    """Since when the VG is not what it was when the place was found; 0: it is."""


class _Marking(msgspec.Struct):
    """A victim to be marked on a VG."""

    next_ns: int
    """When to try (again)."""
    written: bool = False
    free_ns: int = 0
    """When, the mark being written, nothing can be left of the victim's authority there."""
    trouble: str = ""


class Slots:
    """Args: marked: called with (VG, mark) when this life reads its own mark."""

    def __init__(self, context: Context, marked: Callable[[str, Mark], None]) -> None:
        self._context = context
        self._marked = marked
        self._slots: dict[str, _Slot] = {}
        self._without: dict[str, str] = {}
        self._agreed: dict[str, bytes] = {}
        """VG -> header of the slots by which, alone, this life may go on."""
        self._last_order = 0
        self._counter = 0
        self._deadlines_ns: dict[str, int] = {}
        """VG -> write authority there, where it is the disk's to give."""
        self._markings: dict[tuple[Life, str], _Marking] = {}
        self._watches = Watches()
        self._fenced_ns: dict[Life, int] = {}
        """When this node first saw each watched life given up for fenced."""
        self._said: dict[tuple[Life, str], int] = {}
        self._hurry_ns = 0
        self._scan_ns = 0
        self._scan_changed_ns = 0

    # -- what others tell ------------------------------------------------------------

    def note(self, places: tuple[SlotsPlace, ...], without: dict[str, str], *, made: bool = False) -> None:
        """This host has looked at the disks.

        Args: made: it has made these slots itself just now."""
        for place in places:
            self._without.pop(place.vg, None)
            slot = self._slots.get(place.vg)
            if slot is None:
                self._slots[place.vg] = _Slot(place)
            else:
                self._found_again(slot, place)
            if made:
                self._agreed[place.vg] = place.header
        for vg in without:
            slot = self._slots.get(vg)
            if slot is not None and slot.changed_ns:
                slot.trouble = without[vg]
        self._without.update(without)

    def lv_uuid(self, vg: str) -> str:
        """Of the LV that this host knows a VG's slots to be on; "" if it knows none."""
        slot = self._slots.get(vg)
        return slot.place.uuid if slot is not None else ""

    def _found_again(self, slot: _Slot, place: SlotsPlace) -> None:
        old, slot.place, slot.changed_ns = slot.place, place, 0
        if (old.path, old.start_bytes, old.header) == (place.path, place.start_bytes, place.header):
            return
        slot.unmarked_ns = slot.tended_ns = 0
        slot.job = None  # its answer is from the old place
        self._watches.forget(place.vg)
        for (_, vg), marking in self._markings.items():
            if vg == place.vg:
                marking.written, marking.next_ns = False, self._context.now_ns

    def lost(self) -> None:
        """This life is over; what the next one may do it must read for itself."""
        self._deadlines_ns, self._markings, self._said, self._agreed = {}, {}, {}, {}
        self._context.narrowed = {}
        for slot in self._slots.values():
            slot.unmarked_ns = 0

    def done(self, order: int, answer: Any, error: dict[str, Any] | None) -> None:
        """An order of this room was answered."""
        for vg, slot in list(self._slots.items()):
            job = slot.job
            if job is not None and job.order == order:
                slot.job = None
                if error is not None:
                    self._failed(vg, slot, job, error)
                elif job.kind is Kind.TEND:
                    self._tended(vg, slot, job, answer)
                elif job.kind is Kind.MARK:
                    self._mark_written(vg, job, answer)
                return

    # -- every step --------------------------------------------------------------------

    def look(self, joined: list[str]) -> None:
        """Order what is due, say what is to be said, and bring deadlines up to date."""
        context, state = self._context, self._context.state
        if state is None or context.config.naive or state.protocol < FENCING:
            return
        started = [name.removeprefix(VG_SPACE) for name in joined]
        running = context.running
        if running is not None:
            if running.domain.victims or self._markings:
                self._look_at_markings(running)
            self._look_for_lies(running)
            self._agree(running)
            self._renew(running)
            for vg in state.slots_ending:
                if vg not in self._slots and context.me in state.slots[vg]:
                    self._submit_once(SlotsLeft(vg))
        for vg, slot in sorted(self._slots.items()):
            ending = vg in state.slots_ending
            here = vg in started and not ending
            if running is not None:
                self._tell(running, vg, slot, here)
            if slot.job is None and not slot.changed_ns and context.phase is not Phase.STALE:
                self._order_next(state, vg, slot, here)
            if ending and slot.job is None:
                del self._slots[vg]  # whoever makes it anew says where

    def _tell(self, state: ClusterState, vg: str, slot: _Slot, here: bool) -> None:
        mine = self._context.me in state.slots.get(vg, [])
        if here and not mine:
            self._submit_once(SlotsKept(vg))
        elif mine and not here and slot.job is None and not slot.in_use:
            self._submit_once(SlotsLeft(vg))

    def _submit_once(self, entry: SlotsKept | SlotsLeft) -> None:
        if entry not in self._context.outbox.unapplied(type(entry)):
            self._context.submit(entry)

    def _order_next(self, state: ClusterState, vg: str, slot: _Slot, here: bool) -> None:
        context = self._context
        due_ns = slot.tended_ns + context.config.timing.slot_ms * NS_PER_MS
        marking = self._next_marking(vg)
        if marking is not None and context.running is not None:
            self._order_mark(state, slot, *marking)
        elif here and (context.now_ns >= due_ns or slot.tended_ns < self._hurry_ns):
            self._order_tend(state, slot)
        elif not here and slot.in_use:
            slot.in_use = False
            self._do(slot, Kind.CLEAN, (), write=(own_offset(context.me), self._own(clean=True)))

    # -- the own slot --------------------------------------------------------------------

    def _order_tend(self, state: ClusterState, slot: _Slot) -> None:
        context = self._context
        slot.tended_ns, slot.in_use = context.now_ns, True
        watched = tuple(
            node.id
            for node in context.config.nodes
            if node.id not in (context.me, *state.out)
            and node.id <= slot.place.nodes
            and self._is_missed(state, node.id)
        )
        self._watches.keep(slot.place.vg, watched)
        reads = (mark_offset(context.me), *map(own_offset, watched))
        write = (own_offset(context.me), self._own(clean=False))
        self._do(slot, Kind.TEND, reads, write=write, watched=watched)

    def _is_missed(self, state: ClusterState, node: int) -> bool:
        """Absent; or silent, so that by the time it is lost it is known whether its slot moves."""
        life = state.lives.get(node)
        context = self._context
        return life is None or context.hearing.silent(life, context.now_ns, context.config.timing.slot_ms)

    def _own(self, *, clean: bool) -> bytes:
        context = self._context
        # It follows the boot's clock, so that no later incarnation of this boot repeats a number.
        self._counter = max(self._counter + 1, context.now_ns // NS_PER_MS)
        own = Own(context.life, self._counter, clean, context.wall_ms)
        return print_block(own, own_offset(context.me))

    def _tended(self, vg: str, slot: _Slot, job: _Job, answer: tuple[bytes, ...]) -> None:
        context = self._context
        slot.answered_ns = job.issued_ns
        for node, data in zip(job.watched, answer[1:], strict=True):
            try:
                self._watches.saw(vg, node, parse_own(data, node, f"VG {vg}"), job.issued_ns, context.now_ns)
            except Damaged:
                continue  # half a write says nothing; the next one is whole
        try:
            mark = parse_mark(answer[0], context.me, f"VG {vg}")
        except Damaged as error:
            slot.trouble = f"{error.message}; a damaged mark gives no authority"
            return
        slot.trouble = ""
        if job.life != context.life or context.phase is Phase.STALE:
            return
        if mark is not None and mark.hits(context.life, context.admitted or Epoch()):
            self._marked(vg, mark)
        else:
            slot.unmarked_ns = job.issued_ns

    # -- authority -------------------------------------------------------------------------

    def write_deadline_ns(self, vg: str) -> int | None:
        """Until when writes to this VG may go through; None: as everywhere else."""
        state = self._context.state
        if state is None or not self._by_disk(state, vg):
            return None
        return max(self._deadlines_ns.get(vg, 0), self._context.authority.answered_deadlines_ns[1])

    def _by_disk(self, state: ClusterState, vg: str) -> bool:
        """Whether, alone, authority for this VG comes from its disk: not if the other node has left cleanly,
        for then nobody is there to write a mark."""
        if not self._context.config.two_node or vg not in state.slots:
            return False
        others = [node.id for node in self._context.config.nodes if node.id != self._context.me]
        return not all(node in state.out and not state.domain.of_node(node) for node in others)

    def _agree(self, state: ClusterState) -> None:
        """While others are ready, the slots are those that everybody finds; alone, the first found."""
        if not self._slots:
            return
        alone = state.ready == (self._context.me,)
        for vg, slot in self._slots.items():
            if not alone:
                self._agreed[vg] = slot.place.header
            else:
                self._agreed.setdefault(vg, slot.place.header)

    def _renew(self, state: ClusterState) -> None:
        """In the lone half of two, from unmarked slots; under the ring's veto what was earned stands."""
        context = self._context
        context.narrowed = {}
        if not context.config.two_node or state.ready != (context.me,):
            return
        grant_ns, timing = context.authority.answered_deadlines_ns[0], context.config.timing
        for vg in [vg for vg in sorted(state.slots) if self._by_disk(state, vg)]:
            slot = self._slots.get(vg)
            agreed = slot is not None and slot.place.header == self._agreed.get(vg)
            base_ns = slot.unmarked_ns if slot is not None and agreed and self._counts(state, vg) else 0
            reaches_ns = base_ns + timing.grant_ms * NS_PER_MS if base_ns else 0
            context.narrowed[f"{VG_SPACE}{vg}"] = max(grant_ns, reaches_ns)
            if base_ns and not context.vetoed:
                deadline_ns = base_ns + timing.write_ms * NS_PER_MS
                self._deadlines_ns[vg] = max(self._deadlines_ns.get(vg, 0), deadline_ns)

    def _counts(self, state: ClusterState, vg: str) -> bool:
        """Whether an unmarked slot means that nobody has gone on without this node.

        The other one would mark it: it has said that it keeps a slot here itself; or it is out."""
        context = self._context
        if vg in state.slots_ending:
            return False
        others = [node.id for node in context.config.nodes if node.id != context.me]
        return all(node in state.slots[vg] for node in others) or state.others_out(context.me)

    # -- before this node shoots -------------------------------------------------------------

    def hurry(self) -> bool:
        """Read the own marks now.  Returns whether there are any to be read: not if others can outvote this
        node, for then it has been told by them."""
        state = self._context.running
        if state is None or not any(self._by_disk(state, vg) for vg in self._slots):
            return False
        self._hurry_ns = self._context.now_ns
        return True

    def read_since(self, since_ns: int) -> bool:
        """Every mark was read, by orders not older than that, or does not answer.  (Who found its own is
        stale by now.)"""
        context, state = self._context, self._context.state
        waited_ms = (context.now_ns - since_ns) // NS_PER_MS
        if state is None or waited_ms > context.config.timing.slot_limit_ms:
            return True
        return all(
            slot.answered_ns >= since_ns for vg, slot in self._slots.items() if self._by_disk(state, vg)
        )

    # -- marks -------------------------------------------------------------------------------

    def _look_at_markings(self, state: ClusterState) -> None:
        context = self._context
        due: list[tuple[Life, str]] = []
        for victim in state.domain.victims:
            if state.domain.proven(victim):
                vgs = [name.removeprefix(VG_SPACE) for name in state.unmarked(victim)]
                due += [(victim.life, vg) for vg in vgs]
        for one in [one for one in self._markings if one not in due]:
            del self._markings[one]
            self._said.pop(one, None)
        for life, vg in due:
            marking = self._markings.get((life, vg))
            if marking is None:
                wait_ms = self._rank(state, vg) * context.config.timing.slot_limit_ms
                self._markings[life, vg] = _Marking(context.now_ns + wait_ms * NS_PER_MS)
            elif marking.written and context.now_ns >= marking.free_ns and self._once(life, vg):
                context.submit(Marked(life, vg))

    def _once(self, life: Life, what: str) -> bool:
        """True the first time in an epoch."""
        if self._said.get((life, what)) == self._context.epoch.seq:
            return False
        self._said[life, what] = self._context.epoch.seq
        return True

    def _rank(self, state: ClusterState, vg: str) -> int:
        """How many ready nodes try before this one; it tries as well, for they may not reach the array."""
        first = [node for node in state.ready if node in state.slots.get(vg, [])]
        order = [*first, *(node for node in state.ready if node not in first)]
        return order.index(self._context.me) if self._context.me in order else len(order)

    def _next_marking(self, vg: str) -> tuple[Life, _Marking] | None:
        now_ns = self._context.now_ns
        for (life, where), marking in self._markings.items():
            if where == vg and not marking.written and now_ns >= marking.next_ns:
                return life, marking
        return None

    def _order_mark(self, state: ClusterState, slot: _Slot, life: Life, marking: _Marking) -> None:
        context, timing = self._context, self._context.config.timing
        victim = state.domain.victim(life)
        assert victim is not None
        marking.next_ns = context.now_ns + 2 * timing.slot_limit_ms * NS_PER_MS
        if life.node > slot.place.nodes:
            marking.written = True  # it has no slot here, and so no authority by it
            return
        mark = Mark(life, victim.since, _is_cut(victim), context.me)
        data = print_block(mark, mark_offset(life.node))
        reads = (mark_offset(life.node), own_offset(life.node))
        self._do(
            slot, Kind.MARK, reads, write=(mark_offset(life.node), data), victim=life, data=data,
            not_after_ns=context.now_ns + timing.token_ms * NS_PER_MS,
        )  # fmt: skip

    def _mark_written(self, vg: str, job: _Job, answer: tuple[bytes, ...]) -> None:
        context = self._context
        assert job.victim is not None
        marking = self._markings.get((job.victim, vg))
        if marking is None:
            return  # it is no victim any more, or not proven
        if answer[0] != job.data:
            marking.trouble = "what was written is not what is read"
            return
        marking.written, marking.trouble = True, ""
        if context.config.two_node:
            marking.free_ns = self._free_ns(vg, job.victim, answer[1])

    def _free_ns(self, vg: str, victim: Life, own_data: bytes) -> int:
        """When the authority that the victim's unmarked slot may have given has run out."""
        context = self._context
        bound_ns = context.config.timing.bound_ms * NS_PER_MS
        try:
            own = parse_own(own_data, victim.node, f"VG {vg}")
        except Damaged:
            return context.now_ns + bound_ns
        if not victim.unknown and (own is None or not own.life.same_boot(victim)):
            return context.now_ns  # it never wrote its slot, and so never read its mark
        since_ns = self._watches.still_since_ns(vg, victim.node, own)
        return (since_ns or context.now_ns) + bound_ns

    # -- contradiction ----------------------------------------------------------------------

    def moves(self, node: int) -> bool:
        """Whether the node's slot was seen to move within the last two rounds."""
        rounds_ns = 2 * self._context.config.timing.slot_ms * NS_PER_MS
        return self._watches.moved_ns(node) > self._context.now_ns - rounds_ns

    def alive_since(self, node: int, moment_ns: int) -> str:
        """The VG on which the node has certainly written its slot after that moment; "": none."""
        return self._watches.moved_twice(node, moment_ns)

    def _look_for_lies(self, state: ClusterState) -> None:
        """A life that was given up for cut off, and goes on writing its slot."""
        context = self._context
        for vg, node, life in self._watches.lives():
            if node in state.lives or not is_fenced(state, life):
                self._fenced_ns.pop(life, None)
                self._said.pop((life, MOVED), None)
                continue
            since_ns = self._fenced_ns.setdefault(life, context.now_ns)
            if self._watches.moved_twice(node, since_ns) == vg and self._once(life, MOVED):
                context.submit(LifeSeen(life, f"its slot on VG {vg} is written on and on"))

    # -- orders -----------------------------------------------------------------------------

    def _do(
        self,
        slot: _Slot,
        kind: Kind,
        reads: tuple[int, ...],
        *,
        write: tuple[int, bytes],
        watched: tuple[int, ...] = (),
        victim: Life | None = None,
        data: bytes = b"",
        not_after_ns: int = 0,
    ) -> None:
        context, place = self._context, slot.place
        self._last_order -= 1  # below zero: the others are the commands'
        slot.job = _Job(self._last_order, kind, context.life, context.now_ns, watched, victim, data)
        limit_ms = context.config.timing.slot_limit_ms
        body = SlotIo(
            place.vg, place.path, place.start_bytes, place.header, place.text, reads, write, limit_ms,
            not_after_ns,
        )  # fmt: skip
        context.out(DoOrder(self._last_order, body))

    def _failed(self, vg: str, slot: _Slot, job: _Job, error: dict[str, Any]) -> None:
        wrong = from_dict(error)
        marking = self._markings.get((job.victim, vg)) if job.victim is not None else None
        if wrong.code == VgChanged.code:
            slot.changed_ns, slot.trouble = self._context.now_ns, wrong.message
            slot.tended_ns = 0
            slot.in_use |= job.kind is Kind.CLEAN  # the last word is still to be said
            if marking is not None:
                marking.next_ns = self._context.now_ns
            return
        if marking is not None:
            marking.trouble = wrong.message
        if job.kind is Kind.TEND:
            slot.answered_ns = job.issued_ns
        if slot.trouble != wrong.message:
            slot.trouble = wrong.message
            self._context.record("slots-failed", f"VG {vg}: its disk slots cannot be used: {wrong}", vg=vg)
        if wrong.code == "not-found":
            del self._slots[vg]
            self._without[vg] = wrong.message

    @property
    def scan_is_due(self) -> bool:
        """A VG has slots of which this host does not know where they are (any more)."""
        context, state = self._context, self._context.running
        changed = [slot.changed_ns for slot in self._slots.values() if slot.changed_ns]
        if changed and context.now_ns >= self._scan_changed_ns:
            long = context.now_ns - min(changed) > SCAN_AGAIN_MS * NS_PER_MS
            again_ms = SCAN_AGAIN_MS if long else SCAN_CHANGED_MS
            self._scan_changed_ns = context.now_ns + again_ms * NS_PER_MS
            return True
        if state is None or context.now_ns < self._scan_ns:
            return False
        lacking = [
            vg
            for vg in state.slots
            if vg not in self._slots
            and vg not in state.slots_ending
            and state.member(f"{VG_SPACE}{vg}", context.me)
        ]
        if lacking:
            self._scan_ns = context.now_ns + SCAN_AGAIN_MS * NS_PER_MS
        return bool(lacking)

    # -- words ---------------------------------------------------------------------------------

    def report(self) -> list[dict[str, Any]]:
        """For `status`: each VG that has slots, or was found without any that can be used."""
        context, state = self._context, self._context.state
        rows = []
        gated = state.slots if state is not None else {}
        for vg in sorted({*self._slots, *self._without, *gated}):
            slot = self._slots.get(vg)
            keepers = [context.name(node) for node in gated.get(vg, [])]
            unknown = self._without.get(vg, "their place is not known here")
            trouble = self._lasting_trouble(slot) if slot is not None else unknown
            rows.append({"vg": vg, "gated": vg in gated, "nodes": keepers, "trouble": trouble})
        return rows

    def _lasting_trouble(self, slot: _Slot) -> str:
        """Every change of a VG has its slots looked for anew; that is none until it was tried in vain."""
        soon_ns = slot.changed_ns + SCAN_AGAIN_MS * NS_PER_MS
        return "" if slot.changed_ns and self._context.now_ns < soon_ns else slot.trouble

    def lines(self, *, vg: str | None = None, node: int = 0, marks_only: bool = False) -> list[str]:
        """For `why`: what these slots hold up, or keep going.

        Args:
            vg: of this VG alone ("": of none).
            node: about this one alone.
            marks_only: what is held up, and nothing that goes on."""
        context, state = self._context, self._context.running
        if state is None:
            return []
        lines = [
            self._marking_line(context.name(life.node), where, marking)
            for (life, where), marking in sorted(self._markings.items(), key=lambda one: one[0])
            if vg in (None, where) and node in (0, life.node)
        ]
        alone = context.config.two_node and state.ready == (context.me,) and node in (0, context.me)
        for where in sorted(state.slots) if alone and not marks_only else []:
            if vg in (None, where) and self._by_disk(state, where):
                lines.append(self._authority_line(where))
        return lines

    def _marking_line(self, name: str, vg: str, marking: _Marking) -> str:
        if marking.written:
            left_s = max(0, marking.free_ns - self._context.now_ns) / 1e9
            return f"VG {vg}: {name} is marked there; what its slot allowed it runs out in {left_s:.1f} s"
        slot = self._slots.get(vg)
        not_here = slot is None or slot.changed_ns != 0
        if slot is None:
            trouble = self._without.get(vg, "its slots were not found on this host")
        else:
            trouble = marking.trouble or "not tried yet"
        gone = f"; if the VG was removed: ringfence slots forget {vg}" if not_here else ""
        return f"VG {vg}: the mark for {name} is not written: {trouble}{gone}; until then no lock of it moves"

    def _authority_line(self, vg: str) -> str:
        deadline_ns = self.write_deadline_ns(vg) or 0
        left_s = (deadline_ns - self._context.now_ns) / 1e9
        slot = self._slots.get(vg)
        trouble = f" ({slot.trouble})" if slot is not None and slot.trouble else ""
        if left_s > 0:
            return f"VG {vg}: authority by its disk slots for {left_s:.1f} s more{trouble}"
        return f"VG {vg}: no authority by its disk slots{trouble}: writes are held"


def _is_cut(victim: Victim) -> bool:
    return any(one.kind in CUTS for one in victim.evidence)
