"""This node's part in hand-overs: it asks takers, is asked by givers, and ends what somebody has begun.

The command (`commands.handover`) goes from step to step, and undoes nothing.  Whatever stops it (an error, a
daemon's end, a life's end, here or there), what is left is paths that are held, and what is to become of
those follows from the ordered state alone: `look` does it, and again until it is done.

    held here for giving, not decided:  the taker is told to drop it; back to EX, and the writes go on
    ... prepared (LENDING):             nothing, until a person goes on or drops it
    ... decided (TAKE):                 close, let go
    held here for taking, not decided:  nothing, while the giver holds it, too
    ... decided:                        EX, which waits for the giver's lock to go; then writes go on; told
    ... there is no such hand-over:     close, let go

So of the two ends at most one ever lets write, for it does so under EX alone (or as the lender, under PW,
beside which no other writer's lock is), and in the end one does, unless its host is lost by then."""

from collections.abc import Callable
from typing import Any

import msgspec

from ringfence.core.errors import LocksLost, Refused, RingfenceError
from ringfence.core.ids import Life
from ringfence.core.modes import Mode
from ringfence.engine.commands.handover import close_end, receive, take, take_back
from ringfence.engine.commands.locking import space_of
from ringfence.engine.context import Context
from ringfence.engine.facts import HandoverAsked, HandoverHeard
from ringfence.engine.handover_entries import under_way
from ringfence.engine.locker import Locker
from ringfence.engine.orders import AskHandover, Command, OpenVolume
from ringfence.engine.state import Handover
from ringfence.engine.tasks import Tasks
from ringfence.wire import HANDOVERS, entries
from ringfence.wire.block import Hold
from ringfence.wire.entries import HandoverStep

ANSWER_MS = 25_000
"""How long a taker is waited for: its lock (`commands.handover.LOCK_MS`) and its worker's start."""
TAKEN_MS = 30_000
"""How long a command waits until the taker says that the LV is its own.  It is so all the same."""
AGAIN_MS = 500
"""After what did not succeed."""

Told = Callable[[RingfenceError | None], None]


class _Question(msgspec.Struct):
    volume: str
    taker: Life | None
    """None: it was no member; the order says so."""
    until_ns: int
    told: Told


class _Awaited(msgspec.Struct):
    uuid: str
    until_ns: int
    told: Callable[[bool], None]


