"""What stock commands ask of locks: the global one, VGs' and LVs'.

Every lock is one of the Locker's, taken on behalf of its command: so it stands in the ordinary fair
queues, is told only under authority, and `why` and `locks` show whose it is.  Under authority alone goes
an answer that takes no lock, too, because this host has it already.  A request waits within its limit from
the configuration for whoever is in its way, for a lockspace that starts or is frozen, and for this node's
authority; then it is refused with -EAGAIN.  For the global lock and VGs' the asking side repeats it, thrice.

An LV is active on a host through LVM2 or through ringfence's own path, never through both: a persistent lock
that is not by_lvm2 is not shared with stock commands, nor let go of by them.  The LV of the disk slots is
refused to them always, and one that is being zeroed or wiped until it is not any more.

A VG's lock value block is written when it goes down from EX after a vg_update: the version said, and no CRC
(`commands.locking`).  Whoever ends between vg_update and unlock leaves it not valid: the next one to change
the VG looks twice.  The flag REMOVED is written, but not answered (-EREMOVED): who gets the lock looks at the
disks, and a VG of that name may have been made anew.

Of locks that are lost their commands cannot be told.  One that might be in the middle of a commit gets no
answer any more: with it, it would write without a lock.

Source: LVM2 daemons/lvmlockd/lvmlockd-core.c (res_process, res_lock, res_convert, res_unlock, res_update,
add_lock_action, client_send_result)."""

import errno

from ringfence.core.errors import BadInput, LocksLost, Refused, RingfenceError
from ringfence.core.locknames import GLOBAL_SPACE, VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine.commands.locking import GLOBAL_RESOURCE, VG_RESOURCE, space_of
from ringfence.engine.context import Context
from ringfence.engine.locker import TRY_MS, Locker
from ringfence.engine.lvm_processes import LvmProcesses
from ringfence.engine.lvmlockd.ahead import Ahead
from ringfence.engine.lvmlockd.replies import Replies
from ringfence.engine.lvmlockd.rules import Ruling, rule
from ringfence.engine.lvmlockd.sessions import PERSISTENT, Session, Where, what
from ringfence.engine.lvmlockd.spaces import Spaces
from ringfence.engine.lvmlockd.versions import Versions
from ringfence.engine.orders import Held
from ringfence.engine.slots import Slots
from ringfence.engine.uses import Use
from ringfence.volumes.slots import SLOTS_LV
from ringfence.wire.lvmlockd import EADOPT_NONE, ENOLS, MODES, LvmAsked

SLOTS_REFUSED = "it holds the disk slots, only ringfence uses it; `ringfence vgremove` removes it with its VG"
UNCLEAN_REFUSED = "it is being zeroed or wiped by ringfence: wait, see `ringfence lvs -a`"
ACTIVATES = "vgchange"
"""The command that goes through all LVs of a VG, as it names itself."""
SH_EXISTS = "SH_EXISTS"

_SETTLED = {
    Ruling.ALREADY: -errno.EALREADY,
    Ruling.COVERED: 0,
    Ruling.SHARED_EXISTS: -errno.EEXIST,
    Ruling.OTHER_MODE: -errno.EEXIST,
    Ruling.SHARED_HERE: -errno.EAGAIN,
}
"""Rulings that change nothing."""
_WHY = {
    Ruling.SHARED_EXISTS: "active here for shared use",
    Ruling.SHARED_HERE: "shared by several commands of this host",
}


