"""Locks of client connections: they live and end with their connection."""

import base64
from typing import Any

import msgspec

from ringfence.core.errors import BadInput, NotFound, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.context import Context
from ringfence.engine.effects import Answer
from ringfence.engine.locker import Done, Locker
from ringfence.engine.orders import Held
from ringfence.wire import client as calls
from ringfence.wire.client import Reply


class _Owned(msgspec.Struct, gc=False):
    request: str
    """The request that took it: notices go out under its id."""
    notices: bool


class ClientLocks:
    def __init__(self, context: Context, locker: Locker) -> None:
        self._context = context
        self._locker = locker
        self._owned: dict[int, dict[int, _Owned]] = {}
        """Client -> its locks."""
        locker.on_blocking = self._blocking

    def asked(self, client: int, id: str, call: calls.LockCall) -> None:
        """Raises RingfenceError for what is refused at once."""
        if isinstance(call, calls.Lock):
            self.lock(client, id, call)
        elif isinstance(call, calls.Unlock):
            self.unlock(client, id, call)
        else:
            self.convert(client, id, call)

    def lock(self, client: int, id: str, call: calls.Lock) -> None:
        """Raises BadInput for a mode or a name that cannot be."""
        mode = _mode(call.mode)
        lock = 0  # not known yet

        def done(result: Held | RingfenceError | None) -> None:
            if isinstance(result, Held):
                self._owns(client, result.lock, id, call.notices)
                self._send(client, Reply(id, result=_told(result), final=not call.notices))
            elif isinstance(result, RingfenceError):
                self._forget(client, lock)
                self._send(client, Reply(id, error=result.as_dict()))

        lock = self._locker.acquire(
            call.lockspace, call.resource, mode, call.wait_ms, done, flags=call.flags, client=client
        )
        if self._locker.use(lock) is not None:
            self._owns(client, lock, id, call.notices)

    def convert(self, client: int, id: str, call: calls.Convert) -> None:
        self._mine(client, call.lock)
        self._locker.convert(
            call.lock,
            _mode(call.mode),
            call.wait_ms,
            self._answer(client, id, call.lock),
            flags=call.flags,
            lvb=call.lvb,
        )

    def unlock(self, client: int, id: str, call: calls.Unlock) -> None:
        owned = self._mine(client, call.lock)
        answer = self._answer(client, id, call.lock)

        def done(result: Held | RingfenceError | None) -> None:
            if result is None:
                self._forget(client, call.lock)
                if owned.notices:
                    self._send(client, Reply(owned.request, result={"released": True, "lock": call.lock}))
            answer(result)

        self._locker.release(call.lock, done, flags=call.flags, lvb=call.lvb)

    def gone(self, client: int) -> None:
        """The connection ended; so do its locks."""
        self._locker.drop(list(self._owned.pop(client, ())))

    def end_all(self) -> None:
        """This node leaves the cluster: nobody waits for a lock here any more.

        A lock that a client holds is not taken from it: it would go on believing in it, under
        authority that is still valid, while another node is granted the same.

        Raises Refused while a client holds a lock."""
        locks = [lock for owned in self._owned.values() for lock in owned]
        uses = [use for use in map(self._locker.use, locks) if use is not None]
        held = sorted({use.what for use in uses if use.held is not None})
        if held:
            raise Refused(
                f"clients of this node still hold {', '.join(held)}",
                next="end them or let them unlock (ringfence locks), then leave again",
                retry=True,
            )
        leaving = Refused(f"{self._context.name(self._context.me)} leaves the cluster", retry=True)
        for use in uses:
            self._locker.give_up(use.lock, leaving)

    def lost(self) -> None:
        """This life is stale.  What was in flight has been answered; holders with notices are told."""
        for client, locks in self._owned.items():
            for lock, owned in locks.items():
                if owned.notices:
                    self._send(client, Reply(owned.request, result={"lost": True, "lock": lock}))
        self._owned = {}

    def _blocking(self, client: int, lock: int, wants: Mode) -> None:
        owned = self._owned.get(client, {}).get(lock)
        if owned is not None and owned.notices:
            reply = Reply(owned.request, result={"blocking": wants.name, "lock": lock}, final=False)
            self._send(client, reply)

    def _answer(self, client: int, id: str, lock: int) -> Done:
        def done(result: Held | RingfenceError | None) -> None:
            if isinstance(result, RingfenceError):
                if self._locker.use(lock) is None:
                    self._forget(client, lock)
                self._send(client, Reply(id, error=result.as_dict()))
            else:
                self._send(client, Reply(id, result=_told(result) if result else {"released": True}))

        return done

    def _mine(self, client: int, lock: int) -> _Owned:
        owned = self._owned.get(client, {}).get(lock)
        if owned is None:
            raise NotFound(f"lock {lock} is not one of this connection's", next="ringfence locks")
        return owned

    def _owns(self, client: int, lock: int, request: str, notices: bool) -> None:
        locks = self._owned.setdefault(client, {})
        if lock not in locks:
            locks[lock] = _Owned(request, notices)

    def _forget(self, client: int, lock: int) -> None:
        locks = self._owned.get(client, {})
        locks.pop(lock, None)
        if not locks:
            self._owned.pop(client, None)

    def _send(self, client: int, reply: Reply) -> None:
        self._context.out(Answer(client, reply))


def _mode(name: str) -> Mode:
    try:
        mode = Mode[name]
    except KeyError:
        mode = Mode.UN
    if mode is Mode.UN:
        raise BadInput(f"{name!r} is no lock mode", next="give NL, CR, CW, PR, PW or EX")
    return mode


def _told(held: Held) -> dict[str, Any]:
    lvb = base64.b64encode(held.lvb).decode() if held.lvb is not None else None
    return {
        "lock": held.lock,
        "mode": held.mode.name,
        "token": str(held.token),
        "lvb": lvb,
        "lvb_valid": held.lvb is not None,
    }
