"""What is wrong with what an agent will be told: each device, with each node's plug and its secrets, held
against the agent's own metadata and against the table of cautions.

Agents pass over parameters that they do not know and take the last of two names for one thing; both leave a
device that looks configured and is not.  A secret's value is never quoted."""

import difflib
from collections.abc import Callable, Iterator, Mapping

import msgspec

from ringfence.config.agents.cautions import Cure, remarks
from ringfence.config.agents.metadata import (
    YES_NO,
    Kind,
    Metadata,
    Parameter,
    effective_default,
    spelled,
    yes,
)
from ringfence.config.agents.stock import NO_PROOF, OTHER_WAYS, base_name, stock_agent
from ringfence.config.checks import is_secret
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Use

BY_NODE_NAME = ("fence_scsi",)
"""Agents that need no plug, though they say so: they go by the node's name, which they are told."""
READS_PENDING_AS_OFF = ("fence_apc",)
"""Agents that look at a menu without seeing the star.  Source: fence_apc, get_power_status, its show_re."""
ALWAYS_TOLD = ("nodename", "action")
"""By ringfence, with every call."""


class Trouble(msgspec.Struct, frozen=True):
    device: str
    label: str
    """The device, with its plug where that is one of several."""
    what: str
    next: str = ""
    wrong: bool = True
    """False: worth knowing; it may be meant so."""
    lacking: bool = False
    """This host cannot tell what is wrong: its agent is missing or broken."""

    @property
    def line(self) -> str:
        return f"{self.label}: {self.what}{'; ' + self.next if self.next else ''}"


_What = tuple[str, str, bool]


def check_agents(
    cluster: ClusterConfig,
    metadata: Callable[[str], Metadata | None],
    secrets: Callable[[str], Mapping[str, str] | None],
) -> list[Trouble]:
    """Everything that can be said of the cluster's devices without asking them.  What is wrong comes first.

    Args:
        metadata: of an agent, as a device names it; None: it is not known here, and its parameters are not
            looked at.
        secrets: of a device; None: this user may not read them, and none is missed.
    """
    uses = [use for node in cluster.nodes for level in node.levels for use in level.uses]
    used = [use.device for use in uses]
    uses += [Use(device.name) for device in cluster.devices if device.name not in used]
    found: dict[tuple[str, _What], list[str]] = {}
    for use in uses:
        device = cluster.device(use.device)
        given = {**device.parameters, **use.parameters}
        actions = ("off", "status", "on") if cluster.fence_action == "reboot" else ("off", "status")
        limit_ms = device.timeout_ms or cluster.timing.agent_timeout_ms
        troubles = _check(device, given, secrets(device.name), metadata(device.agent), actions, limit_ms)
        for what in troubles:
            labels = found.setdefault((device.name, what), [])
            if use.label not in labels:
                labels.append(use.label)
    return sorted(_told(found), key=lambda one: not one.wrong)


def _told(found: Mapping[tuple[str, _What], list[str]]) -> Iterator[Trouble]:
    """What is only remarked, and of several plugs of a device, is said once, of the device."""
    for (device, what), labels in found.items():
        wrong = what[2]
        for label in labels if wrong or len(labels) == 1 else [device]:
            yield Trouble(device, label, *what)


def _check(
    device: DeviceConfig,
    given: Mapping[str, str],
    secrets: Mapping[str, str] | None,
    metadata: Metadata | None,
    actions: tuple[str, ...],
    limit_ms: int,
) -> Iterator[_What]:
    name = base_name(device.agent)
    if name in NO_PROOF and device.confirms is not Confirms.SELF_FENCE:
        yield f"{name} proves nothing, as ringfence knows it: {NO_PROOF[name]}", "", False
    whole = {**given, **(secrets or {})}
    for remark in remarks(device.agent, whole):
        caution = remark.caution
        if caution.cure is Cure.SET and metadata is not None:
            own = metadata.parameter(caution.key)
            if own is not None and own.default == caution.value:
                continue  # this version of the agent does so by itself
        yield remark.words, remark.next, remark.refused
    if name in READS_PENDING_AS_OFF and not device.settle_ms:
        yield (
            f'{name} reads an "OFF*" in a PDU\'s menu (accepted, and not carried out yet) as off',
            "give it a settle_ms longer than the PDU's delay",
            False,
        )
    if metadata is None:
        return
    yield from _names(name, metadata, whole)
    for key, value in whole.items():
        parameter = metadata.parameter(key)
        if parameter is not None:
            yield from _value(parameter, key, value, key in (secrets or {}) or is_secret(key))
    yield from _missing(device, metadata, whole, secrets is not None)
    for action in actions:
        if not metadata.can(action):
            yield f"{name} has no action {action}", _LACKING[action], True
    yield from _slow(metadata, whole, limit_ms)