class Locks:
    def __init__(
        self,
        context: Context,
        locker: Locker,
        spaces: Spaces,
        replies: Replies,
        versions: Versions,
        slots: Slots,
        ahead: Ahead,
        processes: LvmProcesses,
    ) -> None:
        self._context = context
        self._locker = locker
        self._spaces = spaces
        self._replies = replies
        self._versions = versions
        self._slots = slots
        self._ahead = ahead
        self._processes = processes
        self._held_back: dict[int, Session] = {}
        """Those whose request is looked at again, oldest first."""
        self._in_flight: dict[Where, int] = {}
        """LVs for which a request waits for its answer, and whose it is: what is ruled of the next one
        depends on that."""
        self._counted_on: dict[Where, dict[int, None]] = {}
        """LVs of which commands that have the VG's lock were told that they are this host's, and whose
        connections: one may be about to make the device."""
        self._fresh: dict[Where, int] = {}
        """LVs locked for a connection that has asked nothing since, and by nobody's else wish."""

    # -- requests -----------------------------------------------------------------------

    def ask(self, session: Session) -> None:
        """Take a connection's request up, also once more; it is answered now or later, once."""
        asked = session.asked
        assert asked is not None
        self._held_back.pop(session.client, None)
        try:
            if self._context.left_open:
                result = self._hold(session, asked, "this node takes over what was active before its daemon")
            else:
                result = self._decide(session, asked)
        except BadInput as error:
            self._replies.note(session, asked, error.message)
            result = -errno.EINVAL
        if result is not None:
            self._replies.answer(session, result)

    def heard(self, session: Session) -> None:
        """It asks for something, whatever that is: so it has read the reply before."""
        if self._fresh:
            self._fresh = {where: client for where, client in self._fresh.items() if client != session.client}

    def look(self) -> None:
        """Look again at what is held back."""
        for session in list(self._held_back.values()):
            if session.asked is not None and session.client in self._held_back:
                self.ask(session)

    def _decide(self, session: Session, asked: LvmAsked) -> int | None:
        """Returns the result; None: it comes later.  Raises BadInput."""
        match asked.op:
            case "lock_gl":
                return self._lock(session, asked, (GLOBAL_SPACE, GLOBAL_RESOURCE))
            case "lock_vg":
                return self._lock(session, asked, (space_of(asked.vg_name), VG_RESOURCE))
            case "lock_lv":
                return self._lock_lv(session, asked, (space_of(asked.vg_name), asked.lv_uuid))
            case "vg_update":
                return self._update(session, asked)
            case "free_lv":
                return self._free(session, (space_of(asked.vg_name), asked.lv_uuid))
        raise AssertionError(asked.op)

    def _hold(self, session: Session, asked: LvmAsked, why: str) -> int | None:
        """Look at it again, until its time is over."""
        if not session.until_ns:
            limit_ms = max(self._limit_ms(asked), TRY_MS)
            session.until_ns = self._context.now_ns + limit_ms * 1_000_000
        elif self._context.now_ns >= session.until_ns:
            self._replies.note(session, asked, why)
            return -errno.EAGAIN
        self._held_back[session.client] = session
        session.why = why
        return None

    def waits(self) -> list[str]:
        """For `why`: who is held back, and for what; who waits for a lock, the Locker tells."""
        me = self._context.name(self._context.me)
        return [
            f"on {me}, {one.who} waits with {what(one.asked)}: {one.why}"
            for one in self._held_back.values()
            if one.asked is not None and one.why
        ]

    def _limit_ms(self, asked: LvmAsked) -> int:
        limits = self._context.config.lvmlockd
        return limits.lv_wait_ms if asked.op == "lock_lv" else limits.vg_wait_ms

    # -- locks ----------------------------------------------------------------------------

    def _lock_lv(self, session: Session, asked: LvmAsked, where: Where) -> int | None:
        if not asked.lv_uuid:
            raise BadInput("the request names no LV")
        if asked.lv_name == SLOTS_LV or asked.lv_uuid == self._slots.lv_uuid(asked.vg_name):
            if asked.mode == "un":
                return -errno.ENOENT  # no stock command has it; `vgchange -an` asks for every LV of a VG
            self._replies.note(session, asked, SLOTS_REFUSED)
            return -errno.EBUSY
        if asked.mode != "un" and self._context.is_unclean(asked.vg_name, asked.lv_uuid):
            self._replies.note(session, asked, UNCLEAN_REFUSED)
            return -errno.EBUSY
        if where in self._in_flight:
            return self._hold(session, asked, "another command's request for it is not answered yet")
        ours = any(not use.by_lvm2 for use in self._locker.persistent_on(*where))
        if ours and (PERSISTENT in asked.opts or asked.mode == "ex"):
            name = f"{asked.vg_name}/{asked.lv_name}"
            first = f"ringfence lvchange -an {name}"
            self._replies.note(session, asked, f"it is active here through ringfence: {first} comes first")
            return -errno.EBUSY if asked.mode == "un" else -errno.EAGAIN
        self._fresh.pop(where, None)
        if PERSISTENT in asked.opts and self._take_ahead(session, asked, where):
            return 0
        return self._lock(session, asked, where)

    def _take_ahead(self, session: Session, asked: LvmAsked, where: Where) -> bool:
        """What `_lock` comes to where this node has asked for the lock ahead, and has it: nobody here has."""
        mode = MODES.get(asked.mode)
        if mode is None or "adopt_only" in asked.opts:
            return False
        if not self._locker.take_ahead(*where, mode, what(asked), session.owner, session.process):
            return False
        self._ahead.asked(session.client, asked.vg_name, asked.lv_uuid, mode, here=True)
        self._fresh[where] = session.client
        self._counts_on(session, where)
        return True

    def _lock(self, session: Session, asked: LvmAsked, where: Where) -> int | None:
        space = where[0]
        if not self._context.is_in(space):
            return self._not_in(session, asked, space)
        if asked.mode == "un":
            return self._unlock(session, asked, where)
        mode = MODES.get(asked.mode)
        if mode is None:
            raise BadInput(f"mode {asked.mode!r} is not known")
        lv = asked.op == "lock_lv"
        persistent = lv and PERSISTENT in asked.opts
        own = self._use(session, where)
        active = self._locker.find(*where) if lv else None
        ruling = rule(
            mode,
            persistent=persistent,
            own=_mode(own),
            active=_mode(active) if active is not None and active.by_lvm2 else Mode.UN,
            shares=self._shares(where) if active is not None or (own is not None and lv) else 0,
        )
        if ruling is Ruling.ASK and "adopt_only" in asked.opts:
            return -EADOPT_NONE  # what may be adopted this host's daemon has adopted by itself
        if ruling is Ruling.ASK:
            if persistent:
                self._ahead.asked(session.client, asked.vg_name, asked.lv_uuid, mode)
            self._acquire(session, asked, where, mode, persistent=persistent)
            return None
        if not self._context.may_report_in(space):
            return self._hold(session, asked, "this node has no authority now")
        if ruling is Ruling.CONVERT:
            use = active if persistent else own
            assert use is not None
            self._convert(session, asked, where, use, mode)
            return None
        if ruling is Ruling.KEEP:
            self._locker.make_persistent(session.locks.pop(where))
            self._fresh[where] = session.client
            self._counts_on(session, where)
            return 0
        if ruling in _WHY:
            self._replies.note(session, asked, _WHY[ruling])
        if ruling is Ruling.SHARED_EXISTS:
            self._replies.answer(session, -errno.EEXIST, flags=(SH_EXISTS,))
            return None
        if ruling is Ruling.ALREADY and persistent:
            self._counts_on(session, where)
        return _SETTLED[ruling]

    def _counts_on(self, session: Session, where: Where) -> None:
        """Two commands of one host may share the VG's lock.  While one of them may be about to make an LV's
        device, another must not let go of the LV's lock: the device would be without one."""
        if (where[0], VG_RESOURCE) in session.locks:
            self._counted_on.setdefault(where, {})[session.client] = None
            session.counts_on[where] = None

    def _counts_no_more(self, session: Session) -> None:
        for where in session.counts_on:
            self._counted_on.get(where, {}).pop(session.client, None)
            if not self._counted_on.get(where):
                self._counted_on.pop(where, None)
        session.counts_on = {}

    def _not_in(self, session: Session, asked: LvmAsked, space: str) -> int | None:
        if asked.mode == "un":
            # As it will be told in a moment, when the lockspace is joined: it has none there.
            return -errno.ENOENT if self._spaces.starts(space) else -ENOLS
        if session.lost:
            return -ENOLS
        if self._context.state is None:
            return self._hold(session, asked, "this node is not in the cluster yet")
        if space == GLOBAL_SPACE:
            self._spaces.start(space)
        elif not self._spaces.starts(space):
            return -ENOLS
        return self._hold(session, asked, f"lockspace {space} is still being joined")

    def _use(self, session: Session, where: Where) -> Use | None:
        """Its transient lock there."""
        lock = session.locks.get(where)
        return self._locker.use(lock) if lock is not None else None

    def _shares(self, where: Where) -> int:
        rows = self._locker.node_locks.rows(*where)
        return sum(row.lock_id is not None and row.held is Mode.PR for row in rows)

    def _acquire(
        self, session: Session, asked: LvmAsked, where: Where, mode: Mode, *, persistent: bool
    ) -> None:
        def done(result: Held | RingfenceError | None) -> None:
            self._in_flight.pop(where, None)
            if isinstance(result, Held):
                if persistent:
                    self._fresh[where] = session.client
                    self._counts_on(session, where)
                else:
                    session.locks[where] = result.lock
                self._replies.answer(session, 0)
                if asked.op == "lock_vg" and session.cmd == ACTIVATES:
                    self._ahead.expect(session.client, asked.vg_name)
            else:
                self._replies.refused(session, asked, result)
            self._after(result)

        lv = asked.op == "lock_lv"
        if lv:
            self._in_flight[where] = session.client
        lock = self._locker.acquire(
            *where, mode, self._wait_ms(asked, where), done, what=what(asked),
            persistent=persistent, owner=session.owner, by_lvm2=True, process=session.process,
        )  # fmt: skip
        if session.asked is asked:
            session.lock = lock

    def _convert(self, session: Session, asked: LvmAsked, where: Where, use: Use, mode: Mode) -> None:
        def done(result: Held | RingfenceError | None) -> None:
            self._in_flight.pop(where, None)
            if isinstance(result, Held):
                self._replies.answer(session, 0)
            else:
                self._replies.refused(session, asked, result)
            self._after(result)

        if asked.op == "lock_lv":
            self._in_flight[where] = session.client
        session.lock = use.lock
        lvb = self._versions.value(session, where, use) if mode is not Mode.EX else None
        self._locker.convert(
            use.lock, mode, self._wait_ms(asked, where), done, lvb=lvb, owner=session.owner
        )

    def _wait_ms(self, asked: LvmAsked, where: Where) -> int:
        """An LV for which another command of this host has a transient lock is waited for as a VG is."""
        limits = self._context.config.lvmlockd
        if asked.op != "lock_lv":
            return limits.vg_wait_ms
        if self._locker.node_locks.keeps(*where):
            return limits.lv_wait_ms
        for row in self._locker.node_locks.rows(*where):
            use = self._locker.use(row.lock_id) if row.lock_id is not None else None
            if use is not None and use.by_lvm2 and use not in self._locker.persistent_on(*where):
                return max(limits.lv_wait_ms, limits.vg_wait_ms)
        return limits.lv_wait_ms

    def _after(self, result: Held | RingfenceError | None) -> None:
        """Those that waited behind this request are looked at, unless everything ends just now."""
        if self._held_back and not isinstance(result, LocksLost):
            self.look()

    # -- unlock ---------------------------------------------------------------------------

    def _unlock(self, session: Session, asked: LvmAsked, where: Where) -> int | None:
        activation = asked.op == "lock_lv" and PERSISTENT in asked.opts
        use = self._locker.find(*where) if activation else self._use(session, where)
        if use is None:
            return -ENOLS if where[0] in self._locker.leaving else -errno.ENOENT
        if activation:
            return self._let_go_early(session, asked, use)
        if asked.op == "lock_vg":
            self._counts_no_more(session)
            self._ahead.over(session.client)
            if self._awaits_releases(session):
                return None

        def done(result: Held | RingfenceError | None) -> None:
            self._in_flight.pop(where, None)
            if session.locks.get(where) == use.lock:
                del session.locks[where]
            if isinstance(result, RingfenceError):
                self._replies.refused(session, asked, result)
            else:
                self._replies.answer(session, 0)
            self._after(result)

        if asked.op == "lock_lv":
            self._in_flight[where] = session.client
        session.lock = use.lock
        self._locker.release(use.lock, done, lvb=self._versions.value(session, where, use))
        return None

    def _let_go_early(self, session: Session, asked: LvmAsked, use: Use) -> int | None:
        """An activation is over: its command need not wait until the cluster knows, which takes a round of
        the ring.  It does wait for that before it is told that the VG's lock is free: whoever comes after
        it, on any host, finds the LV free, too."""
        if use.done is not None:
            return self._hold(session, asked, "another request for it is not answered yet")
        counted_on = self._counted_on.get((use.lockspace, use.resource), ())
        if any(one != session.client for one in counted_on) or self._processes.works_in(use.lockspace):
            self._replies.note(session, asked, "another command of this host activates it just now")
            return -errno.EBUSY
        session.released[use.lockspace, use.resource] = None
        self._locker.release(use.lock, _nobody, later=True)
        return 0

    def _awaits_releases(self, session: Session) -> bool:
        """Not for ever: while the lockspace is frozen nobody gets those LVs anyway."""
        if session.released:
            self._locker.let_go()
        while session.released:
            where = next(iter(session.released))
            if self._locker.node_locks.keeps(*where):
                break
            del session.released[where]
        else:
            return False
        if not session.until_ns:
            session.until_ns = self._context.now_ns + TRY_MS * 1_000_000
        if self._context.now_ns >= session.until_ns:
            session.released = {}
            return False
        self._held_back[session.client] = session
        return True

    def turn_away(self, session: Session, space: str) -> None:
        """It does not wait any longer for a lock there, if that is what it does."""
        use = self._locker.use(session.lock) if session.lock else None
        if use is not None and use.lockspace == space and use.held is None:
            where = (use.lockspace, use.resource)
            if self._in_flight.get(where) == session.client:
                del self._in_flight[where]
            self._locker.leave_behind([use.lock])
            self._replies.answer(session, -ENOLS)

    def let_go(self, session: Session, space: str) -> None:
        """Its lockspace is about to be left: what the command itself has of the VG's lock ends."""
        where = (space, VG_RESOURCE)
        lock = session.locks.pop(where, None)
        if lock is not None:
            self._end(session, where, lock)
            session.versions.pop(space, None)

    # -- versions, removal, questions ----------------------------------------------------------

    def _update(self, session: Session, asked: LvmAsked) -> int | None:
        space = space_of(asked.vg_name)
        use = self._use(session, (space, VG_RESOURCE))
        if session.lost or (use is None and (space, VG_RESOURCE) in session.locks):
            pid, _ = session.process
            self._replies.note(session, asked, f"its locks were lost, and it is not let go on: kill {pid}")
            return None
        if not self._context.is_in(space):
            session.made[asked.vg_name] = asked.version
            return -ENOLS
        if use is None:
            return -errno.ENOENT
        if use.held is None or use.held.mode is not Mode.EX:
            return -errno.EINVAL
        if not self._context.may_report_in(space):
            session.why = "this node has no authority now"
            self._held_back[session.client] = session  # without a limit: it would go on to commit
            return None
        following = "next_version" in asked.opts
        session.versions[space] = self._versions.following(space, use) if following else asked.version
        return 0

    def _free(self, session: Session, where: Where) -> int:
        """An LV is gone: so are the locks on it."""
        if not self._context.is_in(where[0]):
            return -ENOLS
        uses = self._locker.persistent_on(*where)
        if any(not use.by_lvm2 for use in uses):
            return -errno.EBUSY
        locks = [use.lock for use in uses]
        if where in session.locks:
            locks.append(session.locks.pop(where))
        self._locker.leave_behind(locks)
        return 0

    def mode_here(self, where: Where) -> str:
        """un | sh | ex: the highest that anybody on this host has there."""
        rows = self._locker.node_locks.rows(*where)
        held = max((row.held for row in rows if row.lock_id is not None), default=Mode.UN)
        return "ex" if held is Mode.EX else "sh" if held > Mode.NL else "un"

    # -- ends -----------------------------------------------------------------------------------

    def gone(self, session: Session, *, unread: bool, hung_up: bool) -> None:
        """A connection ended, and with it what is not persistent; also a grant that it did not read.

        Args: hung_up: it was ended by this side, and what it may be writing under its locks it goes on to
            write: those end with its process."""
        self._held_back.pop(session.client, None)
        self._ahead.over(session.client)
        self._counts_no_more(session)
        session.asked = None
        if session.lock:
            self._break_off(session)
        for where, lock in session.locks.items():
            if hung_up and self._locker.use(lock) is not None:
                self._processes.stays(lock)
            else:
                self._end(session, where, lock)
        session.locks = {}
        for where in [where for where, client in self._fresh.items() if client == session.client]:
            del self._fresh[where]
            use = self._locker.find(*where)
            if unread and use is not None and use.by_lvm2:
                self._locker.leave_behind([use.lock])
        self._after(None)

    def _break_off(self, session: Session) -> None:
        """What it waited for is not waited for any more."""
        for where in [where for where, client in self._in_flight.items() if client == session.client]:
            del self._in_flight[where]
        use = self._locker.use(session.lock)
        if use is None or use.lock in session.locks.values():
            return
        if use.held is None:
            self._locker.leave_behind([use.lock])
        else:
            self._locker.give_up(use.lock, Refused(f"{session.who} ended"))

    def _end(self, session: Session, where: Where, lock: int) -> None:
        use = self._locker.use(lock)
        if use is None:
            return
        number = session.versions.get(where[0]) if where[1] == VG_RESOURCE else None
        if number is not None:
            # It may have ended in the middle of its commit.
            self._versions.publish(session, where[0].removeprefix(VG_SPACE), number)
            self._locker.drop([lock])
        elif use.done is None:
            self._locker.release(lock, _nobody, lvb=self._versions.value(session, where, use))
        else:
            self._locker.leave_behind([lock])

    def lost(self, sessions: list[Session]) -> None:
        """This life is over: no lock is anybody's any more."""
        for session in sessions:
            exclusive = any(where[1] == VG_RESOURCE for where in session.locks)
            session.lost = session.lost or exclusive
            session.locks, session.versions, session.counts_on = {}, {}, {}
        self._fresh, self._in_flight, self._counted_on = {}, {}, {}


def _mode(use: Use | None) -> Mode:
    return use.held.mode if use is not None and use.held is not None else Mode.UN


def _nobody(result: Held | RingfenceError | None) -> None:
    """Nobody waits for this answer."""
