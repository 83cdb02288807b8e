"""What the fencer has on record of one request.  Pure: XML in, a verdict out.

Source: stonith_admin --history --verbose --output-as=xml of Pacemaker 2.1 (fence_event elements; its schema
is api/fence-event-2.*.rng).  A confirmation by a person bears the delegate "a human" and an id of its own;
whoever waits for the same target is then told that it succeeded, while its own event still says "pending"
(seen on 2.1.5)."""

from collections.abc import Iterable
from xml.etree.ElementTree import Element

import msgspec

HUMAN = "a human"


class Event(msgspec.Struct, frozen=True):
    action: str
    client: str
    """Who asked: program and process id; for Pacemaker's own it is pacemaker-controld."""
    status: str
    """pending | success | failed."""
    delegate: str = ""
    """The node whose fencer ran the agent."""
    reason: str = ""


def events(answer: Element, target: str) -> tuple[Event, ...]:
    """Of this target, in the order of the answer (the newest first)."""
    return tuple(
        Event(
            one.get("action", ""), one.get("client", ""), one.get("status", ""), one.get("delegate", ""),
            one.get("exit-reason", ""),
        )
        for one in answer.iter("fence_event")
        if one.get("target") == target
    )  # fmt: skip


def fenced(found: Iterable[Event]) -> bool:
    """Whether the last that is known of the node is that a device has switched it off."""
    newest = next((one for one in found if one.status == "success"), None)
    return newest is not None and newest.action == "off" and newest.delegate != HUMAN


def doubt(found: Iterable[Event], client: str) -> str:
    """Why the fencer's "done" to this client's "off" is not even a claim; empty: it is one.

    Args:
        client: as the fencer names it, "stonith_admin.PID".
    """
    all_events = tuple(found)
    own = next((one for one in all_events if one.client == client and one.action == "off"), None)
    if own is None:
        return "Pacemaker said done, and has no record of it"
    if own.status == "success":
        return "a person confirmed it to Pacemaker" if own.delegate == HUMAN else ""
    if any(one.delegate == HUMAN for one in all_events):
        return f"a person confirmed it to Pacemaker, whose own attempt is {own.status}"
    return f"Pacemaker said done, and has it on record as {own.status}"