_LACKING = {
    "off": "name another agent: this one cannot fence",
    "status": "name another agent: what it switched off cannot be looked at",
    "on": 'set fence_action = "off", or name another agent: this one cannot switch on again',
}


def _names(agent: str, metadata: Metadata, given: Mapping[str, str]) -> Iterator[_What]:
    """Unknown ones, and two for one thing."""
    seen: dict[str, str] = {}
    for key in given:
        parameter = metadata.parameter(key)
        if parameter is None:
            if spelled(key) in ALWAYS_TOLD:
                continue
            known = [name for one in metadata.parameters for name in (one.name, *one.old_names)]
            near = difflib.get_close_matches(spelled(key), known, 1)
            cure = f"did you mean {near[0]}?" if near else f"ringfence fence describe {agent} lists them"
            yield f"{agent} has no parameter {key}", cure, True
        elif parameter.name in seen:
            yield (
                f"{seen[parameter.name]} and {key} are one parameter of {agent}, and it takes the last",
                f"remove {seen[parameter.name] if key == parameter.name else key}",
                True,
            )
        else:
            seen[parameter.name] = key


def _value(parameter: Parameter, key: str, value: str, secret: bool) -> Iterator[_What]:
    shown = key if secret else f"{key}={value}"
    bare = value.strip().strip('"')
    if parameter.kind is Kind.SELECT and parameter.options and bare not in parameter.options:
        yield f"{shown} is not known to the agent", f"one of {', '.join(parameter.options)}", True
    elif parameter.kind is Kind.BOOLEAN and bare.lower() not in YES_NO:
        yield f"{shown} is neither yes nor no, and the agent would leave it out", "give 1 or 0", True
    elif parameter.kind in (Kind.INTEGER, Kind.SECOND) and not _whole(bare):
        what = "whole seconds" if parameter.kind is Kind.SECOND else "a whole number"
        yield f"{shown} is not {what}", f"give {what}", True


def _whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()


def _missing(
    device: DeviceConfig, metadata: Metadata, given: Mapping[str, str], with_secrets: bool
) -> Iterator[_What]:
    stock = stock_agent(device.agent)
    needs = stock.needs if stock is not None else ()
    as_ip = effective_default(metadata, "port_as_ip", given)
    for parameter in metadata.parameters:
        name = parameter.name
        if not (parameter.required or name in needs) or spelled(name) in ALWAYS_TOLD:
            continue
        if effective_default(metadata, name, given) or (is_secret(name) and not with_secrets):
            continue
        if name == "plug" and base_name(device.agent) in BY_NODE_NAME:
            continue
        if name == "ip" and as_ip is not None and yes(as_ip) and effective_default(metadata, "plug", given):
            continue
        where = f"secrets/{device.name}" if is_secret(name) else "its parameters, or to each use in a level"
        yield f"{name} is missing ({parameter.words.partition('. ')[0]})", f"add it to {where}", True
    if with_secrets and stock is not None:
        for secret in stock.secrets:
            there = metadata.parameter(secret)
            ways = any(effective_default(metadata, key, given) for key in (secret, *OTHER_WAYS))
            if there is not None and not ways:
                yield f"it has no {secret}", f"if it wants one: secrets/{device.name}, {secret}=...", False


def _slow(metadata: Metadata, given: Mapping[str, str], limit_ms: int) -> Iterator[_What]:
    """The agent counts looks, not seconds: each costs its sleep and the look itself."""
    looks, sleep_s, delay_s = (
        effective_default(metadata, key, given) or "0"
        for key in ("power_timeout", "stonith_status_sleep", "delay")
    )
    if not all(map(_whole, (looks, sleep_s, delay_s))):
        return
    if int(delay_s) * 1000 >= limit_ms:
        what = f"delay = {delay_s} s leaves no time: a call is ended after {limit_ms / 1000:g} s"
        yield what, "lower it, or raise timeout_ms", True
        return
    least_ms = (int(looks) * int(sleep_s) + int(delay_s)) * 1000
    if least_ms >= limit_ms:
        yield (
            f"it may go on for {least_ms // 1000} s (power_timeout={looks} looks, {sleep_s} s apart, "
            f"delay={delay_s}), and is ended after {limit_ms / 1000:g} s",
            "raise timeout_ms, or lower power_timeout",
            False,
        )
