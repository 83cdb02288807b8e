"""Running commands: each a generator that yields orders; here the orders find their answers.

Lock and ring orders are answered by this engine, storage and block orders leave it as effects.
What a command waits for from the ordered state (its own entry applied, a lockspace joined) is looked
at again after every step rather than awaited as a message, so that nothing is missed when this
node had to take a snapshot meanwhile.

A command that meets a fault of its own (an assertion, bytes that nobody thought of) ends, and the daemon
goes on: it has no order out at that moment, so nothing of it is still to be done, and what it has done is
what a crash there would have left.  Its locks end as those of a client that is gone: whoever has them next
cannot trust their values, and looks at the disks.  What it had locked for good may be open, and stays locked,
until somebody deactivates it.  An exception of anything but the command's own code ends the daemon."""

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from ringfence.core.errors import InternalError, Refused, RingfenceError, TimedOut, from_dict, printable
from ringfence.core.evidence import Power
from ringfence.core.locknames import vg_of
from ringfence.core.modes import Mode
from ringfence.engine import orders
from ringfence.engine.agent_calls import AgentCalls, Call
from ringfence.engine.client_locks import ClientLocks, Recall, in_use
from ringfence.engine.commands.locking import space_of
from ringfence.engine.context import Context
from ringfence.engine.denials import lost_error
from ringfence.engine.effects import DoOrder, Trace
from ringfence.engine.facts import SpaceLeft
from ringfence.engine.handover_entries import under_way
from ringfence.engine.inputs import AgentExited
from ringfence.engine.locker import Locker
from ringfence.engine.path_locks import PathLocks
from ringfence.engine.slots import Slots
from ringfence.engine.together import Done, Together
from ringfence.engine.uses import Owner
from ringfence.locks.flags import Flag
from ringfence.lvm2.names import UUID_CHARACTERS
from ringfence.wire import DELTAS, FENCING, UNCLEAN, entries
from ringfence.wire.block import Hold

UUIDS = 4
END_SLOTS_MS = 5000
FAULT_LENGTH = 300
WRITES = orders.WriteBlocks, orders.WriteVersion
QUIET = (
    orders.Acquire, orders.Convert, orders.Release, orders.FindLock, orders.FindLocks, orders.Holders,
    orders.Identity, orders.Joined, orders.SeqnoHeard, orders.Recall, orders.Remember, orders.Publish,
    orders.ReadDisks, orders.ReadBlocks, orders.WriteBlocks, orders.WriteVersion, orders.ZeroBlocks,
)  # fmt: skip
"""What commands ask for of which nothing follows, on this node, but what becomes of their locks and entries
(`Context.only_locks`): `Tasks.look` waits for none of them, and no part that looks round reads what they
change.  They ask the locker, which is looked at in each step; or read the ordered state, this node's name, or
the VGs that it knows, which no part looks at; or submit a notice, whose facts say what follows of it wherever
it is applied; or have a thread read or write disks, of which the command alone learns.
(tests/sim/test_sim_quiet_steps.py looks round after each such step, and finds nothing.)"""
Finished = Callable[[Any, RingfenceError | None], None]
Told = Callable[[RingfenceError | None], None]


class _Given(msgspec.Struct, eq=False):
    """An order that the driver has got."""

    task: "Task"
    order: orders.DriverOrder
    refusals: dict[int, RingfenceError] = {}
    """Of many orders about paths, by their number, those that the driver has not got."""
    staggered: bool = False
    stale: bool = False
    """It was given in a life that is lost."""
    answer: Any = None
    """Of what is staggered, once it is there."""


class Task(msgspec.Struct):
    number: int
    what: str
    command: orders.Command
    finished: Finished
    client: int | None
    owner: Owner
    locks: list[int] = []
    """Transient locks: released when the command ends, whatever way it ends."""
    waits_for: orders.Order | None = None
    lock: int = 0
    """The lock whose operation it waits for; 0: none."""
    run: int = 0
    """The agent call that it waits for; 0: none."""
    until_ns: int = 0
    """When its pause, or its patience, is over."""
    step: int = 0
    """In which it let others have their turn."""
    seq: int = 0
    """The own entry that must be applied; 0: none."""
    kept: list[str] = []
    """Resources of the lockspace to be left that are still to be given back."""
    leaves: tuple[str, ...] = ()
    """Lockspaces in which nothing new is asked for until the command ends."""
    recall: Recall | None = None
    refused: str = ""
    gives_way: bool = False
    """Nobody asked for it: who leaves a lockspace waits until it has let go of its locks there."""
    progress: orders.NoteProgress | None = None
    together: Together | None = None
    """Of the many lock orders that it waits for."""
    locked: tuple[Any, ...] | None = None
    """Of orders.Staggered: the answers to its locks, once they are there."""
    begun: _Given | None = None
    """The paths of the last one, which the next one is answered with; None: there were none."""
    awaited: _Given | None = None
    """Those of the one before, which the last one is answered with."""
    over: tuple[Any, RingfenceError | None] | None = None
    """How it has ended, while the driver has yet an order of it."""
    broken: bool = False
    """By a fault of its own."""
    loud: bool = False
    """It has asked for something that is not `QUIET`."""
    warnings: list[str] = []
    """By whoever carried its orders out: they go with its result."""


