"""LVs whose metadata was changed while they are active: whoever has one reloads its table.

What this node has open itself is the business of a part of its own (`reloads`).  The rest is about LVs that
stock LVM2 has active on several hosts.

Two ways lead here.  A stock command that has changed an LV under its shared lock asks for it (refresh_lv):
an entry, which every other member of the VG's lockspace answers; the command is told once all have that hold
the LV's lock (who takes it later reads the VG then), and has failed if one has.  Who is late is waited for
no longer, and remembered (`lines`).  And every change of a VG's metadata, by whatever command, makes hosts
that have LVs of it active in shared mode look which of those have changed (`lvm2.images`), and reload them.
A reload makes the LV stand still for a moment, so what has not changed is left alone: what it was loaded
from is known from a look after it became active; if the VG has changed before that look, it is reloaded once
for nothing.

For each VG one such look or reload goes on at a time; changes that come meanwhile are looked at together.
An LV that is active in exclusive mode is nobody else's to change."""

from collections.abc import Callable
from functools import partial

import msgspec

from ringfence.core.errors import RingfenceError
from ringfence.core.ids import Life
from ringfence.core.locknames import VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine.commands.locking import space_of
from ringfence.engine.commands.refresh import look_at, refresh
from ringfence.engine.context import Context
from ringfence.engine.facts import RefreshAsked, RefreshHeard, VgChanged
from ringfence.engine.locker import Locker
from ringfence.engine.orders import Command
from ringfence.engine.reloads import Reloads
from ringfence.engine.reports import in_queues
from ringfence.engine.state import VgVersion
from ringfence.engine.tasks import Tasks
from ringfence.lvm2.images import LvImage
from ringfence.lvm2.names import check_name
from ringfence.wire import REFRESHES
from ringfence.wire.entries import AskRefresh, RefreshTold

ANSWER_MS = 45_000
"""How long a stock command waits for the others: longer than a process may take (`refresh.LIMIT_MS`)."""
PATIENCE_MS = 10_000
"""How long a command of ours does, whose change is committed and takes nothing away: a host that has not
reloaded goes on with what it has, and opens nothing anew by it (`commands.locking.check_newest`)."""
SPACING_MS = 200
"""From the beginning of one look at a VG to the next."""
QUIET_MS = 1_000
"""After an activation, before what it was loaded from is looked at: they come in thousands."""
AGAIN_MS = 10_000
"""After a look or a reload that failed."""

Told = Callable[[RingfenceError | None], None]
_GOES_ON = "until then it goes on with what it had of it, and opens nothing anew by that"


class _Question(msgspec.Struct):
    """A command here waits for the others."""

    vg: str
    lv: str
    uuid: str
    asked_ns: int
    late_ns: int
    told: Told | None
    """None: it was told already, that somebody is late."""
    awaited: dict[int, Life] | None = None
    """Who has yet to answer; None: the question itself is not applied yet."""
    failed: dict[int, str] = {}


class _Loaded(msgspec.Struct, frozen=True):
    """What an LV's table was loaded from."""

    crc: int
    """Of its image."""
    version: VgVersion | None = None
    """That the VG had when it was reloaded; None: it was not, since it is known here."""


class _Vg(msgspec.Struct):
    loaded: dict[str, _Loaded] = {}
    """By the LV's uuid, those that are known."""
    fresh: dict[str, VgVersion | None] = {}
    """LVs that have become active and were not looked at since -> what version the VG had then."""
    asked: list[RefreshAsked] = []
    due_ns: int = 0
    """When to look which LVs have changed; 0: there is no reason to."""
    began_ns: int = 0
    runs: bool = False
    trouble: str = ""
    """Of the last look: what others ask for does not wait for the next one then."""


