"""Passwords that were given -> the devices that ask for them."""

from collections.abc import Mapping

import msgspec

from ringfence.config.setup.plan import Plan, Secret
from ringfence.core.errors import BadInput

EVERY = ""


def with_passwords(plan: Plan, given: Mapping[str, str]) -> Plan:
    """
    Args:
        given: by a device's name; by a node's, for the devices that fence it, be it others too; by EVERY.
            The narrower goes first.  Only a device that is named gets what is no password: an SNMP community
            goes over the network in clear, and must not become the password of all BMCs by the way.

    Raises:
        BadInput: nobody asks for one of them, or two differ for one device.
    """
    filled, used = [], []
    for secret in plan.secrets:
        nodes = _nodes(plan, secret.device)
        wide = (*nodes, EVERY) if "password" in secret.missing else ()
        key = next((key for key in (secret.device, *wide) if key in given), None)
        if secret.missing and key is not None:
            same = [node for node in nodes if node in given] if key in nodes else []
            if len({given[node] for node in same}) > 1:
                raise BadInput(
                    f"--password-file: {' and '.join(same)} share {secret.device}, with a password each",
                    next=f"give --password-file {secret.device}=...",
                )
            used += [key, *same]
            secret = _fill(secret, given[key])
        filled.append(secret)
    for key in given:
        if key not in used:
            raise BadInput(
                f"--password-file: no fence device{' of ' + key if key else ''} asks for a password",
                next="give --fence, or leave it out",
            )
    return msgspec.structs.replace(plan, secrets=tuple(filled))


def _nodes(plan: Plan, device: str) -> list[str]:
    """Those that it fences."""
    return [
        node.name for node in plan.config.nodes if any(device in level.names for level in node.levels)
    ]


def _fill(secret: Secret, value: str) -> Secret:
    key, *rest = secret.missing
    return msgspec.structs.replace(secret, values={**secret.values, key: value}, missing=tuple(rest))
