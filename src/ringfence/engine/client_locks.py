"""Locks of client connections: they live and end with their connection."""

import base64
from typing import Any

import msgspec

from ringfence.core.errors import BadInput, NotFound, Refused, RingfenceError
from ringfence.core.modes import Mode
from ringfence.engine.context import Context
from ringfence.engine.effects import Answer
from ringfence.engine.locker import Done, Locker, Owner
from ringfence.engine.orders import Held
from ringfence.wire import client as calls
from ringfence.wire.client import Reply

OWNER_BYTES = 64


class _Owned(msgspec.Struct):
    client: int
    request: str
    """The request that took it: notices go out under its id."""
    notices: bool


class ClientLocks:
    def __init__(self, context: Context, locker: Locker) -> None:
        self._context = context
        self._locker = locker
        self._owned: dict[int, _Owned] = {}
        self._owners: dict[int, Owner] = {}
        """Connection -> on whose behalf it takes locks, where a request does not say."""

    def asked(self, client: int, id: str, call: calls.LockCall, who: str) -> None:
        """Raises RingfenceError for what is refused at once."""
        if isinstance(call, calls.Lock):
            self.lock(client, id, call, who)
        elif isinstance(call, calls.Unlock):
            self.unlock(client, id, call)
        else:
            self.convert(client, id, call)

    def lock(self, client: int, id: str, call: calls.Lock, who: str) -> None:
        """Raises BadInput for a mode or a name that cannot be."""
        mode = _mode(call.mode)
        owner = self._owner(client, call.owner, who)
        box: list[int] = []

        def blocking(wants: Mode) -> None:
            if call.notices and box:
                self._send(client, Reply(id, result={"blocking": wants.name, "lock": box[0]}, final=False))

        def done(result: Held | RingfenceError | None) -> None:
            if isinstance(result, Held):
                self._owned.setdefault(result.lock, _Owned(client, id, call.notices))
                self._send(client, Reply(id, result=_told(result), final=not call.notices))
            elif isinstance(result, RingfenceError):
                self._forget()
                self._send(client, Reply(id, error=result.as_dict()))

        lock = self._locker.acquire(
            call.lockspace, call.resource, mode, call.wait_ms, done, flags=call.flags, on_blocking=blocking,
            owner=owner, deadlock=call.deadlock,
        )  # fmt: skip
        box.append(lock)
        if self._locker.use(lock) is not None:
            self._owned.setdefault(lock, _Owned(client, id, call.notices))

    def convert(self, client: int, id: str, call: calls.Convert) -> None:
        self._mine(client, call.lock)
        self._locker.convert(
            call.lock,
            _mode(call.mode),
            call.wait_ms,
            self._answer(client, id),
            flags=call.flags,
            lvb=call.lvb,
            deadlock=call.deadlock,
        )

    def unlock(self, client: int, id: str, call: calls.Unlock) -> None:
        owned = self._mine(client, call.lock)
        answer = self._answer(client, id)

        def done(result: Held | RingfenceError | None) -> None:
            if result is None:
                self._owned.pop(call.lock, None)
                if owned.notices:
                    self._send(client, Reply(owned.request, result={"released": True, "lock": call.lock}))
            answer(result)

        self._locker.release(call.lock, done, flags=call.flags, lvb=call.lvb)

    def gone(self, client: int) -> None:
        """The connection ended; so do its locks."""
        self._owners.pop(client, None)
        locks = [lock for lock, owned in self._owned.items() if owned.client == client]
        for lock in locks:
            del self._owned[lock]
        self._locker.drop(locks)

    def end_all(self) -> None:
        """This node leaves the cluster: nobody waits for a lock here any more.

        A lock that a client holds is not taken from it: it would go on believing in it, under
        authority that is still valid, while another node is granted the same.

        Raises Refused while a client holds a lock."""
        uses = [use for use in (self._locker.use(lock) for lock in list(self._owned)) if use is not None]
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
        for lock, owned in self._owned.items():
            if owned.notices:
                self._send(owned.client, Reply(owned.request, result={"lost": True, "lock": lock}))
        self._owned = {}

    def _owner(self, client: int, name: str, who: str) -> Owner:
        """Raises BadInput for a name that is too long to be told to every node."""
        if name:
            if len(name.encode("utf-8", "surrogatepass")) > OWNER_BYTES:
                raise BadInput(f"an owner's name has at most {OWNER_BYTES} bytes", next="shorten it")
            return Owner(name, who, named=True)
        if client not in self._owners:
            self._owners[client] = Owner(f"connection {client}", who)
        return self._owners[client]

    def _answer(self, client: int, id: str) -> Done:
        def done(result: Held | RingfenceError | None) -> None:
            if isinstance(result, RingfenceError):
                self._forget()
                self._send(client, Reply(id, error=result.as_dict()))
            else:
                self._send(client, Reply(id, result=_told(result) if result else {"released": True}))

        return done

    def _mine(self, client: int, lock: int) -> _Owned:
        owned = self._owned.get(lock)
        if owned is None or owned.client != client:
            raise NotFound(f"lock {lock} is not one of this connection's", next="ringfence locks")
        return owned

    def _forget(self) -> None:
        self._owned = {lock: one for lock, one in self._owned.items() if self._locker.use(lock) is not None}

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
