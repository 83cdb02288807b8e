"""Request ids: a request whose reply was lost may be sent again and changes nothing twice.

A repeat of a request that still runs attaches to it; a repeat of one that is finished gets the
same reply again.  Ids are the client's choice (a UUID) and stand above connections, for the usual
reason to repeat is that the connection broke.  Locks are the exception: they belong to their
connection and went with it, so there is nothing to repeat and they do not come here.

Reports (status, lvs, …) are not kept once answered: to ask again is to be told what is true now."""

import enum
from collections import OrderedDict

import msgspec

from ringfence.core.errors import BadInput
from ringfence.wire import client as calls
from ringfence.wire.client import CONNECTION_CALLS, Call, Reply, Request

KEPT = 512

REPORTS = (
    calls.Status, calls.Why, calls.Locks, calls.Deadlocks, calls.Checkup, calls.Events, calls.FenceHistory,
    calls.FenceStatus, calls.ConfigShow, calls.Pvs, calls.Vgs, calls.Lvs,
)  # fmt: skip


class Step(enum.Enum):
    RUN = "run"
    """New: hand it to whoever answers it."""
    WAIT = "wait"
    """It runs already; its reply will go to this client as well."""
    DONE = "done"
    """Answered here and now."""


class _Running(msgspec.Struct):
    call: Call
    asker: int
    """The client number that the request runs under."""
    clients: list[int]


Key = tuple[int, str]
"""(client, id), with client 0 for ids that stand above connections."""


class ReplyBook:
    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self.running: dict[Key, _Running] = {}
        self._finished: OrderedDict[Key, tuple[Call, Reply]] = OrderedDict()

    def asked(self, client: int, request: Request) -> tuple[Step, Reply | None]:
        """A request arrived.  With DONE comes the reply to send back."""
        key = _key(client, request)
        finished = self._finished.get(key)
        if finished is not None:
            call, reply = finished
            return Step.DONE, reply if call == request.call else _reused(request)
        running = self.running.get(key)
        if running is not None:
            if running.call != request.call:
                return Step.DONE, _reused(request)
            running.clients.append(client)
            return Step.WAIT, None
        self.running[key] = _Running(request.call, client, [client])
        return Step.RUN, None

    def call(self, client: int, id: str) -> Call | None:
        """The running call that a reply to (client, id) belongs to."""
        running = self._find(client, id)
        return running[1].call if running else None

    def expects(self, client: int, id: str) -> bool:
        """Whether a reply to (client, id) is to go through `answered`."""
        return self._find(client, id) is not None

    def answered(self, client: int, reply: Reply) -> list[int]:
        """A reply for the request that runs under `client`.  Returns whom to send it to."""
        found = self._find(client, reply.id)
        if found is None:
            return [client]
        key, running = found
        if reply.final:
            del self.running[key]
            if not isinstance(running.call, REPORTS + CONNECTION_CALLS):
                self._finished[key] = (running.call, reply)
                if len(self._finished) > self._kept:
                    self._finished.popitem(last=False)
        return list(running.clients)

    def gone(self, client: int) -> None:
        """The connection ended.  What runs under it goes on being known until it is answered."""
        for key in [key for key in self.running if key[0] == client]:
            del self.running[key]
        for running in self.running.values():
            if client in running.clients and (client != running.asker or len(running.clients) > 1):
                running.clients.remove(client)

    def _find(self, client: int, id: str) -> tuple[Key, _Running] | None:
        for key in ((client, id), (0, id)):
            running = self.running.get(key)
            if running is not None and running.asker == client:
                return key, running
        return None


def _key(client: int, request: Request) -> Key:
    return (client if isinstance(request.call, CONNECTION_CALLS) else 0, request.id)


def _reused(request: Request) -> Reply:
    error = BadInput(f"request id {request.id} was used for another request", next="give each its own id")
    return Reply(request.id, error=error.as_dict())
