"""Requests of stock LVM2: whose they are, and what each is told.

Source: LVM2 daemons/lvmlockd/lvmlockd-core.c (client_recv_action, lockspace_thread_main, worker_thread_main),
lvmlockd-dlm.c (lm_init_vg_dlm, lm_prepare_lockspace_dlm, lm_hosts_dlm).  Two things are otherwise here.  A VG
is *busy* while another host has a lock of one of its LVs, not while it is merely in the lockspace: hosts join
by themselves, and nobody needs to stop a VG everywhere in order to remove it.  And no force takes a lock
that may be in use."""

import errno
from collections.abc import Callable

from ringfence.core.errors import BadInput, Refused, RingfenceError
from ringfence.core.locknames import GLOBAL_SPACE, VG_SPACE, lockspace_name
from ringfence.engine.commands.locking import VG_RESOURCE, space_of
from ringfence.engine.context import Context
from ringfence.engine.effects import LvmAnswer, Note
from ringfence.engine.inputs import LvmGone
from ringfence.engine.locker import Locker
from ringfence.engine.lvm_processes import LvmProcesses
from ringfence.engine.lvmlockd import info, killing, spaces
from ringfence.engine.lvmlockd.ahead import Ahead
from ringfence.engine.lvmlockd.locks import Locks
from ringfence.engine.lvmlockd.recent import Recent
from ringfence.engine.lvmlockd.replies import Replies
from ringfence.engine.lvmlockd.sessions import Session
from ringfence.engine.lvmlockd.spaces import Spaces
from ringfence.engine.lvmlockd.versions import Versions
from ringfence.engine.orders import Command, JoinLockspace
from ringfence.engine.refreshes import Refreshes
from ringfence.engine.slots import Slots
from ringfence.engine.tasks import Tasks
from ringfence.engine.uses import Owner
from ringfence.lvm2.names import check_vg_name
from ringfence.volumes.access import DLM, lock_args_of
from ringfence.wire.lvmlockd import EARGS, ENOLS, ESTARTING, EVGKILLED, LM_DLM, LvmAnswered, LvmAsked

LOCK_OPS = ("lock_gl", "lock_vg", "lock_lv", "vg_update", "free_lv")
CMD = 64
ARGS_BYTES = 64
"""Longest lock_args of a VG, with its NUL."""


