"""Clients' requests: what each call does, and its one reply.

Reports are answered at once from the state this node has.  What changes the cluster is an entry; its
reply waits until this node has applied it.  Volume commands run as tasks."""

from collections.abc import Callable, Generator
from typing import Any

import msgspec

from ringfence.core.errors import BadInput, NotFound, Refused, RingfenceError
from ringfence.core.ids import Epoch
from ringfence.core.listed import listed
from ringfence.core.locknames import VG_SPACE, lockspace_name, resource_name, vg_of
from ringfence.core.modes import Mode
from ringfence.engine import deadlocks, reports
from ringfence.engine.apply import NODES_STAY
from ringfence.engine.arming import Arming
from ringfence.engine.checkups import Checkups
from ringfence.engine.client_locks import ClientLocks
from ringfence.engine.commands import command_for, lvs
from ringfence.engine.commands.disks import find_vg
from ringfence.engine.commands.handover import handover
from ringfence.engine.commands.locking import space_of
from ringfence.engine.commands.report import Broken
from ringfence.engine.context import Context, Phase
from ringfence.engine.deadlocks import Deadlocks
from ringfence.engine.drills import Drills
from ringfence.engine.effects import Answer, Ended
from ringfence.engine.explain import Explanation
from ringfence.engine.facts import ConfigRefused
from ringfence.engine.fence_tests import FenceTests
from ringfence.engine.fencer import Fencer
from ringfence.engine.handovers import Handovers
from ringfence.engine.inputs import Asked
from ringfence.engine.leaving import leave
from ringfence.engine.locker import Locker
from ringfence.engine.lvmlockd.server import Lvmlockd
from ringfence.engine.mover import Mover
from ringfence.engine.operator import Operator, named
from ringfence.engine.orders import (
    Command,
    GiveBack,
    JoinLockspace,
    LeaveLockspace,
    NoteProgress,
    OpenPaths,
    OpenVolume,
    Order,
)
from ringfence.engine.refreshes import Refreshes
from ringfence.engine.slots import Slots
from ringfence.engine.tasks import Tasks
from ringfence.engine.views import Views
from ringfence.engine.wiper import Wiper
from ringfence.fencing.power_on import explain
from ringfence.locks.deadlock import Ring
from ringfence.volumes.access import check_ours
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.plan import find_lv
from ringfence.volumes.report import percent_of
from ringfence.wire import MOVES, entries
from ringfence.wire import client as calls
from ringfence.wire.checkup import Checkup
from ringfence.wire.client import Reply

CHANGE_NODES = "stop ringfence on all hosts, give all of them the new file, start it (docs/SETUP.md, Later)"
STANDING = (Phase.SUSPENDED, Phase.NO_RING, Phase.SHUT_OUT, Phase.STALE)
"""Phases that do not pass by themselves within moments."""


class _Pending(msgspec.Struct):
    """An own entry whose application is awaited."""

    seq: int
    answer: Callable[[], None]


NAMED = 5
"""So many of a long list are named to people."""
OUTSIDE = (Phase.STARTING, Phase.NO_RING, Phase.SUSPENDED)
"""Whoever has no state there was not let in, in this life."""


