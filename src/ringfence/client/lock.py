"""A lock that a blocking client holds."""

import contextlib
from _thread import RLock
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from ringfence.client.cache import Entry
from ringfence.client.held import HeldLock, OnBlocking, OnLost
from ringfence.client.link import Answer, Gone, Link, Silence, Unsent, deadline
from ringfence.client.messages import (
    INTERRUPTED,
    NODE_LOST,
    SILENT,
    check_lvb,
    is_unread,
    lock_limit_ms,
    lock_lost,
    mode_of,
    not_granted,
    result_of,
    silent,
)
from ringfence.core.errors import BadInput, NotFound, RingfenceError
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.wire import client as calls
from ringfence.wire.client import Request

SETTLE_MS = 1000
"""How long an interrupted conversion waits to learn which mode it ended with."""


class Keeper(Protocol):
    """Whoever made the lock."""

    def later(self, callback: Callable[[], object]) -> None:
        """Have it called in a thread that may wait."""

    def unlocked(self, lockspace: str, resource: str, link: Link, id: int) -> None:
        """An unlock was sent that is not answered."""



class Lock(HeldLock):
    """Made by `Lockspace.lock`.  A context manager: leaving it unlocks.

    Safe for several threads: one operation at a time, the others wait."""

    def __init__(
        self,
        lockspace: str,
        resource: str,
        on_blocking: OnBlocking | None,
        on_lost: OnLost | None,
        keeper: Keeper,
    ) -> None:
        super().__init__(lockspace, resource, on_blocking, on_lost)
        self._keeper = keeper
        self._one_at_a_time = RLock()
        self.link: Link | None = None
        """Through which it is held."""

    @property
    def held(self) -> bool:
        """Whether the lock is still ours, as far as the daemon has told."""
        self._look()
        return self._grant is not None and not self._lost

    def fileno(self) -> int:
        """The connection's descriptor.  Its locks live as long as any process has it open.

        Raises LocksLost, BadInput: there is no lock any more."""
        self._granted()
        assert self.link is not None
        return self.link.fileno()

    # -- operations --------------------------------------------------------------------

    def convert(
        self,
        mode: Mode | str,
        *,
        wait_ms: int | None = None,
        flags: int = 0,
        lvb: bytes | None = None,
        deadlock: bool = False,
    ) -> Token:
        """Change the mode, in place or by queueing.

        Interrupted (Ctrl-C) while it waits, it is taken back; `mode` tells what is held then.

        Args:
            mode: NL, CR, CW, PR, PW or EX.
            wait_ms: None waits for ever, 0 does not queue.
            flags: the DLM's (`ringfence.locks.flags.Flag`).
            lvb: 32 bytes, written if the lock holds PW or EX and does not go up.
            deadlock: as in `Lockspace.lock`, on behalf of the owner that the lock was taken for.

        Returns: the token of the new grant.

        Raises:
            LockHeld, TimedOut, Deadlock: the old mode is kept; unlock and ask anew, or go on without.  With
                CONVDEADLK it may be gone: `mode` tells.
            LocksLost: there is no lock any more; stop using what it protects.
            BadInput: a mode or flags that cannot be, or the lock is cached: unlock it and ask for the
                other mode.
            Unavailable: the daemon does not answer; the lock may be lost, see `held`.

        Source: Linux dlm_lock(3) with LKF_CONVERT; fs/dlm/lock.c `_can_be_granted`."""
        wanted = mode_of(mode)
        check_lvb(lvb)
        with self._one_at_a_time:
            grant = self._granted()
            if self._entry is not None:
                raise BadInput(
                    f"{self.what} is cached: its mode stays", next="unlock it and ask for the other mode"
                )
            self._convert(calls.Convert(grant.lock, wanted.name, wait_ms, flags, lvb, deadlock))
            return self._granted().token

    def unlock(self, *, lvb: bytes | None = None, wait: bool = False) -> None:
        """Let go.  A second unlock does nothing.

        It does not wait for the daemon, unless there is a value to write; what this process asks for next
        comes after it.  A cached lock is kept for the next use, unless `lvb` or `wait` is given.

        Args:
            lvb: 32 bytes, written if the lock holds PW or EX.
            wait: return only when the daemon has released it.  Without that, a loss that the daemon
                has not told yet goes unnoticed.

        Raises:
            LocksLost: the lock was gone already; what was done under it since is in doubt.
            BadInput: `lvb` is not 32 bytes, or a cached lock with `lvb` has other users.
            Unavailable: with `wait`: the daemon does not answer, and the connection is given up.

        Source: Linux dlm_unlock(3) with LKF_VALBLK."""
        if lvb is not None:
            check_lvb(lvb)
        with self._one_at_a_time:
            if self._grant is None:
                return
            # The entry is let go of last: without it, a second attempt (after Ctrl-C, or BadInput) would
            # unlock under the other uses.
            entry = self._entry
            if entry is not None and (lvb is not None or wait):
                entry.cache.take_out(entry)
                self._entry = None
                self._release(self._grant.lock, lvb, True)
            elif entry is not None:
                entry.cache.done(entry, self)
                self._grant = None
                self._entry = None
            else:
                self._release(self._grant.lock, lvb, wait or lvb is not None)
            if self._lost:
                raise lock_lost(self.what, self._lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.abandon()  # the first error is the one to tell
            return
        try:
            self.unlock()
        except RingfenceError:
            raise
        except BaseException:  # Ctrl-C in the middle of it
            self.abandon()
            raise

    # -- used by Lockspace -----------------------------------------------------------------

    def abandon(self) -> None:
        """Unlock it if it is held, and say nothing."""
        with contextlib.suppress(RingfenceError):
            try:
                self.unlock()
            except RingfenceError:
                raise
            except BaseException:  # Ctrl-C in the middle of it
                self.unlock()
                raise

    def acquire(self, link: Link, call: calls.Lock, entry: Entry | None = None) -> None:
        """Ask and wait.  Whatever interrupts it, the request is taken back and nothing else is touched.

        Raises Unsent; all else as `Lockspace.lock` says."""
        limit_ms = None if call.wait_ms is None else lock_limit_ms(call.wait_ms)
        holder = entry or self
        number = next(link.ids)
        self.link = link
        try:
            grant = link.lock(number, call, holder, limit_ms)
            if entry is not None:
                entry.cache.granted(entry, grant, self)
            else:
                self._grant = grant
        except Unsent:
            raise
        except Gone:
            raise not_granted(self.what, link.ended) from None
        except RingfenceError:
            raise
        except BaseException as error:  # Silence, Ctrl-C
            self._grant = self._entry = None
            if entry is not None:
                entry.cache.lose(entry, INTERRUPTED)
            for lock in [lock for lock, one in list(link.holders.items()) if one is holder]:
                link.holders.pop(lock, None)
            with contextlib.suppress(Gone):
                link.tell(calls.Cancel(str(number)))
            if isinstance(error, Silence):
                raise silent(self.what) from None
            raise
        if self._lost:
            raise lock_lost(self.what, self._lost)

    # -- helpers ---------------------------------------------------------------------------

    def _convert(self, call: calls.Convert) -> None:
        limit_ms = lock_limit_ms(call.wait_ms)
        link = self.link
        assert link is not None
        request = Request(link.new_id(), call)
        answer = link.expect(request.id)
        try:
            try:
                link.send(request)
                self._converted(link.wait(answer, deadline(limit_ms)))
            except (Gone, RingfenceError):
                raise
            except BaseException as error:  # Silence, Ctrl-C
                self._settle(link, request.id, answer)
                if isinstance(error, Silence):
                    raise silent(self.what) from None
                raise
            finally:
                link.forget(request.id)
        except Gone:
            self.lose(link.ended)
            raise lock_lost(self.what, self._lost) from None
        except NotFound:
            self.lose(NODE_LOST)
            raise lock_lost(self.what, self._lost) from None

    def _settle(self, link: Link, id: str, answer: Answer) -> None:
        """Take the conversion back, and learn what it ended with: the old mode, or the new one."""
        try:
            cancel = Request(link.new_id(), calls.Cancel(id))
            found = result_of(link.ask(cancel, deadline(SETTLE_MS)))["cancelled"]
            if found or answer.replies:  # else the daemon was never asked
                self._converted(link.wait(answer, deadline(SETTLE_MS)))
        except RingfenceError:
            return
        except BaseException:  # nobody knows what is held now: nothing, then
            link.end(SILENT)
            self.lose(SILENT)

    def _release(self, lock: int, lvb: bytes | None, wait: bool) -> None:
        """What was sent is carried out, whatever happens to the wait for the answer."""
        link = self.link
        assert link is not None
        grant = self._grant
        if self._lost:
            self._grant = None
            return
        # A listening link is not where the next request for the resource goes.
        quiet = not wait and not link.listens
        number = next(link.ids)
        request = Request(str(number), calls.Unlock(lock, lvb=lvb, quiet=quiet))
        answer = None if quiet else link.expect(request.id)
        try:
            link.send(request)
            self._grant = None
            if answer is None:
                try:
                    link.look()  # was it still ours?  After it was sent, as somebody may be waiting for it
                finally:
                    link.holders.pop(lock, None)
                    self._keeper.unlocked(self.lockspace, self.resource, link, number)
                return
            link.holders.pop(lock, None)
            try:
                result_of(link.wait(answer, deadline(lock_limit_ms(0))))
            except RingfenceError as error:
                if is_unread(error):
                    self._grant, link.holders[lock] = grant, self
                    raise
                self._lost = NODE_LOST
        except Gone:
            self._grant, self._lost = None, self._lost or link.ended
        except Silence:
            link.end(SILENT)
            raise silent(self.what) from None
        finally:
            if answer is not None:
                link.forget(request.id)

    def _look(self) -> None:
        """Learn what the daemon has said meanwhile."""
        link = self.link
        if link is None:
            return
        if not link.listens:
            link.look()
        if link.ended and self._grant is not None:  # in a child process nobody told
            self._lost = self._lost or link.ended

    def _call(self, callback: Callable[..., object], *words: Mode) -> None:
        self._keeper.later(lambda: callback(*words))
