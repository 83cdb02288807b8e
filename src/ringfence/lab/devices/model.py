"""A simulated device, and the condition that the state of its hosts puts it in."""

import enum
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from ringfence.lab.lies import Lie

BMC, PDUS = "bmc", ("pdu-a", "pdu-b")
USER = "admin"
"""Whom all devices know."""


def new_password() -> str:
    """16 characters: IPMI takes 20 at most, SNMPv3 8 at least."""
    return secrets.token_hex(8)


class Simulated(msgspec.Struct, frozen=True):
    kind: str
    name: str
    """As the cluster's configuration calls it: "bmc-an-a01n01", "pdu-a"."""
    device: str
    """Of `layout.DEVICES`: as what of its hosts the power switch knows it."""
    hosts: tuple[str, ...]
    """Whom it switches; a PDU's outlet 1 is the first one's."""
    address: str
    port: int

    def plug_of(self, host: str) -> str:
        return str(self.hosts.index(host) + 1)


class Condition(enum.Enum):
    ANSWERS = "answers"
    REFUSES = "refuses logins"
    SILENT = "silent"
    """Its port takes what is sent, and nothing ever comes back."""
    CLOSED = "unreachable"
    GARBLED = "answers garbage"


_OF_LIES = {
    Lie.UNREACHABLE: Condition.CLOSED,
    Lie.HANG: Condition.SILENT,
    Lie.GARBAGE: Condition.GARBLED,
    Lie.NO_LOGIN: Condition.REFUSES,
}


def condition(one: Simulated, view: Mapping[str, Mapping[str, Any]]) -> Condition:
    """A BMC lives from its host's supplies; a PDU has a supply of its own.

    Args:
        view: what the power switch tells, see `PowerSwitch`."""
    hosts = [view[host] for host in one.hosts if host in view]
    if one.device == BMC and hosts and not any(host["fed"] for host in hosts):
        return Condition.SILENT
    lies = {Lie(host["lies"][one.device]) for host in hosts}
    return next((found for lie, found in _OF_LIES.items() if lie in lies), Condition.ANSWERS)