class Requests:
    def __init__(
        self,
        context: Context,
        locker: Locker,
        locks: ClientLocks,
        tasks: Tasks,
        views: Views,
        fencer: Fencer,
        deadlocks: Deadlocks,
        checkups: Checkups,
        fence_tests: FenceTests,
        drills: Drills,
        arming: Arming,
        slots: Slots,
        lvmlockd: Lvmlockd,
        refreshes: Refreshes,
        wiper: Wiper,
        mover: Mover,
        handovers: Handovers,
    ) -> None:
        self._context = context
        self._wiper, self._mover = wiper, mover
        self._lvmlockd = lvmlockd
        self._refreshes = refreshes
        self._handovers = handovers
        self._slots = slots
        self._locker = locker
        self._tasks = tasks
        self._views = views
        self._fencer = fencer
        self._deadlocks = deadlocks
        self._checkups = checkups
        self._fence_tests = fence_tests
        self._drills = drills
        self.locks = locks
        self.pending: list[_Pending] = []
        """Who waits until an entry was applied."""
        self._config_refused = ""
        self._operator = Operator(context, arming, fencer.doing, self._await, self._send, self._must_act)

    # -- inputs ------------------------------------------------------------------------

    def asked(self, asked: Asked) -> None:
        client, id, call = asked.client, asked.request.id, asked.request.call
        try:
            do = self.locks.answers.get(type(call))
            if do is not None:
                do(client, id, call, asked.who)
                return
            if not isinstance(call, calls.VOLUME_CALLS):  # of those it is their orders that say so
                self._context.only_locks = False
            self._dispatch(client, id, call, asked.who)
        except RingfenceError as error:
            self._send(client, Reply(id, error=error.as_dict()))

    def client_gone(self, client: int) -> None:
        self._tasks.client_gone(client)
        self.locks.gone(client)

    def config_refused(self, fact: ConfigRefused) -> None:
        self._config_refused = fact.why

    def look(self) -> None:
        """Answer what was waiting for its entry."""
        if self.pending:
            applied = [one for one in self.pending if not self._context.outbox.waits(one.seq)]
            self.pending = [one for one in self.pending if self._context.outbox.waits(one.seq)]
            for one in applied:
                one.answer()
        self.locks.look()

    def lost(self, error: RingfenceError) -> None:
        """This life is stale; its entries will not be applied any more."""
        pending, self.pending = self.pending, []
        self._config_refused = error.message
        for one in pending:
            one.answer()
        self._config_refused = ""
        self.locks.lost()

    # -- what each call does -----------------------------------------------------------------

    def _dispatch(self, client: int, id: str, call: calls.Call, who: str) -> None:
        match call:
            case calls.Status():
                self._run(client, id, call, self._status())
            case calls.Why():
                self._run(client, id, call, self._why(call.target))
            case calls.Locks():
                lockspace = lockspace_name(call.lockspace) if call.lockspace else ""
                self._must_know(lockspace)
                self._run(client, id, call, reports.locks(self._context, lockspace, self._locker))
            case calls.Deadlocks():
                self._must_act()
                self._deadlocks.ask(lambda found: self._send(client, self._rings(id, found)))
            case calls.Checkup():
                self._checkups.ask(lambda found: self._send(client, _told(id, found)))
            case calls.FenceTest():
                self._must_act()
                self._fence_tests.ask(call.target, id, lambda reply: self._send(client, reply))
            case calls.FenceDrill():
                self._must_act()
                self._drills.ask(call, call.who, id, lambda reply: self._send(client, reply))
            case calls.LvHandover():
                self._must_act()
                self._must_reach_storage()
                self._run(client, id, call, handover(call, self._handovers.busy))
            case calls.FenceConfirm():
                self._confirm(client, id, call, who)
            case calls.FenceTrust():
                self._trust(client, id, call, who)
            case _ if isinstance(call, calls.OPERATOR_CALLS):
                self._operator.asked(client, id, call, who)
            case calls.ConfigApply():
                self._apply_config(client, id, call)
            case calls.Leave():
                self._leave(client, id, call)
            case calls.JoinSpace():
                lockspace = lockspace_name(call.lockspace)
                self._context.check_name(lockspace)
                if call.wait_ms == 0:
                    self._must_act()
                    if self._context.running is not None and not self._context.is_in(lockspace):
                        self._must_run(lockspace)
                self._run(client, id, call, _join(lockspace))
            case calls.LeaveSpace():
                lockspace = lockspace_name(call.lockspace)
                self._run(client, id, call, self._leave_space(lockspace, force=call.force))
            case calls.PurgeOrphans():
                resource = resource_name(call.resource) if call.resource else ""
                lockspace = lockspace_name(call.lockspace)
                self._must_know(lockspace)
                self._locker.purge_orphans(
                    lockspace,
                    resource,
                    lambda purged: self._send(client, Reply(id, result={"purged": purged})),
                )
            case _:
                self._volume(client, id, call)

    def _volume(self, client: int, id: str, call: Any) -> None:
        if not isinstance(call, calls.VOLUME_CALLS):
            raise BadInput(f"{type(call).__name__} is not answered here", next="see ringfence --help")
        changes = not isinstance(call, calls.READING_CALLS)
        waits = getattr(call, "wait_ms", 0) is None
        lets_go = isinstance(call, calls.LvChange) and call.activate == "n"
        if changes and not waits and not lets_go:
            self._must_act()
        if lets_go:
            self._must_have_taken_over()
        elif changes and not isinstance(call, calls.VgChange):
            self._must_reach_storage()
        if isinstance(call, calls.VgCfgRestore | calls.VgRename):
            self._must_run(space_of(call.vg))
        if isinstance(call, calls.PvMove) and not call.abort:
            self._context.must_speak(MOVES, "moves LVs")
        # What a path's state is, only this node's tasks know; who else asks gets what the locks say.
        if isinstance(call, calls.Lvs):
            self._run(client, id, call, lvs(call, self._broken(), self._moved()))
        else:
            self._run(client, id, call, command_for(call))

    def _leave(self, client: int, id: str, call: calls.Leave) -> None:
        context = self._context
        self._must_have_taken_over()
        if self._is_outside:
            words = f"{context.name(context.me)} was not in the cluster: there is nothing to leave"
            self._send(client, Reply(id, result={"message": words, "closed": [], "lost": 0}))
            context.out(Ended(words))
            return
        if not call.force:
            self.locks.end_all()
        self._run(client, id, call, leave(self._taken_away if call.force else None))

    @property
    def _is_outside(self) -> bool:
        """No life of this host can be missed by the others.

        One that ended a moment ago can, until its grace is over: only the next life may say its goodbye."""
        context = self._context
        if context.state is not None or context.phase not in OUTSIDE:
            return False
        was_in = context.life.incarnation > 1 and context.disk.epoch > Epoch()
        return not was_in or any(life.node == context.me for life in context.disk.out)

    def _leave_space(self, lockspace: str, *, force: bool) -> Command:
        self._must_know(lockspace)
        lost = 0
        active = self._locker.persistent()
        by_lvm2 = [use.what for use in active if use.by_lvm2 and use.lockspace == lockspace]
        if by_lvm2:
            raise Refused(
                f"lockspace {lockspace}: {len(by_lvm2)} LVs are active here through LVM2 ({by_lvm2[0]}, ...)",
                next=f"lvm vgchange -an {lockspace.removeprefix(VG_SPACE)}, then leave again",
            )
        if force:
            volumes: tuple[OpenVolume, ...] = yield OpenPaths()
            used = [f"{one.vg}/{one.lv}" for one in volumes if space_of(one.vg) == lockspace]
            if used:
                raise Refused(
                    f"lockspace {lockspace}: {', '.join(used)} is open here, which no force will close",
                    next="ringfence lvchange -an, then leave again",
                )
            lost = self._taken_away(lockspace)
        else:
            yield GiveBack((lockspace,))
        yield LeaveLockspace(lockspace)
        return {"left": lockspace, "lost": lost}

    def _taken_away(self, lockspace: str) -> int:
        """How many locks clients lose by it.  Raises Refused."""
        self._must_run(lockspace)
        return self.locks.take_away(lockspace)

    def _must_run(self, lockspace: str) -> None:
        """Raises Refused unless what is let go of there goes to others at once."""
        context = self._context
        blocking = context.must_act().blocking(lockspace)
        if blocking:
            names = ", ".join(dict.fromkeys(context.name(one.life.node) for one in blocking))
            raise Refused(
                f"lockspace {lockspace} is frozen until {names} is fenced", next="ringfence why", retry=True
            )

    def _must_know(self, lockspace: str) -> None:
        """Raises NotFound for a lockspace that nobody is in ("": all are meant)."""
        state = self._context.running
        if lockspace and state is not None and lockspace not in state.lockspaces:
            raise NotFound(f"there is no lockspace {lockspace}", next="ringfence locks")

    def _must_act(self) -> None:
        """Raises Refused if this node cannot take part in anything for now."""
        context = self._context
        if context.phase in STANDING:
            raise Refused(
                f"{context.name(context.me)} cannot act now: {self._views.why}",
                node=context.name(context.me),
                next="ringfence why",
                retry=True,
            )

    def _must_reach_storage(self) -> None:
        """Raises Refused while this node's way to the storage is not open again.

        What it wrote before then would fail; or not, where nobody has reserved anything yet, and then it
        could not be cut off: what is not registered cannot be preempted."""
        state = self._context.running
        own = [one for one in state.power_ons if one.life == self._context.life] if state else []
        if state is not None and own:
            raise Refused(
                f"no volume is written yet: {explain(state.config, own[0])}",
                node=self._context.name(self._context.me),
                next="mend the device, then try again",
                retry=True,
            )

    def _must_have_taken_over(self) -> None:
        """Raises Refused while the locks of open volumes are not this life's own: it could release none."""
        context = self._context
        if context.left_open:
            names = listed([one.what for one in context.left_open], NAMED)
            raise Refused(
                f"{context.name(context.me)} was started anew and waits to take over {names}",
                node=context.name(context.me),
                next="ringfence why",
                retry=True,
            )

    def _run(self, client: int, id: str, call: Any, command: Command) -> None:
        def finished(result: Any, error: RingfenceError | None) -> None:
            reply = Reply(id, error=error.as_dict()) if error is not None else Reply(id, result=result)
            self._send(client, reply)

        self._tasks.start(_named(call), command, finished, client)

    # -- reports ---------------------------------------------------------------------------------

    def _status(self) -> Command:
        volumes, broken, trouble = yield from self._look_at_paths()
        exports = [msgspec.to_builtins(volume) for volume in volumes]
        wrong = [*broken.values(), *([trouble] if trouble else []), *self._slots.lines(marks_only=True)]
        status = reports.status(
            self._context, exports, self._views.barrier, self._views.why, wrong, doing=self._fencer.doing
        )
        wiping = [msgspec.to_builtins(one) for one in self._progress()]
        handovers = self._handovers.report()
        return {**status, "slots": self._slots.report(), "wiping": wiping, "handovers": handovers}

    def _why(self, target: str) -> Command:
        _, broken, trouble = yield from self._look_at_paths()
        where, unclean, moves = self._known(target), None, list[str]()
        if where is None and target.count("/") == 1:
            found = yield from _resolve(target)
            if found is not None:
                vg, lv = found
                where = space_of(vg.name), lv.uuid
                unclean = self._wiper.line(vg, lv) if lv.unclean else None
                moves = self._mover.lines(vg, lv)
        explanation = Explanation(
            self._context, self._locker, self.locks, self._views.barrier, self._views.why, self._fencer.doing,
            self._slots, self._lvmlockd.waits(),
        )  # fmt: skip
        try:
            answer = explanation.of(target, where)
        except NotFound as error:
            if self._context.state is None or "/" in target:  # no VG's name: the disks know no more of it
                raise
            answer = yield from _without_locks(target, self._context.config.name, error)
        about_all = target in ("", self._context.name(self._context.me))
        lines = [line for name, line in broken.items() if about_all or name == target]
        if trouble and (about_all or "/" in target):
            lines.append(trouble)
        if lines:
            said = answer["lines"] if answer["stuck"] or not about_all else []
            answer["lines"] = [*lines, *said]
            answer["stuck"] = True
        if unclean is not None:
            answer["lines"] = [unclean, *answer["lines"]]
        answer["lines"] += moves
        late = self._refreshes.lines(vg_of(where[0]) or "", where[1]) if where is not None else []
        if late:
            answer["lines"], answer["stuck"] = [*late, *answer["lines"]], True
        answer["lines"] += [
            f"VG {name}: {what} by this host: {trouble}"
            for what, troubles in (
                ("an LV is not moved", self._mover.troubles if not moves else {}),
                ("LVs are not zeroed or wiped to the end", self._wiper.troubles if unclean is None else {}),
            )
            for name, trouble in troubles.items()
            if about_all or target.partition("/")[0] == name
        ]
        answer["lines"] += [
            f"LV {one.vg}/{one.lv}: {100 * one.done_bytes // max(one.size_bytes, 1)} % of "
            f"{one.size_bytes >> 20} MiB are {one.what} by this host"
            for one in self._progress()
            if about_all or target in (one.vg, f"{one.vg}/{one.lv}")
        ]
        return answer

    def _moved(self) -> dict[str, str]:
        return {
            f"{one.vg}/{one.lv}": percent_of(one.done_bytes, one.size_bytes)
            for one in self._progress()
            if one.what == "moved" and one.size_bytes
        }

    def _progress(self) -> list[NoteProgress]:
        return [task.progress for task in self._tasks.running() if task.progress is not None]

    def _look_at_paths(self) -> Generator[Order, Any, tuple[tuple[OpenVolume, ...], dict[str, str], str]]:
        """This host's open volumes; what is wrong with which (VG/LV -> line); or why nothing can be told."""
        broken = self._broken()
        try:
            volumes: tuple[OpenVolume, ...] = yield OpenPaths()
        except RingfenceError as error:
            return (), {}, f"block service: {error}"
        return volumes, broken(volumes), ""

    def _broken(self) -> Broken:
        """To be asked for before the block service is; tells what is wrong with what it then lists."""
        due = list(self._tasks.opened)

        def broken(volumes: tuple[OpenVolume, ...]) -> dict[str, str]:
            wrong = {f"{one.vg}/{one.lv}": one.failed for one in volumes if one.failed}
            listed = frozenset((one.vg, one.uuid) for one in volumes)
            for vg, uuid in due:
                name = self._tasks.opened.get((vg, uuid))
                if name is not None and (vg, uuid) not in listed:
                    why = "the block service was started anew, or did not open it"
                    wrong[f"{vg}/{name}"] = f"its export is gone: {why}"
            lines = {
                name: f"{name} is active here, but {what}; "
                f"next: ringfence lvchange -a{self._how(name)} {name}"
                for name, what in sorted(wrong.items())
            }
            stopped = {f"{one.vg}/{one.lv}": one.stopped for one in volumes if one.stopped and not one.failed}
            stopped |= self._handovers.left_over(volumes)
            stopped |= {name: what for name, what in self._refreshes.own.wrong.items() if name not in wrong}
            return lines | {name: f"{name} is active here, but {what}" for name, what in stopped.items()}

        return broken

    def _how(self, volume: str) -> str:
        """How an LV is active here: ey or sy."""
        shared = any(
            use.what == f"LV {volume}" and use.held is not None and use.held.mode is not Mode.EX
            for use in self._locker.persistent()
        )
        return "sy" if shared else "ey"

    def _known(self, target: str) -> tuple[str, str] | None:
        """The resource behind VG/LV, if somebody here uses it or asks for it: no disk need be read."""
        for use in (*self._locker.waiting(), *self._locker.persistent()):
            if use.what == f"LV {target}":
                return use.lockspace, use.resource
        return None

    def _rings(self, id: str, found: list[Ring] | RingfenceError) -> Reply:
        if isinstance(found, RingfenceError):
            return Reply(id, error=found.as_dict())
        return Reply(id, result=deadlocks.report(self._context, found))

    # -- entries ------------------------------------------------------------------------------------

    def _await(self, entry: entries.Entry, answer: Callable[[], None]) -> None:
        self.pending.append(_Pending(self._context.submit(entry), answer))

    def _confirm(self, client: int, id: str, call: calls.FenceConfirm, who: str) -> None:
        context = self._context
        self._must_act()
        state = context.state
        # By name, so that one that is not configured any more is found as well.
        victims = [
            one for one in (state.victims() if state else []) if context.name(one.life.node) == call.node
        ]
        lives = [victim.life for victim in victims]
        if not lives:
            if all(node.name != call.node for node in context.config.nodes):
                raise NotFound(f"no node is called {call.node}", next="ringfence status")
            raise Refused(
                f"{call.node} is not waiting to be fenced: nothing to confirm", next="ringfence status"
            )
        if any(call.signed_ns <= self._fencer.seen_ns(victim) for victim in victims):
            raise Refused(
                f"{call.node} was lost after this was signed: the word may be about another moment",
                node=call.node,
                next="look at the machine again, then sign again",
                retry=True,
            )

        def answer() -> None:
            left = [v.life for v in context.state.victims() if v.life in lives] if context.state else lives
            result = {"node": call.node, "confirmed": [str(life) for life in lives], "waiting": len(left)}
            self._send(client, Reply(id, result=result))

        shown = tuple((victim.life, victim.since) for victim in victims)
        self._await(entries.OperatorConfirms(lives[0].node, named(call.who, who), call.why, shown), answer)

    def _trust(self, client: int, id: str, call: calls.FenceTrust, who: str) -> None:
        self._must_act()
        state = self._context.state
        if all(device.name != call.device for device in self._context.config.devices):
            raise NotFound(f"no device is called {call.device}", next="ringfence config show")
        if state is None or call.device not in state.domain.quarantined:
            raise Refused(f"device {call.device} is not in quarantine", next="ringfence status")
        reply = Reply(id, result={"device": call.device})
        entry = entries.QuarantineLifted(call.device, named(call.who, who))
        self._await(entry, lambda: self._send(client, reply))

    def _apply_config(self, client: int, id: str, call: calls.ConfigApply) -> None:
        self._must_act()

        def answer() -> None:
            why, self._config_refused = self._config_refused, ""
            if why:
                cure = CHANGE_NODES if why == NODES_STAY else "ringfence config show"
                error = Refused(f"configuration not applied: {why}", next=cure)
                self._send(client, Reply(id, error=error.as_dict()))
            else:
                self._send(client, Reply(id, result={"version": call.config.version}))

        self._await(entries.ConfigProposed(call.config), answer)

    def _send(self, client: int, reply: Reply) -> None:
        self._context.out(Answer(client, reply))