class Lvmlockd:
    def __init__(
        self,
        context: Context,
        locker: Locker,
        tasks: Tasks,
        slots: Slots,
        processes: LvmProcesses,
        refreshes: Refreshes,
    ) -> None:
        self._ahead = Ahead(context, locker, tasks)
        self._context = context
        self._locker = locker
        self._tasks = tasks
        self._refreshes = refreshes
        self._recent = Recent()
        self.used = False
        """A command has asked for something since this daemon started."""
        self._sessions: dict[int, Session] = {}
        self._starting: dict[str, None] = {}
        """Lockspaces that a stock command has started, and that are not joined yet."""
        self._waiting: dict[int, Session] = {}
        """Who waits until none is."""
        self._stoppers: dict[int, Session] = {}
        """Who waits until all lockspaces can be stopped."""
        self._dropping: dict[str, None] = {}
        """VGs of which it is looked whether they can be dropped."""
        self._replies = Replies(context, refreshes.activated, self._recent)
        self._versions = Versions(context)
        self._locks = Locks(
            context, locker, Spaces(self._join, self._starts), self._replies, self._versions, slots,
            self._ahead, processes,
        )  # fmt: skip
        self._ops: dict[str, Callable[[Session, LvmAsked], int | None]] = {
            "running_lm": lambda session, asked: LM_DLM,
            "init_vg": self._init_vg,
            "init_lv": lambda session, asked: 0,
            "find_free_lock": lambda session, asked: 0,
            "start_vg": self._start_vg,
            "start_wait": self._start_wait,
            "stop_vg": self._stop_vg,
            "stop_all": self._stop_all,
            "busy_vg": self._busy_vg,
            "free_vg": self._free_vg,
            "rename_vg_before": self._rename_before,
            "rename_vg_final": lambda session, asked: 0,
            "query_lock_vg": self._query,
            "query_lock_lv": self._query,
            "refresh_lv": self._refresh,
            "kill_vg": self._kill,
            "drop_vg": self._drop,
            "info": self._info,
            "dump": self._dump,
            "enable_gl": lambda session, asked: -errno.EINVAL,  # sanlock's alone
            "disable_gl": lambda session, asked: -errno.EINVAL,
            "quit": lambda session, asked: -errno.EBUSY,
        }
        """What is not in here is not served: -EOPNOTSUPP."""

    # -- connections -------------------------------------------------------------------------

    def asked(self, client: int, asked: LvmAsked) -> None:
        session = self._sessions.get(client)
        if session is None:
            self.used = True
            owner = Owner(f"stock LVM2 {client}", _who(asked))
            session = self._sessions[client] = Session(client, owner, (asked.pid, asked.started))
        elif asked.cmd and not session.cmd:
            session.owner = Owner(session.owner.name, _who(asked))
        session.cmd = session.cmd or asked.cmd
        session.asked = asked
        self._locks.heard(session)
        if self._ends(asked.vg_name) and killing.is_refused(asked):
            self._note(session, f"{asked.op}: VG {asked.vg_name} was killed here; see lvmlockctl --drop")
            self._replies.answer(session, -EVGKILLED)
            return
        if asked.op in LOCK_OPS:
            self._locks.ask(session)
            return
        self._context.only_locks = False
        try:
            result = self._answer_to(session, asked)
        except BadInput as error:
            self._note(session, f"{asked.op}: {error.message}")
            result = -errno.EINVAL
        if result is not None:
            self._replies.answer(session, result)

    def _ends(self, vg: str) -> bool:
        """Whether no lock is given there: an admin has killed the VG here, or drops it just now."""
        return vg in self._context.killed or vg in self._dropping

    def _answer_to(self, session: Session, asked: LvmAsked) -> int | None:
        op = self._ops.get(asked.op)
        if op is None:
            self._note(session, f"{asked.op} is not served here")
            return -errno.EOPNOTSUPP
        return op(session, asked)

    def gone(self, fact: LvmGone) -> None:
        session = self._sessions.pop(fact.client, None)
        if session is not None:
            self._waiting.pop(fact.client, None)
            self._stoppers.pop(fact.client, None)
            self._locks.gone(session, unread=fact.unread, hung_up=fact.hung_up)

    def lost(self) -> None:
        """This life is stale; the Locker has answered what was in flight."""
        self._locks.lost(list(self._sessions.values()))
        self._ahead.lost()

    def look(self) -> None:
        """There is nothing to look at before it is `used`."""
        self._ahead.look()
        self._locks.look()
        if self._waiting and not self._starting:
            waiting, self._waiting = self._waiting, {}
            for session in waiting.values():
                self._replies.answer(session, 0)
        if self._stoppers and not self._used():
            stoppers, self._stoppers = self._stoppers, {}
            for session in stoppers.values():
                self._stop_unused(session)

    def waits(self) -> list[str]:
        """For `why`: what stock commands wait for here that is no lock."""
        me = self._context.name(self._context.me)
        starting = [
            f"on {me}, {session.who} waits until {', '.join(self._starting)} is joined"
            for session in self._waiting.values()
        ]
        return self._locks.waits() + starting

    def _reply(self, session: Session, answered: LvmAnswered) -> None:
        session.asked = None
        self._context.out(LvmAnswer(session.client, answered))

    def _note(self, session: Session, what: str) -> None:
        self._context.out(Note("lvmlockd", f"{session.who}: {what}"))

    def _run(
        self,
        session: Session,
        what: str,
        command: Command,
        over: Callable[[RingfenceError | None], None] | None = None,
    ) -> None:
        """Answered when the command ends."""

        def finished(result: object, error: RingfenceError | None) -> None:
            if over is not None:
                over(error)
            if error is not None:
                self._note(session, f"{what}: {error}")
            self._replies.answer(session, -errno.EBUSY if error is not None else 0)

        self._tasks.start(what, command, finished)

    # -- start -----------------------------------------------------------------------------

    def _init_vg(self, session: Session, asked: LvmAsked) -> int | None:
        """vgcreate asks what to write into the metadata."""
        space = _space(asked.vg_name)
        if asked.vg_lock_type != DLM:
            return -errno.EPROTONOSUPPORT
        args = lock_args_of(self._context.config.name)
        if len(args.encode()) >= ARGS_BYTES:
            return -EARGS
        if self._in_use(space, others=False) or self._in_use(space, others=True):
            return -errno.EEXIST
        self._reply(session, LvmAnswered(asked.op, vg_lock_args=args))
        return None

    def _start_vg(self, session: Session, asked: LvmAsked) -> int | None:
        space = _space(asked.vg_name)
        if asked.vg_lock_type != DLM:
            return -errno.EPROTONOSUPPORT
        ours = lock_args_of(self._context.config.name)
        version, _, cluster = asked.vg_lock_args.partition(":")
        if version.split(".")[0] != ours.split(".")[0] or cluster != self._context.config.name:
            self._note(
                session,
                f"VG {asked.vg_name} is locked with {asked.vg_lock_args or 'nothing'}, not with {ours}: "
                "it is another cluster's",
            )
            return -EARGS
        self._context.note_started(asked.vg_name)
        if asked.vg_uuid:
            self._context.vg_uuids[space] = asked.vg_uuid
        made = session.made.pop(asked.vg_name, None)
        if made is not None:
            self._versions.publish(session, asked.vg_name, made)
        if session.renames == asked.vg_name:  # it came to nothing
            session.renames = ""
        return self._renamed(session, self._begin(space))

    def _begin(self, space: str) -> int:
        if self._context.is_in(space):
            return -errno.EEXIST
        if self._starts(space):
            return -ESTARTING
        self._join(space)
        return 0

    def _start_wait(self, session: Session, asked: LvmAsked) -> int | None:
        if not self._starting:
            return 0
        self._waiting[session.client] = session
        return None

    def _join(self, space: str) -> None:
        """Once it can be had; nobody is told."""
        if space in self._starting:
            return
        self._starting[space] = None
        self._tasks.start(f"the start of {space}", spaces.start(space), lambda *_: self._joined(space))

    def _joined(self, space: str) -> None:
        self._starting.pop(space, None)

    def _starts(self, space: str) -> bool:
        if space in self._starting:
            return True
        orders = [task.waits_for for task in self._tasks.running()]
        return any(isinstance(order, JoinLockspace) and order.lockspace == space for order in orders)

    # -- stop ------------------------------------------------------------------------------

    def _stop_vg(self, session: Session, asked: LvmAsked) -> int | None:
        space = space_of(asked.vg_name)
        if not self._context.is_in(space):
            return -ENOLS
        if self._in_use(space, others=False):
            return -errno.EBUSY
        self._stopping(session, [asked.vg_name])
        self._run(session, f"vgchange --lockstop {asked.vg_name}", spaces.stop([asked.vg_name]))
        return None

    def _stop_all(self, session: Session, asked: LvmAsked) -> int | None:
        """Those that are not in use; "wait" waits until none is.  "force" is heard, but takes no lock from
        anybody: there is nobody who could know that its LV is not in use."""
        used = self._used()
        if used and "wait" in asked.opts:
            self._note(session, f"the stop of all lockspaces waits: VG {', '.join(used)} is in use here")
            self._stoppers[session.client] = session
        else:
            self._stop_unused(session)
        return None

    def _stop_unused(self, session: Session) -> None:
        used = self._used()
        vgs = [vg for vg in self._started() if vg not in used]
        self._stopping(session, vgs)
        busy = Refused(f"VG {', '.join(used)} is in use here", next="vgchange -an, then stop it again")
        self._run(session, "the stop of all lockspaces", spaces.stop(vgs, busy if used else None))

    def _started(self) -> list[str]:
        """VGs that are started here."""
        state = self._context.state
        names = sorted(state.lockspaces) if state is not None else []
        found = [name for name in names if name.startswith(VG_SPACE) and self._context.is_in(name)]
        return [name.removeprefix(VG_SPACE) for name in found if name != GLOBAL_SPACE]

    def _used(self) -> list[str]:
        """Those of which this host has an LV's lock, or a command the VG's, which it may need to the end."""
        locked = {where for session in self._sessions.values() for where in session.locks}
        return [
            vg
            for vg in self._started()
            if (space_of(vg), VG_RESOURCE) in locked or self._in_use(space_of(vg), others=False)
        ]

    def _stopping(self, session: Session, vgs: list[str]) -> None:
        """They do not start by themselves again; what the command itself holds of them ends."""
        self._context.note_stopped(vgs)
        for vg in vgs:
            self._turn_away(space_of(vg))
            self._locks.let_go(session, space_of(vg))

    def _turn_away(self, space: str) -> None:
        """Whoever waits there for a lock on this host is told that the VG is not started."""
        for session in self._sessions.values():
            self._locks.turn_away(session, space)

    def _in_use(self, space: str, *, others: bool) -> bool:
        """Whether this host, or any other, has to do with the lock of an LV there.

        What this host was told to let go of, and the cluster does not know yet, it has no more."""
        state = self._context.state
        one = state.lockspaces.get(space) if state is not None else None
        if state is None or one is None:
            return False
        for node in one.members:
            if (node != self._context.me) is others:
                for resource in one.resources.of(node):
                    if resource.name == VG_RESOURCE:
                        continue
                    if others or not self._locker.node_locks.keeps(space, resource.name):
                        return True
        return False

    # -- removal and renaming ----------------------------------------------------------------

    def _busy_vg(self, session: Session, asked: LvmAsked) -> int:
        space = space_of(asked.vg_name)
        if not self._context.is_in(space):
            return -ENOLS
        return -errno.EBUSY if self._in_use(space, others=True) else 0

    def _free_vg(self, session: Session, asked: LvmAsked) -> int | None:
        space = space_of(asked.vg_name)
        busy = self._busy_vg(session, asked)
        if busy:
            return busy
        lock = session.locks.pop((space, VG_RESOURCE), 0)
        version = session.versions.pop(space, 0)
        self._turn_away(space)
        self._versions.publish(session, asked.vg_name, version)
        self._run(session, f"vgremove {asked.vg_name}", spaces.free(asked.vg_name, lock))
        return None

    def _rename_before(self, session: Session, asked: LvmAsked) -> int | None:
        space = space_of(asked.vg_name)
        busy = self._busy_vg(session, asked)
        if busy or self._in_use(space, others=False):
            return busy or -errno.EBUSY
        lock = session.locks.get((space, VG_RESOURCE))
        if lock is None:
            return -errno.ENOENT
        session.renames = asked.vg_name
        # Should it end in between.
        session.versions[space] = self._versions.following(space, self._locker.use(lock))
        return 0

    def _renamed(self, session: Session, result: int) -> int | None:
        """If the VG has another name by now: nobody needs the old one's lockspace any more, and `result` is
        answered when it is left.

        Its lock was kept until here, so that no other host changes the VG under its old name meanwhile."""
        vg, session.renames = session.renames, ""
        if vg and self._context.is_in(space_of(vg)):
            session.versions.pop(space_of(vg), None)
            self._turn_away(space_of(vg))
            self._locks.let_go(session, space_of(vg))
            answer = self._replies.answer
            self._tasks.start(f"the stop of {vg}", spaces.stop([vg]), lambda *_: answer(session, result))
            return None
        return result

    # -- questions -------------------------------------------------------------------------

    def _query(self, session: Session, asked: LvmAsked) -> int | None:
        space = space_of(asked.vg_name)
        if not self._context.is_in(space):
            return -ENOLS
        resource = asked.lv_uuid if asked.op == "query_lock_lv" else VG_RESOURCE
        self._replies.answer(session, 0, mode=self._locks.mode_here((space, resource)))
        return None

    def _refresh(self, session: Session, asked: LvmAsked) -> int | None:
        """Other hosts reload the LV; the path is /dev/VG/LV, the slashes perhaps doubled."""
        above, _, lv = asked.path.rstrip("/").rpartition("/")
        vg = above.rstrip("/").rpartition("/")[2]
        if not self._context.is_in(space_of(vg)):
            return -ENOLS

        def told(error: RingfenceError | None) -> None:
            if error is not None:
                self._note(session, str(error))
            self._replies.answer(session, 0 if error is None else -errno.EIO)

        try:
            self._refreshes.ask(vg, lv, asked.lv_uuid, told)
        except Refused as error:
            told(error)
        return None

    def _kill(self, session: Session, asked: LvmAsked) -> int | None:
        vg = asked.vg_name
        if not self._context.is_in(space_of(vg)):
            return -ENOLS
        if vg not in self._context.killed:
            self._context.killed.append(vg)
            what = f"{session.who} has killed VG {vg} here: its tables are cut, and no lock of it is given"
            self._context.record("vg-killed", f"{what} until lvmlockctl --drop {vg}", vg=vg)
        self._turn_away(space_of(vg))
        self._run(session, f"lvmlockctl --kill {vg}", killing.kill(vg))
        return None

    def _drop(self, session: Session, asked: LvmAsked) -> int | None:
        vg = asked.vg_name
        if not self._context.is_in(space_of(vg)):
            return -ENOLS
        if vg in self._dropping:
            self._note(session, f"lvmlockctl --drop {vg}: another one is under way")
            return -errno.EBUSY
        self._dropping[vg] = None  # nobody activates an LV while it is looked whether one is active

        def over(error: RingfenceError | None) -> None:
            del self._dropping[vg]
            if error is None:
                self._context.killed = [one for one in self._context.killed if one != vg]
                self._context.note_stopped([vg])
                self._context.record("vg-dropped", f"{session.who} has dropped VG {vg} here", vg=vg)

        self._run(session, f"lvmlockctl --drop {vg}", killing.drop(vg, self._locker), over)
        return None

    def _info(self, session: Session, asked: LvmAsked) -> int | None:
        names = [GLOBAL_SPACE] if self._context.is_in(GLOBAL_SPACE) else []
        names += [space_of(vg) for vg in self._started()]
        shown = info.Info(
            self._context, self._locker, self._sessions.values(), names, self._context.killed,
            old=asked.old_info,
        )  # fmt: skip

        def printed(dump: bytes | None, error: RingfenceError | None) -> None:
            if session.asked is asked:
                self._reply(session, LvmAnswered(asked.op, dump=dump or b""))

        self._tasks.start("lvmlockctl --info", shown.print(), printed)
        return None

    def _dump(self, session: Session, asked: LvmAsked) -> int | None:
        self._reply(session, LvmAnswered(asked.op, dump=self._recent.print()))
        return None


def _space(vg: str) -> str:
    """The lockspace of a VG that is to be started.  Raises BadInput for a name that has none."""
    check_vg_name(vg)
    return lockspace_name(space_of(vg))


def _who(asked: LvmAsked) -> str:
    """For people: what the command says of itself is kept to one short word."""
    name = "".join(one for one in asked.cmd if one.isprintable())[:CMD]
    return f"{name or 'stock LVM2'} (pid {asked.pid})"