class Refreshes:
    def __init__(self, context: Context, locker: Locker, tasks: Tasks) -> None:
        self._context = context
        self._locker = locker
        self._tasks = tasks
        self.own = Reloads(context, tasks)
        tasks.ask_reload = partial(self.ask, patience_ms=PATIENCE_MS)
        self._last = 0
        self._questions: dict[int, _Question] = {}
        self._vgs: dict[str, _Vg] = {}
        """VGs of which stock LVM2 has, or had, LVs active here in shared mode."""

    # -- who asks ------------------------------------------------------------------------

    def ask(self, vg: str, lv: str, uuid: str, told: Told, patience_ms: int = ANSWER_MS) -> None:
        """Have every other host reload an LV; `told` is called once, with what went wrong, if anything.

        Args: patience_ms: it is called by then.

        Raises Refused (this node, or the cluster's protocol, cannot do it now), BadInput (names)."""
        context = self._context
        context.must_act()
        context.must_speak(REFRESHES, "reloads volumes of other hosts")
        check_name(vg)
        check_name(lv, "LV")
        self._last += 1
        late_ns = context.now_ns + patience_ms * 1_000_000
        self._questions[self._last] = _Question(vg, lv, uuid, context.now_ns, late_ns, told)
        context.submit(AskRefresh(self._last, vg, lv, uuid))

    def lost(self, error: RingfenceError) -> None:
        """This life is stale."""
        questions, self._questions, self._vgs = self._questions, {}, {}
        self.own.lost()
        for question in questions.values():
            if question.told is not None:
                question.told(error)

    def lines(self, vg: str, uuid: str) -> list[str]:
        """For `why`: who has yet to say that it has reloaded an LV."""
        context, found = self._context, []
        for question in self._questions.values():
            if (question.vg, question.uuid) == (vg, uuid):
                for node in question.awaited or ():
                    waits_s = (context.now_ns - question.asked_ns) / 1e9
                    found.append(
                        f"{context.name(node)} has not said for {waits_s:.1f} s that it has reloaded "
                        f"{vg}/{question.lv}, which was changed; {_GOES_ON}; "
                        f"next: there, lvchange --refresh {vg}/{question.lv}"
                    )
        return found

    # -- what happens here ----------------------------------------------------------------

    def activated(self, vg: str, uuid: str) -> None:
        """Stock LVM2 is about to load this LV's table, in shared mode, under the VG's lock."""
        one = self._vgs.setdefault(vg, _Vg())
        one.loaded.pop(uuid, None)
        one.fresh[uuid] = self._version(vg)
        one.due_ns = self._context.now_ns + QUIET_MS * 1_000_000

    def entered(self) -> None:
        """This node runs in a new epoch: it may have missed changes, or taken LVs over."""
        self.own.entered()
        for use in self._locker.persistent():
            if use.by_lvm2 and use.held is not None and use.held.mode is Mode.PR:
                vg = use.lockspace.removeprefix(VG_SPACE)
                one = self._vgs.setdefault(vg, _Vg())
                one.due_ns = one.due_ns or self._context.now_ns

    def changed(self, fact: VgChanged) -> bool:
        """A VG's metadata was changed, by whomever.  Returns whether something here may have to follow."""
        due = self.own.changed(fact)
        one = self._vgs.get(fact.vg)
        if one is not None and one.due_ns == 0:
            one.due_ns = max(self._context.now_ns, one.began_ns + SPACING_MS * 1_000_000)
        return due or one is not None

    def asked(self, fact: RefreshAsked) -> None:
        context, state = self._context, self._context.running
        assert state is not None
        question = self._questions.get(fact.number) if fact.by == context.life else None
        if question is not None:
            holders = self._holders(fact.vg, fact.uuid)
            question.awaited = {node: state.lives[node] for node in fact.nodes if node in holders}
        if context.me not in fact.nodes:
            return
        if fact.vg in context.killed:
            context.submit(RefreshTold(fact.by, fact.number, False, "an admin has killed the VG here"))
            return
        use = self._locker.find(space_of(fact.vg), fact.uuid)
        if use is None or not use.by_lvm2:
            context.submit(RefreshTold(fact.by, fact.number, refreshed=False))
        else:
            self._vgs.setdefault(fact.vg, _Vg()).asked.append(fact)

    def heard(self, fact: RefreshHeard) -> None:
        question = self._questions.get(fact.number) if fact.by == self._context.life else None
        if question is not None and question.awaited and fact.node in question.awaited:
            del question.awaited[fact.node]
            if fact.failed:
                self._failed(question, fact.node, fact.failed)

    def _failed(self, question: _Question, node: int, why: str) -> None:
        question.failed[node] = why
        name = self._context.name(node)
        what = f"{name} did not reload LV {question.vg}/{question.lv}: {why}"
        self._context.record("refresh-failed", what, node=node, vg=question.vg, lv=question.lv)

    # -- time ------------------------------------------------------------------------------

    def look(self) -> None:
        context = self._context
        self.own.look()
        if self._questions:
            self._tell()
        if not self._allowed():
            return
        for vg, one in self._vgs.items():
            if one.runs:
                continue
            if one.due_ns and (one.due_ns <= context.now_ns or (one.asked and not one.trouble)):
                self._begin_look(vg, one)
            elif one.asked:
                self._begin_asked(vg, one)

    def _tell(self) -> None:
        context, state = self._context, self._context.running
        for number, question in list(self._questions.items()):
            awaited = question.awaited
            if awaited and state is not None:  # what is active on a host that is lost ends with it
                holders = self._holders(question.vg, question.uuid)
                awaited = {
                    node: life
                    for node, life in awaited.items()
                    if state.lives.get(node) == life and node in holders
                }
                question.awaited = awaited
            late = context.now_ns >= question.late_ns
            if not awaited and (awaited is not None or late):
                del self._questions[number]
            if question.told is not None and (late or number not in self._questions):
                told, question.told = question.told, None
                for node in awaited or ():
                    waited_s = (question.late_ns - question.asked_ns) // 1_000_000_000
                    self._failed(question, node, f"no answer within {waited_s} s")
                told(self._verdict(question))

    def _verdict(self, question: _Question) -> RingfenceError | None:
        volume = f"{question.vg}/{question.lv}"
        if question.awaited is None:
            return RingfenceError(f"LV {volume}: the ring has not brought the question back", retry=True)
        if not question.failed:
            return None
        told = ", ".join(f"{self._context.name(node)} ({why})" for node, why in question.failed.items())
        late = f"; {_GOES_ON}; why: ringfence why {volume}" if question.awaited else ""
        return RingfenceError(
            f"LV {volume} was not reloaded by {told}", next=f"there: lvchange --refresh {volume}{late}"
        )

    # -- what others ask for -------------------------------------------------------------------

    def _begin_asked(self, vg: str, one: _Vg) -> None:
        context = self._context
        asked, one.asked, one.runs = one.asked, [], True

        def finished(failed: dict[str, str], error: RingfenceError | None) -> None:
            one.runs = False
            for fact in asked:
                why = str(error) if error is not None else failed.get(fact.uuid, "")
                if context.running is not None and fact.by in context.running.lives.values():
                    context.submit(RefreshTold(fact.by, fact.number, refreshed=not why, failed=why))

        lvs = {fact.uuid: fact.lv for fact in asked}
        self._tasks.start("refresh", self._reload(vg, one, lvs, self._version(vg)), finished)

    def _reload(self, vg: str, one: _Vg, lvs: dict[str, str], version: VgVersion | None) -> Command:
        """Answer: uuid -> why, of those that could not be reloaded."""
        failed = {}
        for uuid, lv in lvs.items():
            loaded = one.loaded.get(uuid)
            if loaded is not None and loaded.version is not None and loaded.version == version:
                continue  # by the look at the same change
            why = (yield from refresh(vg, (lv,), self._allowed)).get(lv, "")
            self._note(vg, [lv], why)
            if why:
                failed[uuid] = why
        return failed

    # -- what has changed ----------------------------------------------------------------------

    def _begin_look(self, vg: str, one: _Vg) -> None:
        shared, version = self._shared(vg), self._version(vg)
        one.due_ns, one.began_ns = 0, self._context.now_ns
        active = set(shared)
        one.loaded = {uuid: loaded for uuid, loaded in one.loaded.items() if uuid in active}
        one.fresh = {uuid: then for uuid, then in one.fresh.items() if uuid in active}
        if not shared:
            return
        one.runs = True

        def finished(failed: int, error: RingfenceError | None) -> None:
            one.runs = False
            trouble = str(error) if error is not None else f"{failed} LVs were not reloaded" if failed else ""
            if error is not None and trouble != one.trouble:
                what = f"VG {vg} has changed, and which of its shared LVs did is not known: {trouble}"
                self._context.record("refresh-failed", what, vg=vg)
            one.trouble = trouble
            if trouble:
                one.due_ns = one.due_ns or self._context.now_ns + AGAIN_MS * 1_000_000

        self._tasks.start("refresh", self._catch_up(vg, one, shared, version), finished)

    def _catch_up(self, vg: str, one: _Vg, shared: list[str], version: VgVersion | None) -> Command:
        """Reload what is not as the metadata says.  Answer: how many could not be reloaded."""
        images: dict[str, LvImage] = yield from look_at(vg, shared)
        stale = {image.name: uuid for uuid, image in images.items() if _stale(one, uuid, image, version)}
        failed: dict[str, str] = yield from refresh(vg, stale, self._allowed)
        self._note(vg, [lv for lv in stale if lv not in failed])
        for lv, why in failed.items():
            self._note(vg, [lv], why)
        for uuid, image in images.items():
            if image.name in stale and image.name not in failed:
                one.loaded[uuid] = _Loaded(image.crc, version)
            elif image.name not in stale and uuid not in one.loaded:
                one.loaded[uuid] = _Loaded(image.crc)
            one.fresh.pop(uuid, None)
        return len(failed)

    def _note(self, vg: str, lvs: list[str], why: str = "") -> None:
        names = ", ".join(f"{vg}/{lv}" for lv in lvs)
        if why:
            what = f"LV {names} was not reloaded: {why}; by hand: lvchange --refresh {names}"
            self._context.record("refresh-failed", what, vg=vg)
        elif lvs:
            self._context.record("lv-refreshed", f"stock LVM2 reloaded {names}: its metadata changed", vg=vg)

    def _allowed(self) -> bool:
        """A lock that may be another's by now is no reason to load a table."""
        return self._context.running is not None and self._context.may_report

    # -- reading --------------------------------------------------------------------------------

    def _shared(self, vg: str) -> list[str]:
        """LVs that stock LVM2 has active here in shared mode, by uuid; of a killed VG none is reloaded."""
        if vg in self._context.killed:
            return []
        space = space_of(vg)
        return [
            use.resource
            for use in self._locker.persistent()
            if use.by_lvm2 and use.lockspace == space and use.held is not None and use.held.mode is Mode.PR
        ]

    def _holders(self, vg: str, uuid: str) -> frozenset[int]:
        """Nodes that hold an LV's lock, as the ordered state has it."""
        state = self._context.state
        space = state.lockspaces.get(space_of(vg)) if state is not None else None
        resource = space.resources.get(uuid) if space is not None else None
        queues = in_queues(resource) if resource is not None else []
        return frozenset(lock.owner for _, lock in queues if lock.held > Mode.NL)

    def _version(self, vg: str) -> VgVersion | None:
        state = self._context.state
        return state.vgs.get(vg) if state is not None else None


def _stale(one: _Vg, uuid: str, image: LvImage, version: VgVersion | None) -> bool:
    """Whether an LV's table may have been loaded from other metadata than this."""
    loaded = one.loaded.get(uuid)
    if loaded is not None:
        return loaded.crc != image.crc
    return uuid not in one.fresh or one.fresh[uuid] != version