class Tasks:
    def __init__(
        self, context: Context, locker: Locker, clients: ClientLocks, calls: AgentCalls, slots: Slots
    ) -> None:
        self._context = context
        self._slots = slots
        self._locker = locker
        self._clients = clients
        self._calls = calls
        self.by_number: dict[int, Task] = {}
        """Commands that run."""
        self._last = 0
        self._orders: dict[int, _Given] = {}
        self._last_order = 0
        self._drawn = 0
        self.opened: dict[tuple[str, str], str] = {}
        """(VG, LV's uuid) -> its name, of each path that was to be opened, and not closed since: it ought to
        be in the service's list."""
        self.held: dict[tuple[str, str], Hold] = {}
        """Of these, paths that are held, or may be, with how: their LVs are being handed over."""
        self.path_locks = PathLocks(locker)
        self.was_opened: Callable[[Sequence[orders.OpenPath]], None] = lambda opened: None
        """Told of paths that have been opened."""
        self.ask_reload: Callable[[str, str, str, Told], None] | None = None
        """`Refreshes.ask`."""
        self.ask_handover: Callable[[orders.AskHandover, Told], None] | None = None
        self.await_taken: Callable[[str, Callable[[bool], None]], None] | None = None
        """Those of `Handovers`."""
        self.was_reloaded: Callable[[orders.ReloadPath, str], None] = lambda order, what: None
        """Likewise, and by which command."""

    def start(
        self,
        what: str,
        command: orders.Command,
        finished: Finished,
        client: int | None = None,
        *,
        gives_way: bool = False,
    ) -> None:
        """Run a command; `finished(result, error)` is called once.

        gives_way: it asks for `Wanted` now and then, and ends soon if it is."""
        self._last += 1
        owner = Owner(f"command {self._last}", what)
        task = Task(self._last, what, command, finished, client, owner, gives_way=gives_way)
        self.by_number[task.number] = task
        self._advance(task, None, None)

    @property
    def waits(self) -> bool:
        """Whether a command waits for something that is looked at (`look`)."""
        return any(not isinstance(task.waits_for, QUIET) for task in self.by_number.values())

    def running(self) -> list[Task]:
        return list(self.by_number.values())

    # -- what happens -------------------------------------------------------------------

    def order_done(self, order: int, answer: Any, error: dict[str, Any] | None) -> None:
        given = self._orders.pop(order, None)
        if given is None:
            return
        task, done = given.task, given.order
        if not isinstance(done, QUIET):
            self._context.only_locks = False
        if isinstance(done, WRITES) and answer and answer not in task.warnings:
            task.warnings.append(answer)
        if not given.stale:
            self._path_done(task, done, answer, failed=error is not None)
        failed = from_dict(error) if error is not None else None
        if given.refusals and failed is None:
            answer = _woven(answer, given.refusals)
        if given.staggered:
            given.answer = answer if failed is None else failed
            self._staggered_done(task)
        elif task.over is None:
            self._advance(task, answer, failed)
        if task.over is not None:
            self._end(task, *task.over)

    def _path_done(self, task: Task, done: orders.DriverOrder, answer: Any, *, failed: bool) -> None:
        """What has become of an order, if it was about paths."""
        self.path_locks.done(done, answer, failed=failed)
        for one in _opens(done):  # or not: what failed is closed next
            self.opened[one.vg, one.uuid] = one.lv
        if failed:
            if isinstance(done, orders.ClosePath):
                self._not_closed(done)
            return
        self._note_hold(done)
        self.was_opened(_opened_by(done, answer))
        if isinstance(done, orders.ReloadPath):
            if (done.vg, done.uuid) in self.opened:  # else it is being closed meanwhile
                self.opened[done.vg, done.uuid] = done.name
            for use in self._locker.persistent_on(space_of(done.vg), done.uuid):
                if use.named == f"LV {done.vg}/{done.lv}":  # another LV may have that name from now on
                    use.named = f"LV {done.vg}/{done.name}"
            self.was_reloaded(done, task.what)

    def _not_closed(self, order: orders.ClosePath) -> None:
        """Whose lock is still here is open, or broken if there is no path of it: `why` tells."""
        if self._locker.persistent_on(space_of(order.vg), order.uuid):
            self.opened[order.vg, order.uuid] = order.lv

    def _note_hold(self, done: orders.Order | None) -> None:
        if isinstance(done, orders.ClosePath) or (
            isinstance(done, orders.ReloadPath) and done.hold is Hold.NONE
        ):
            self.held.pop((done.vg, done.uuid), None)

    def cancel_calls(self, devices: Collection[str]) -> None:
        """End what commands run on these devices; each learns it as an answer that says nothing."""
        for task in list(self.by_number.values()):
            order = task.waits_for
            if isinstance(order, orders.CallAgent) and order.use.device in devices:
                self._calls.cancel(task.run)
                nothing = AgentExited(task.run, Power.UNKNOWN, "cancelled", 0, answered=False)
                self._advance(task, nothing, None)

    def space_left(self, fact: SpaceLeft) -> None:
        """The ordered state's answer to this node's wish to leave a lockspace."""
        for task in self.by_number.values():
            order = task.waits_for
            if isinstance(order, orders.LeaveLockspace) and order.lockspace == fact.lockspace and task.seq:
                task.refused = fact.refused

    def client_gone(self, client: int) -> None:
        """Its commands go on, but none of them waits for a lock on behalf of nobody."""
        for task in list(self.by_number.values()):
            if task.client != client:
                continue
            task.client = None
            given_up = TimedOut("given up: the client went away", next="try again", retry=True)
            if task.lock:
                self._locker.give_up(task.lock, given_up)
            elif task.together is not None:
                for lock in task.together.locks:
                    self._locker.give_up(lock, given_up)
            elif isinstance(task.waits_for, orders.JoinLockspace):
                self._advance(task, None, given_up)

    def lost(self) -> None:
        """This life is stale: every command learns it at its yield, and every path is dropped."""
        self.opened.clear()
        self.held.clear()
        self.path_locks.clear()
        for task in list(self.by_number.values()):
            waits_here = isinstance(task.waits_for, orders.ENGINE_ORDERS) or self._waits_for_locks_alone(task)
            if waits_here:  # which no command does that has ended by what another was told
                error = lost_error(task.what, self._context.name(self._context.me))
                self._advance(task, None, error)
        for task in self.by_number.values():
            task.refused = "stale"  # its storage or block order is still out; it learns it with the answer
            task.together = None  # what it has not asked for yet is not asked for in another life
        for given in self._orders.values():
            given.stale = True

    def look(self) -> None:
        """Go on with what has become true."""
        for task in list(self.by_number.values()):
            if task.number in self.by_number:
                self._look(task)

    # -- one command ----------------------------------------------------------------------

    def _advance(self, task: Task, answer: Any, error: RingfenceError | None) -> None:
        """Run the command up to its next order that cannot be answered at once."""
        while True:
            driven = task.waits_for is not None and not isinstance(task.waits_for, orders.ENGINE_ORDERS)
            if driven and task.refused == "stale":
                error = lost_error(task.what, self._context.name(self._context.me))
            leaves = isinstance(task.waits_for, orders.LeaveLockspace)
            task.waits_for, task.lock, task.run, task.seq, task.refused = None, 0, 0, 0, ""
            task.together, task.locked = None, None
            if leaves:
                self._locker.leaving = self._leaving()
            try:
                order = task.command.throw(error) if error is not None else task.command.send(answer)
            except StopIteration as stop:
                self._end(task, stop.value, None)
                return
            except RingfenceError as failed:
                self._end(task, None, failed)
                return
            except Exception as fault:
                self._broken(task, fault)
                return
            task.waits_for = order
            if not isinstance(order, QUIET):
                task.loud, self._context.only_locks = True, False
            try:
                answered, answer = self._order(task, order)
                error = None
            except RingfenceError as failed:
                answered, error = True, failed
            if not answered:
                return

    def _leaving(self) -> list[str]:
        """Lockspaces that some command is about to leave."""
        waits_for = [task.waits_for for task in self.by_number.values()]
        leaving = [order.lockspace for order in waits_for if isinstance(order, orders.LeaveLockspace)]
        return leaving + [name for task in self.by_number.values() for name in task.leaves]

    def _end(self, task: Task, result: Any, error: RingfenceError | None) -> None:
        if self._is_out(task):
            task.over = result, error
            return
        del self.by_number[task.number]
        if task.loud or task.client is None:  # another part of this node may wait for its end
            self._context.only_locks = False
        if task.leaves:
            self._locker.leaving = self._leaving()
        if task.broken:
            self._locker.drop(task.locks)
        else:
            self._locker.leave_behind(task.locks)
        if task.warnings and isinstance(result, dict):
            result = {**result, "notes": [*(result.get("notes") or []), *task.warnings]}
        task.finished(result, error)

    def _broken(self, task: Task, fault: Exception) -> None:
        """The command has met a fault of its own, and is over."""
        context = self._context
        words = printable(f"{task.what} failed by a fault of ringfence itself: {fault!r}"[:FAULT_LENGTH])
        context.record("command-failed", words, command=task.what)
        context.out(Trace(fault))
        task.broken = True
        next = "see what it has left (ringfence locks, vgck), and report it with the daemon's log"
        self._end(task, None, InternalError(words, next=next))

    def _order(self, task: Task, order: orders.Order) -> tuple[bool, Any]:
        """Returns (answered, answer); not answered: `_advance` is called later."""
        if isinstance(order, orders.CallAgent):
            # Whoever fences with this device goes first.
            call = Call(order.use, order.action, order.node, task.what, order.timeout_ms, patient=True)
            task.run = self._calls.start(call, lambda exit: self._advance(task, exit, None))
            return False, None
        if isinstance(order, orders.Staggered):
            return self._stagger(task, order)
        if isinstance(order, orders.ClosePath) and self.path_locks.is_closed(order):
            return True, None
        if not isinstance(order, orders.ENGINE_ORDERS):
            answer = self._drive(task, order).answer
            return answer is not None, answer
        match order:
            case orders.Acquire() | orders.Convert() | orders.Release():
                return self._lock_order(task, order)
            case orders.LocksTogether():
                return self._locks_together(task, order)
            case orders.FindLock():
                use = self._locker.find(order.lockspace, order.resource)
                return True, use.held if use else None
            case orders.FindLocks():
                return True, self._locks_in(order.lockspace)
            case orders.Holders():
                return True, self._holders(order.lockspace, order.resource)
            case orders.SeqnoHeard():
                version = self._context.state.vgs.get(order.vg) if self._context.state else None
                return True, version.seqno if version else 0
            case orders.Joined():
                return True, tuple(joined(self._context))
            case orders.LockspaceMembers():
                return True, self._members(order.lockspace)
            case orders.Identity():
                return True, self._identity()
            case orders.Recall():
                return True, self._context.known_vgs
            case orders.Remember():
                self._context.known_vgs.put(order.known)
                return True, None
            case orders.LocksThere():
                return True, self._lock_names(order.lockspace)
            case orders.NoteSlots():
                self._context.vg_uuids |= order.uuids
                self._slots.note(order.places, order.without, made=order.made)
                return True, None
            case orders.NoteStopped():
                self._context.note_stopped([order.vg])
                return True, None
            case orders.NoteRenamed():
                self._context.note_renamed(order.names)
                return True, None
            case orders.NoteUnseen():
                self._context.note_unseen(order.vgs, order.removed)
                return True, None
            case orders.NoteUnclean():
                self._context.see_unclean(order.vg, order.uuids)
                return True, None
            case orders.NoteProgress():
                task.progress = order
                return True, None
            case orders.Wanted():
                return True, self._locker.wanted(order.lock)
            case orders.Pause():
                task.until_ns = self._context.now_ns + order.time_ms * 1_000_000
                return order.time_ms <= 0, None
            case orders.Publish():
                self._publish(order)
                return True, None
            case orders.AskReload():
                assert self.ask_reload is not None
                self.ask_reload(order.vg, order.lv, order.uuid, lambda error: self._told(task, order, error))
                return False, None
            case orders.AskHandover():
                assert self.ask_handover is not None
                self.ask_handover(order, lambda error: self._told(task, order, error))
                return False, None
            case orders.AwaitTaken():
                assert self.await_taken is not None
                self.await_taken(order.uuid, lambda taken: self._told(task, order, None, taken))
                return False, None
            case orders.Handovers():
                return True, self._handovers(order.vg)
            case orders.GoOn():
                task.step, self._context.more = self._context.step, True
                return False, None
            case _:
                return self._ring_order(task, order)

    def _drive(self, task: Task, order: orders.DriverOrder, *, staggered: bool = False) -> _Given:
        """Have it carried out; of many, those that may be.  If none may, their refusals are the answer.

        Raises Refused."""
        given = _Given(task, order, staggered=staggered)
        if isinstance(order, orders.PathsTogether):
            given.refusals = self.path_locks.ordered_together(order, task.number)
            given.order = order = _without(order, given.refusals)
            if not order.orders:
                given.answer = tuple(given.refusals.values())
                return given
        else:
            self.path_locks.ordered(order, task.number)
        for one in order.orders if isinstance(order, orders.PathsTogether) else (order,):
            if isinstance(one, orders.ClosePath):
                self.opened.pop((one.vg, one.uuid), None)
        if isinstance(order, orders.OpenPath | orders.ReloadPath) and order.hold not in (None, Hold.NONE):
            self.held[order.vg, order.uuid] = order.hold  # whatever becomes of it
        self._last_order += 1
        self._orders[self._last_order] = given
        self._context.out(DoOrder(self._last_order, order))
        return given

    def _stagger(self, task: Task, order: orders.Staggered) -> tuple[bool, Any]:
        task.awaited, task.begun = task.begun, None
        if order.paths.orders:  # first: they are on their way while the locks are asked for
            task.begun = self._drive(task, order.paths, staggered=True)
        answered, answer = self._locks_together(task, order.locks)
        if answered:
            task.together, task.locked = None, answer
        return self._staggered(task)

    @staticmethod
    def _staggered(task: Task) -> tuple[bool, Any]:
        """Whether all is there that the Staggered which it waits for is answered with; and that."""
        before = () if task.awaited is None else task.awaited.answer
        if task.locked is None or before is None:
            return False, None
        return True, (task.locked, before)

    def _staggered_done(self, task: Task) -> None:
        """One of the orders that were staggered is done."""
        if task.over is not None or not isinstance(task.waits_for, orders.Staggered):
            return
        if task.refused == "stale":
            answered, answer = not self._is_out(task), None
        else:
            answered, answer = self._staggered(task)
        if answered:
            self._advance(task, answer, None)

    def _waits_for_locks_alone(self, task: Task) -> bool:
        return isinstance(task.waits_for, orders.Staggered) and not self._is_out(task)

    def _is_out(self, task: Task) -> bool:
        """Whether the driver has an order of it."""
        return any(given.task is task for given in self._orders.values())

    def _lock_order(
        self, task: Task, order: orders.Acquire | orders.Convert | orders.Release
    ) -> tuple[bool, Any]:
        """The answer may come within the call, or later through `_advance`."""
        box: list[Any] = []
        within = True

        def done(result: orders.Held | RingfenceError | None) -> None:
            if within:
                box.append(result)
            elif isinstance(result, RingfenceError):
                self._forget(task, order)
                self._advance(task, None, result)
            else:
                self._advance(task, result, None)

        if isinstance(order, orders.Acquire):
            self._check_not_lvm2(order)
            lock = self._locker.acquire(
                order.lockspace, order.resource, order.mode, order.wait_ms, done,
                what=order.what, persistent=order.persistent, owner=task.owner,
            )  # fmt: skip
            if not order.persistent:
                task.locks.append(lock)
        elif isinstance(order, orders.Convert):
            lock = order.lock
            self.path_locks.check_lock(order)
            self._locker.convert(lock, order.mode, order.wait_ms, done, owner=task.owner)
        else:
            lock = order.lock
            self.path_locks.check_lock(order)
            self._locker.release(lock, done, lvb=order.lvb)
        within = False
        if not box:
            task.lock = lock
            return False, None
        if isinstance(box[0], RingfenceError):
            self._forget(task, order)
            raise box[0]
        return True, box[0]

    def _locks_together(self, task: Task, order: orders.LocksTogether) -> tuple[bool, Any]:
        """The answer may come within the call, or later through `_advance`."""

        def ask(alike: Sequence[orders.Acquire | orders.Release], dones: Sequence[Done]) -> list[int]:
            releases: list[int] = []
            wanted: list[orders.Acquire] = []
            answers: list[Done] = []
            for one, done in zip(alike, dones, strict=True):
                try:
                    if isinstance(one, orders.Release):
                        self.path_locks.check_lock(one)
                        releases.append(one.lock)
                    else:
                        self._check_not_lvm2(one)
                        wanted.append(one)
                except Refused as refused:
                    done(refused)
                else:
                    answers.append(done)
            if releases:
                self._locker.release_many(releases, answers)
            return self._locker.acquire_many(wanted, answers, task.owner) if wanted else releases

        def finished(answers: tuple[Any, ...]) -> None:
            if self.by_number.get(task.number) is task and task.together is together:
                self._locks_answered(task, answers)

        task.together = together = Together(order, self._context.at_once, ask, finished)
        return self._go_on_together(together)

    def _locks_answered(self, task: Task, answers: tuple[Any, ...]) -> None:
        task.together = None
        if not isinstance(task.waits_for, orders.Staggered):
            self._advance(task, answers, None)
            return
        task.locked = answers
        answered, both = self._staggered(task)
        if answered:
            self._advance(task, both, None)

    def _go_on_together(self, together: Together) -> tuple[bool, Any]:
        answers = together.go_on()
        self._context.more = together.more or self._context.more
        return answers is not None, answers

    def _told(
        self, task: Task, order: orders.Order, error: RingfenceError | None, answer: Any = None
    ) -> None:
        """The answer to an order that somebody else carries out, if the command still waits for it."""
        if self.by_number.get(task.number) is task and task.waits_for is order:
            self._advance(task, answer, error)

    def _check_not_lvm2(self, order: orders.Acquire) -> None:
        """An LV is active here through LVM2 or through a path of ours; LVM2's wish for it may be under way.

        Raises Refused."""
        for use in self._locker.persistent_on(order.lockspace, order.resource) if order.persistent else ():
            if use.by_lvm2:
                raise Refused(f"{order.what} is being activated here through LVM2", retry=True)

    def _forget(self, task: Task, order: orders.Order) -> None:
        """A refused Acquire leaves no lock behind."""
        if isinstance(order, orders.Acquire):
            task.locks = [lock for lock in task.locks if self._locker.use(lock) is not None]

    def _ring_order(self, task: Task, order: orders.Order) -> tuple[bool, Any]:
        context = self._context
        if isinstance(order, orders.EndSlots):
            task.until_ns = context.now_ns + END_SLOTS_MS * 1_000_000
            if context.state is not None and order.vg in context.state.slots:
                context.submit(entries.SlotsEnd(order.vg, order.gone))
        elif isinstance(order, orders.JoinLockspace):
            context.note_started(vg_of(order.lockspace) or "")
        elif isinstance(order, orders.SayGoodbye):
            task.seq = context.submit(entries.Goodbye(context.life))
        elif isinstance(order, orders.GiveBack):
            task.recall = self._clients.recall(order.lockspaces, for_good=order.for_good)
            task.leaves += order.lockspaces
            self._locker.leaving = self._leaving()
        elif isinstance(order, orders.HoldOff):
            self._check_lvm2(order.lockspaces)
            task.leaves += order.lockspaces
            self._locker.leaving = self._leaving()
        elif isinstance(order, orders.LeaveLockspace):
            if order.for_good:
                self._locker.purge_orphans(order.lockspace)
            self._check_unused(order.lockspace)
            self._locker.leaving = self._leaving()
            task.kept = self._locker.node_locks.resources(order.lockspace)
        self._look_order(task, order)
        return self._holds_now(task, order)

    def _publish(self, order: orders.Publish) -> None:
        context, vg = self._context, order.vg
        if context.state is None or context.protocol < UNCLEAN:
            context.only_locks = False  # for those who go on with them
            context.see_unclean(vg, order.unclean)
        elif (
            tuple(context.state.unclean.get(vg, ())) != order.unclean
            # What was said last is on its way yet: the next command of this host need not wait for it.
            or context.outbox.unapplied(entries.UncleanNoted)
        ):
            context.submit(entries.UncleanNoted(vg, order.unclean))
        delta = order.delta if context.protocol >= DELTAS else None
        context.submit(entries.VolumeNotice(vg, order.seqno, order.crc, order.what, delta, order.removed))

    def _check_lvm2(self, lockspaces: tuple[str, ...]) -> None:
        """Raises Refused while a command of stock LVM2 has, or asks for, a lock there."""
        active = {use.lock for use in self._locker.persistent() if use.held is not None}
        uses = [
            use
            for use in self._locker.uses()
            if use.by_lvm2 and use.lockspace in lockspaces and use.lock not in active
        ]
        if uses:
            raise in_use(self._context, uses)

    def _active(self, lockspaces: tuple[str, ...]) -> tuple[orders.Active, ...]:
        return tuple(
            orders.Active(use.lock, use.lockspace, use.what, use.by_lvm2)
            for use in self._locker.persistent()
            if use.lockspace in lockspaces
        )

    def _check_unused(self, lockspace: str) -> None:
        """Raises Refused while anybody has a lock there that is not about to end, be it an orphan's."""
        ending = {*self._locker.ending(lockspace), *self._given_way(lockspace)}
        locks = [lock for lock in self._locker.node_locks.clients(lockspace) if lock not in ending]
        uses = [use for use in map(self._locker.use, locks) if use is not None]
        if uses:
            raise in_use(self._context, uses)
        if locks:
            me = self._context.name(self._context.me)
            raise Refused(
                f"lockspace {lockspace}: clients that ended left orphans on {me} ({len(locks)})",
                next=f"ringfence lockspace purge {lockspace}, then leave again",
            )

    def _given_way(self, lockspace: str) -> list[int]:
        """Locks of commands that let go of them by themselves, now that the node leaves."""
        locks = [lock for task in self.by_number.values() if task.gives_way for lock in task.locks]
        return [lock for lock in locks if (use := self._locker.use(lock)) and use.lockspace == lockspace]

    def _look(self, task: Task) -> None:
        order = task.waits_for
        if task.together is not None:
            answered, answers = self._go_on_together(task.together)
            if answered:
                self._locks_answered(task, answers)
            return
        if order is None or task.lock or not isinstance(order, orders.ENGINE_ORDERS):
            return
        try:
            self._look_order(task, order)
            done, answer = self._holds_now(task, order)
        except RingfenceError as error:
            self._advance(task, None, error)
            return
        if done:
            self._advance(task, answer, None)

    def _look_order(self, task: Task, order: orders.Order) -> None:
        """Submit what has to be submitted once something else is done."""
        context = self._context
        if isinstance(order, orders.JoinLockspace):
            self._ask_to_join(order.lockspace)
        elif isinstance(order, orders.LeaveLockspace) and not task.seq:
            if self._locker.ends(order.lockspace) or self._given_way(order.lockspace):
                return
            locks = self._locker.node_locks
            some, task.kept = task.kept[-context.at_once :], task.kept[: -context.at_once]
            for resource in some:
                self._locker.take(locks.give_back(order.lockspace, resource))
            context.more = bool(task.kept) or context.more
            if not locks.holds(order.lockspace):
                task.seq = context.submit(entries.LeaveLockspace(order.lockspace))

    def _holds_now(self, task: Task, order: orders.Order) -> tuple[bool, Any]:
        context = self._context
        if isinstance(order, orders.JoinLockspace):
            return context.running is not None and context.is_in(order.lockspace), None
        if isinstance(order, orders.EndSlots):
            return self._slots_ended(task, order.vg), None
        if isinstance(order, orders.Pause):
            return context.now_ns >= task.until_ns, None
        if isinstance(order, orders.GoOn):
            return context.step > task.step, None
        if isinstance(order, orders.HoldOff):
            return True, self._active(order.lockspaces)
        if isinstance(order, orders.GiveBack):
            assert task.recall is not None
            return self._clients.recalled(task.recall), None
        if not task.seq or context.outbox.waits(task.seq):
            return False, None
        if isinstance(order, orders.LeaveLockspace) and task.refused:
            raise Refused(
                f"cannot leave: {task.refused}", next=f"ringfence why {order.lockspace}", retry=True
            )
        if isinstance(order, orders.SayGoodbye) and not context.left:
            raise Refused(f"{context.name(context.me)} is still in a lockspace", next="ringfence locks")
        return True, None

    def _slots_ended(self, task: Task, vg: str) -> bool:
        """Raises Refused if that takes too long: a node whose array hangs may write there yet."""
        context, state = self._context, self._context.running
        if state is not None and vg not in state.slots:
            return True
        if context.now_ns >= task.until_ns:
            keepers = state.slots.get(vg, []) if state is not None else []
            names = ", ".join(context.name(node) for node in keepers) or "this node"
            raise Refused(
                f"the disk slots of VG {vg} are still used by {names}", next=f"ringfence slots show {vg}",
                retry=True,
            )  # fmt: skip
        return False

    def _ask_to_join(self, lockspace: str) -> None:
        context = self._context
        state = context.running
        if state is None or context.is_in(lockspace):
            return
        space = state.lockspaces.get(lockspace)
        asked = (
            (lockspace, context.me) in state.pending_joins
            or (space is not None and context.me in space.joining and state.member(lockspace, context.me))
            or entries.JoinLockspace(lockspace) in context.outbox.unapplied(entries.JoinLockspace)
        )
        if not asked:
            context.submit(entries.JoinLockspace(lockspace))

    # -- reading ----------------------------------------------------------------------------

    def _holders(self, lockspace: str, resource: str) -> tuple[orders.Holder, ...]:
        state = self._context.state
        space = state.lockspaces.get(lockspace) if state else None
        found = space.resources.get(resource) if space else None
        return tuple(
            orders.Holder(lock.owner, self._context.name(lock.owner), lock.held, lock.token, lock.since_ms)
            for lock in ((*found.granted, *found.converting) if found else ())
            if lock.token is not None and lock.held is not Mode.UN and not lock.flags & Flag.AHEAD
        )

    def _handovers(self, vg: str) -> dict[str, orders.OnItsWay]:
        context, state = self._context, self._context.state
        found: dict[str, orders.OnItsWay] = {}
        if state is None:
            return found
        for uuid, one in state.handovers.items():
            if one.vg == vg and under_way(state, uuid) is not None:
                names = context.name(one.giver), context.name(one.taker)
                found[uuid] = orders.OnItsWay(one.giver, one.taker, one.step, names)
        return found

    def _locks_in(self, lockspace: str) -> dict[str, orders.Held]:
        return {
            use.resource: use.held
            for use in self._locker.persistent()
            if use.lockspace == lockspace and use.held is not None
        }

    def _lock_names(self, lockspace: str) -> orders.LockNames:
        state = self._context.state
        space = state.lockspaces.get(lockspace) if state else None
        here = [
            use.resource
            for use in self._locker.persistent()
            if use.lockspace == lockspace and use.held is not None
        ]
        return orders.LockNames(frozenset(space.resources) if space else frozenset(), frozenset(here))

    def _members(self, lockspace: str) -> tuple[str, ...]:
        state = self._context.state
        space = state.lockspaces.get(lockspace) if state else None
        return tuple(self._context.name(node) for node in space.members) if space else ()

    def _identity(self) -> orders.Whoami:
        context = self._context
        seeds = []
        for _ in range(UUIDS):
            self._drawn += 1
            # Unique for ever: a life is never lived twice, and within it this counts up.
            text = f"{context.config.name} {context.life} {context.life.boot} {context.now_ns} {self._drawn}"
            digest = hashlib.sha256(text.encode()).digest()
            seeds.append("".join(UUID_CHARACTERS[byte % len(UUID_CHARACTERS)] for byte in digest))
        return orders.Whoami(
            context.config.name, context.me, context.name(context.me), context.config.naive,
            context.wall_ms // 1000, tuple(seeds),
            {node.id: node.name for node in context.config.nodes},
            context.protocol >= FENCING and not context.config.naive,
            context.config.volumes.wipe_mib_s,
        )  # fmt: skip


