"""Calls that the daemon answers from its own history, without the engine: events, fence history, config.

A follower is sent what it has not seen, from the store, whenever something was recorded; so it
misses nothing and sees nothing twice, however slow it was."""

from collections.abc import Callable
from typing import Any

import msgspec

from ringfence.config import check_cluster
from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import RingfenceError
from ringfence.daemon.ports import History
from ringfence.wire import client as calls
from ringfence.wire.client import Reply, Request

BATCH = 1000


class _Follower(msgspec.Struct):
    client: int
    id: str
    since: int


class Queries:
    """
    Args:
        answer: sends a reply to the client that asked, as effects.Answer would be sent.
    """

    def __init__(self, history: History, answer: Callable[[int, Reply], None]) -> None:
        self._history = history
        self._answer = answer
        self._followers: list[_Follower] = []

    def answer(self, client: int, request: Request, config: ClusterConfig) -> bool:
        """Answer if it is ours to answer, or if it asks for a configuration that cannot be."""
        call = request.call
        result: Any
        try:
            if isinstance(call, calls.Events):
                self._events(client, request.id, call)
                return True
            if isinstance(call, calls.FenceHistory):
                result = {"history": self._history.fences(call.node)}
            elif isinstance(call, calls.ConfigShow):
                result = {"config": msgspec.to_builtins(config)}
            elif isinstance(call, calls.ConfigApply):
                check_cluster(call.config, lab=config.naive)  # whoever sent it: the engine believes it
                return False
            else:
                return False
        except RingfenceError as error:
            self._answer(client, Reply(request.id, error=error.as_dict()))
            return True
        self._answer(client, Reply(request.id, result=result))
        return True

    def recorded(self, seq: int) -> None:
        """The history has grown to `seq`."""
        for follower in self._followers:
            self._catch_up(follower, seq)

    def gone(self, client: int) -> None:
        self._followers = [one for one in self._followers if one.client != client]

    def _events(self, client: int, id: str, call: calls.Events) -> None:
        events = self._history.events(call.since, max(1, min(call.limit, BATCH)))
        if not call.follow:
            self._answer(client, Reply(id, result={"events": events}))
            return
        follower = _Follower(client, id, call.since)
        self._followers.append(follower)
        self._push(follower, events)
        self._catch_up(follower, None)

    def _catch_up(self, follower: _Follower, seq: int | None) -> None:
        while seq is None or follower.since < seq:
            events = self._history.events(follower.since, BATCH)
            self._push(follower, events)
            if len(events) < BATCH:
                return

    def _push(self, follower: _Follower, events: list[dict[str, Any]]) -> None:
        for event in events:
            follower.since = max(follower.since, int(event["seq"]))
            self._answer(follower.client, Reply(follower.id, result={"event": event}, final=False))
