"""Have a node fenced, and see what becomes of it: for the command line, and for programs.

    order = order_fence(connection, "n3", who="ann", why="it smokes")
    for progress in follow(connection, order):
        print(progress.lines)
    if progress.fenced: ...

The order stands whether or not anybody follows it, and whatever becomes of this connection."""

import math
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from ringfence.client.blocking import Connection
from ringfence.host.clock import boottime_ns
from ringfence.wire import client as calls

LOOK_EVERY_S = 0.2


class Order(msgspec.Struct, frozen=True):
    node: str
    id: str
    lives: tuple[str, ...]
    """What it is about."""


class Progress(msgspec.Struct, frozen=True):
    lines: tuple[str, ...]
    """What is new since the last one, for people."""
    fenced: bool
    """There is proof about every life that the order is about.  (Their locks move a moment later.)"""
    evidence: tuple[str, ...] = ()
    """The proof, a line each; once it is there."""


def order_fence(connection: Connection, node: str, *, who: str, why: str, action: str = "") -> Order:
    """Raises RingfenceError if it is refused: nothing was done then.

    Args:
        action: "off", "reboot", or "": as the cluster's configuration says."""
    answer = connection.call(calls.FenceNode(node, who, why, boottime_ns(), action))
    return Order(node, answer["order"], tuple(answer["lives"]))


def follow(connection: Connection, order: Order, limit_s: float = math.inf) -> Iterator[Progress]:
    """What happens, as it happens; ends when there is proof, or after `limit_s` without it.

    Raises RingfenceError if the daemon ends."""
    give_up = time.monotonic() + limit_s
    said: list[str] = []
    while True:
        found = connection.call(calls.FenceStatus(order.node))
        mine = [one for one in found["victims"] if one["life"] in order.lives]
        evidence = _evidence(found, order)
        fenced = all(one["proven"] for one in mine) and bool(mine or evidence)
        lines = [line for one in mine for line in _told(one) if line not in said]
        if lines or fenced:
            yield Progress(tuple(lines), fenced, evidence if fenced else ())
        if fenced or time.monotonic() >= give_up:
            return
        said += lines
        time.sleep(LOOK_EVERY_S)


def _told(victim: dict[str, Any]) -> list[str]:
    """What is being done and what came of it; not what passes with every moment."""
    kept = ("attempt ", "level ", "evidence: ", "no device ", "no fence devices")
    return [str(line) for line in victim["lines"] if line.startswith(kept)]


def _evidence(found: dict[str, Any], order: Order) -> tuple[str, ...]:
    """Of lives that are given up already; of the others their own lines tell."""
    return tuple(
        f"{proof['kind']}: {proof['how']}"
        for record in found["fenced"]
        if record["life"] in order.lives
        for proof in record["evidence"]
    )