def _opens(order: orders.Order | None) -> list[orders.OpenPath]:
    every = order.orders if isinstance(order, orders.PathsTogether) else (order,)
    return [one for one in every if isinstance(one, orders.OpenPath)]


def _opened_by(order: orders.Order | None, answer: Any) -> list[orders.OpenPath]:
    """The paths that this order has opened."""
    if isinstance(order, orders.OpenPath):
        return [order]
    if not isinstance(order, orders.PathsTogether):
        return []
    both = zip(order.orders, answer, strict=True)
    return [one for one, its in both if isinstance(one, orders.OpenPath) and isinstance(its, orders.Opened)]


def _without(order: orders.PathsTogether, refused: Collection[int]) -> orders.PathsTogether:
    if not refused:
        return order
    return orders.PathsTogether(
        tuple(one for number, one in enumerate(order.orders) if number not in refused)
    )


def _woven(answers: tuple[Any, ...], refusals: dict[int, RingfenceError]) -> tuple[Any, ...]:
    """The answers to all orders of which some were refused, in their order."""
    others = iter(answers)
    count = len(answers) + len(refusals)
    return tuple(refusals[number] if number in refusals else next(others) for number in range(count))


def joined(context: Context) -> list[str]:
    """Lockspaces that this node is fully in, sorted."""
    names = context.state.lockspaces if context.state is not None else ()
    return sorted(filter(context.is_in, names))