class Handovers:
    def __init__(self, context: Context, locker: Locker, tasks: Tasks) -> None:
        self._context = context
        self._locker = locker
        self._tasks = tasks
        tasks.ask_handover = self._ask
        tasks.await_taken = self._await
        self._last = 0
        self._questions: dict[int, _Question] = {}
        self._awaited: list[_Awaited] = []
        self._asked: list[HandoverAsked] = []
        self.busy: dict[str, str] = {}
        """LVs, by uuid, that a command here is at: which one.  Nothing else is done about them."""
        self._again_ns: dict[str, int] = {}
        """When to try again what did not succeed."""

    # -- the giver's side -------------------------------------------------------------------

    def _ask(self, order: AskHandover, told: Told) -> None:
        """Raises Refused."""
        context = self._context
        state = context.must_act()
        context.must_speak(HANDOVERS, "hands LVs over")
        self._last += 1
        until_ns = context.now_ns + ANSWER_MS * 1_000_000
        volume = f"{order.vg}/{order.lv}"
        self._questions[self._last] = _Question(volume, state.lives.get(order.to), until_ns, told)
        context.submit(
            entries.AskHandover(
                self._last, order.vg, order.lv, order.uuid, order.to, order.step, order.seqno, order.crc,
                order.table,
            )
        )  # fmt: skip

    def heard(self, fact: HandoverHeard) -> None:
        question = self._questions.pop(fact.number, None) if fact.by == self._context.life else None
        if question is not None:
            question.told(_refused(question.volume, fact.failed) if fact.failed else None)

    def _await(self, uuid: str, told: Callable[[bool], None]) -> None:
        self._awaited.append(_Awaited(uuid, self._context.now_ns + TAKEN_MS * 1_000_000, told))

    # -- the taker's side -------------------------------------------------------------------

    def asked(self, fact: HandoverAsked) -> None:
        if fact.taker == self._context.me:
            self._asked.append(fact)

    def _receive(self, fact: HandoverAsked) -> None:
        ask, context = fact.ask, self._context
        name = context.name(fact.by.node)

        def finished(result: object, error: RingfenceError | None) -> None:
            self.busy.pop(ask.uuid, None)
            if not isinstance(error, LocksLost):
                failed, me = str(error) if error is not None else "", context.name(context.me)
                if failed and me not in failed:  # it is read on the giver
                    failed = f"on {me}: {failed}"
                context.submit(entries.HandoverTold(fact.by, ask.number, ask.uuid, failed))

        self.busy[ask.uuid] = f"a hand-over from {name}"
        self._tasks.start(f"handover {ask.vg}/{ask.lv} from {name}", receive(ask), finished)

    # -- time -------------------------------------------------------------------------------

    def look(self) -> None:
        if self._questions or self._awaited:
            self._answer()
        state = self._context.running
        if state is None or not self._context.settled or not self._context.may_report:
            return
        asked, self._asked = self._asked, []
        for fact in asked:
            if fact.ask.uuid in self.busy:
                self._asked.append(fact)
            elif state.lives.get(fact.by.node) == fact.by:
                self._receive(fact)
        for (vg, uuid), hold in list(self._tasks.held.items()):
            if uuid not in self.busy and self._again_ns.get(uuid, 0) <= self._context.now_ns:
                self._settle(vg, uuid, hold, under_way(state, uuid))
        for uuid, one in state.handovers.items() if state.handovers else ():
            if uuid not in self.busy and (one.vg, uuid) not in self._tasks.held and under_way(state, uuid):
                self._say_rest(uuid, one)

    def _answer(self) -> None:
        context, state = self._context, self._context.running
        for number, question in list(self._questions.items()):
            taker = question.taker
            lost = taker is not None and state is not None and state.lives.get(taker.node) != taker
            if lost or context.now_ns >= question.until_ns:
                assert taker is not None or not lost
                who = context.name(taker.node) if taker is not None else "the ring"
                why = f"{who} was lost" if lost else f"{who} has not answered"
                del self._questions[number]
                question.told(_refused(question.volume, why))
        awaited, self._awaited = self._awaited, []
        for one in awaited:
            taken = state is not None and under_way(state, one.uuid) is None
            if taken or context.now_ns >= one.until_ns:
                one.told(taken)
            else:
                self._awaited.append(one)

    def _settle(self, vg: str, uuid: str, hold: Hold, now: Handover | None) -> None:
        me = self._context.me
        if hold in (Hold.LENDING, Hold.GIVING):
            ours = now if now is not None and now.giver == me else None
            decided = ours is not None and ours.step is HandoverStep.TAKE
            if decided:
                self._start(vg, uuid, "let go of", close_end(vg, uuid))
            elif ours is None or ours.step is not HandoverStep.LEND or hold is not Hold.LENDING:
                self._start(vg, uuid, "take back", take_back(vg, uuid, ours.taker if ours else 0))
        elif now is None or now.taker != me:
            self._start(vg, uuid, "drop", close_end(vg, uuid))
        elif now.step is HandoverStep.TAKE:
            self._start(vg, uuid, "take", take(vg, uuid))

    def _start(self, vg: str, uuid: str, what: str, command: Command) -> None:
        name = self._tasks.opened.get((vg, uuid), uuid)

        def finished(result: object, error: RingfenceError | None) -> None:
            self.busy.pop(uuid, None)
            self._again_ns.pop(uuid, None)
            if result is True:
                what = f"LV {vg}/{name} is held EX here and not open: its path was gone when its hand-over"
                what += f" ended; to open it: lvchange -aey {vg}/{name}"
                self._context.record("handover-dropped", what, vg=vg, lv=name)
            if error is not None and not isinstance(error, LocksLost):
                self._again_ns[uuid] = self._context.now_ns + AGAIN_MS * 1_000_000

        self.busy[uuid] = "the end of an earlier hand-over"
        self._tasks.start(f"handover: {what} {vg}/{name}", command, finished)

    def _say_rest(self, uuid: str, one: Handover) -> None:
        """Of an LV whose path is not held here: the last word of its hand-over, if nobody has said it yet."""
        context = self._context
        use = self._locker.find(space_of(one.vg), uuid)
        held = use.held if use is not None else None
        last: entries.HandoverTold | entries.AskHandover | None = None
        if one.step is HandoverStep.TAKE and one.taker == context.me:
            if held is not None and held.mode is Mode.EX:
                last = entries.HandoverTold(one.life, one.number, uuid)
        elif one.step is HandoverStep.TAKE:
            if one.giver == context.me and held is not None:
                self._start(one.vg, uuid, "let go of", close_end(one.vg, uuid))
        elif one.giver == context.me and held is not None:
            last = entries.AskHandover(0, one.vg, one.lv, uuid, one.taker, HandoverStep.DROP)
        if last is not None and last not in context.outbox.unapplied(type(last)):
            context.submit(last)

    def report(self) -> list[dict[str, Any]]:
        """For `status`: what is on its way, in the whole cluster."""
        context, state = self._context, self._context.state
        if state is None:
            return []
        ways = {uuid: way for uuid in state.handovers if (way := under_way(state, uuid)) is not None}
        return [
            {
                "vg": one.vg,
                "lv": one.lv,
                "uuid": uuid,
                "giver": context.name(one.giver),
                "taker": context.name(one.taker),
                "step": one.step.value,
                "since_wall_ms": one.since_ms,
            }
            for uuid, one in ways.items()
        ]

    def left_over(self, volumes: tuple[OpenVolume, ...]) -> dict[str, str]:
        """VG/LV -> what is said of a path whose writes wait, though nothing is handed over any more."""
        state = self._context.state
        return {
            f"{one.vg}/{one.lv}": "its writes wait until this host has it EX again: its hand-over was dropped"
            for one in volumes
            if one.hold is Hold.GIVING and (state is None or under_way(state, one.uuid) is None)
        }

    def lost(self, error: RingfenceError) -> None:
        """This life is stale."""
        questions, self._questions = self._questions, {}
        awaited, self._awaited = self._awaited, []
        self._asked, self._again_ns = [], {}
        for question in questions.values():
            question.told(error)
        for one in awaited:
            one.told(False)


def _refused(volume: str, why: str) -> Refused:
    return Refused(
        f"Logical volume {volume} is not handed over: {why}", next=f"ringfence why {volume}", retry=True
    )