def _resolve(target: str) -> Generator[Order, Any, tuple[Vg, Lv] | None]:
    """Look VG/LV up on the disks; anything else is taken for LOCKSPACE/RESOURCE."""
    vg, _, lv = target.partition("/")
    try:
        _, found = yield from find_vg(vg)
        return found.vg, find_lv(found.vg, lv)
    except RingfenceError:
        return None


def _without_locks(target: str, cluster: str, unknown: NotFound) -> Generator[Order, Any, dict[str, Any]]:
    """Of a VG that stands on the disks and has no lockspace: why not.  Raises `unknown`: there is none."""
    try:
        _, found = yield from find_vg(target)
    except RingfenceError:
        raise unknown from None
    line = f"no node is in the lockspace of VG {target}; next: ringfence vgchange --lockstart {target}"
    try:
        check_ours(found.vg, cluster)
    except RingfenceError as error:
        line = f"{error.message}: no lock of it is known here; next: {error.next}"
    return {"target": target, "stuck": False, "lines": [line]}


def _join(lockspace: str) -> Command:
    yield JoinLockspace(lockspace)
    return {"joined": lockspace}


def _told(id: str, found: Checkup | RingfenceError) -> Reply:
    if isinstance(found, RingfenceError):
        return Reply(id, error=found.as_dict())
    return Reply(id, result=msgspec.to_builtins(found))


def _named(call: Any) -> str:
    """For messages: "lvchange vg0/vm1"."""
    verb = type(call).__name__.lower()
    vg, lv = getattr(call, "vg", ""), getattr(call, "lv", "")
    return f"{verb} {vg}{'/' if lv else ''}{lv}".strip()
