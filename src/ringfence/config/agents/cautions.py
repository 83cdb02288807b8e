"""What stock agents do by default, or can be told to do, that makes their "off" a lie or gives a secret away.

One table, with the reason in each row.  `prepared` applies it to what is handed to an agent, so that it holds
whether or not anybody checked the configuration; `ringfence fence describe` and `config check` show it.

Sources: ClusterLabs fence-agents 4.12.1, each row tried or read there; ipmitool 1.8.19."""

import enum
from collections.abc import Callable, Iterator, Mapping

import msgspec

from ringfence.config.agents.metadata import spelled, yes
from ringfence.config.agents.stock import base_name
from ringfence.core.errors import ConfigError


class Cure(enum.Enum):
    SET = "set"
    """Given by ringfence where the configuration does not say."""
    LEFT_OUT = "left out"
    """Not handed to the agent."""
    REFUSED = "refused"
    NEEDED = "needed"
    """Refused without."""
    CHECKED = "checked"
    """Allowed; but not every answer is believed (`plug_must_be_listed`, `must_be_sent`)."""


Given = Mapping[str, str]


class Caution(msgspec.Struct, frozen=True):
    cure: Cure
    key: str
    why: str
    agents: tuple[str, ...] = ()
    """By base name; none: every agent."""
    value: str = ""
    """What it is set to, or should be."""
    unsafe: Callable[[str, Given], bool] = lambda value, given: True
    """Of a value that was given, with all that was given."""

    def about(self, agent: str) -> bool:
        return not self.agents or base_name(agent) in self.agents


_IPMI = (
    "fence_ipmilan", "fence_ipmilanplus", "fence_idrac", "fence_imm", "fence_ilo3", "fence_ilo4",
    "fence_ilo5", "fence_ilo6",
)  # fmt: skip
_OLD_IPMI = ("fence_ipmilan", "fence_idrac", "fence_imm")
"""Those whose own default is IPMI 1.5."""
_CYCLING = (*_IPMI, "fence_docker", "fence_gce", "fence_pve")
_SNMP_VERSION = {
    "fence_apc_snmp": "1", "fence_tripplite_snmp": "1", "fence_ibmblade": "1", "fence_ifmib": "2c",
    "fence_ipdu": "3", "fence_cisco_mds": "", "fence_emerson": "", "fence_intelmodular": "",
}  # fmt: skip
"""Agents for which whatever is not "on" is "off", and the SNMP version that each speaks untold ("": what
net-snmp likes best)."""
_VAGUE = ("fence_virsh", "fence_vmware_rest", "fence_vmware_soap")
"""Agents that call a machine off that is suspended (fence_virsh also one that is shutting down, or of which
it hears nothing), and then send no off."""
OLD_NAMES = {"plug": "port", "debug_file": "debug"}


def _is_list(value: str, given: Given) -> bool:
    separator = _given(given, "plug_separator") or ","
    return separator in value


def _is_on(value: str, given: Given) -> bool:
    return yes(value) or value.strip() == ""


CAUTIONS = (
    Caution(
        Cure.SET, "lanplus", "its own default is IPMI 1.5, which neither encrypts nor checks what is sent",
        _OLD_IPMI, "1",
    ),
    Caution(
        Cure.SET, "method", "a cycle is done once the device has taken the command; nobody sees the host off",
        _CYCLING, "onoff",
    ),
    Caution(
        Cure.REFUSED, "method",
        "a cycle is done once the device has taken the command: fence_ipmilan says so of a host that runs on",
        value="onoff", unsafe=lambda value, given: value.strip().lower() != "onoff",
    ),
    Caution(
        Cure.REFUSED, "cipher", "suite 0 asks for no password: anybody on that network switches the host",
        _IPMI, "17 or 3", unsafe=lambda value, given: value.strip() in ("0", "00"),
    ),
    Caution(
        Cure.REFUSED, "plug", "some agents switch the first of several plugs and call it done",
        value="a device each in the level's devices, e.g. {device = \"pdu\", plug = \"5\"}", unsafe=_is_list,
    ),
    Caution(
        Cure.NEEDED, "systems_uri", "without it the last system of the service's list is switched, whichever",
        ("fence_redfish",), "/redfish/v1/Systems/...",
    ),
    Caution(
        Cure.REFUSED, "missing_as_off", "a machine that the device does not know would read as off",
        unsafe=_is_on,
    ),
    Caution(
        Cure.CHECKED, "snmp_version",
        "by SNMP 2c and 3 an outlet that is not there reads as off: after each off it must stand in the "
        "device's list; by 1 the device refuses it itself",
        tuple(_SNMP_VERSION), "1",
    ),
    Caution(
        Cure.CHECKED, "plug",
        "a machine that is suspended or still shutting down reads as off, and is then left alone: only an "
        "off that was sent is believed; of one that was off already look for yourself, or let it boot",
        _VAGUE,
    ),
    Caution(
        Cure.REFUSED, "version", "the agent then prints its version and ends well, which reads as done",
        unsafe=_is_on,
    ),
    Caution(
        Cure.REFUSED, "help", "the agent then prints its options and ends well, which reads as done",
        unsafe=_is_on,
    ),
    Caution(
        Cure.LEFT_OUT, "disable_timeout", "the agent would wait for ever; ringfence ends it at timeout_ms"
    ),
    Caution(Cure.LEFT_OUT, "verbose", "agents that talk write passwords into the system's log"),
    Caution(Cure.LEFT_OUT, "verbose_level", "agents that talk write passwords into the system's log"),
    Caution(Cure.LEFT_OUT, "debug_file", "agents write passwords into it"),
)  # fmt: skip


class Remark(msgspec.Struct, frozen=True):
    """What a row means for one device."""

    caution: Caution
    words: str
    next: str = ""
    """What to do about it; empty: nothing, it is taken care of."""

    @property
    def refused(self) -> bool:
        return self.caution.cure in (Cure.REFUSED, Cure.NEEDED)


def cautions_of(agent: str) -> list[Caution]:
    return [one for one in CAUTIONS if one.about(agent)]


def remarks(agent: str, given: Given) -> Iterator[Remark]:
    """What of the table concerns these parameters.  A value is quoted only where the row names it unsafe."""
    for one in cautions_of(agent):
        values = _values(given, one.key)
        value = values[-1] if values else None
        match one.cure:
            case Cure.SET if value is None:
                yield Remark(one, f"{one.key}={one.value} is set: {one.why}")
            case Cure.LEFT_OUT if value is not None:
                yield Remark(one, f"{one.key} is left out: {one.why}")
            case Cure.REFUSED:
                # Of one that stands there under two names: who knows which of them this agent takes?
                for unsafe in [value for value in values if one.unsafe(value, given)]:
                    cure = f"give {one.value}" if one.value else f"remove {one.key}"
                    yield Remark(one, f"{one.key}={unsafe} is refused: {one.why}", cure)
            case Cure.NEEDED if not value:
                yield Remark(one, f"{one.key} is missing: {one.why}", f'add {one.key} = "{one.value}"')
            case Cure.CHECKED if one.key != "snmp_version" or plug_must_be_listed(agent, given):
                yield Remark(one, f"{one.key}: {one.why}")


def prepared(agent: str, given: Given) -> dict[str, str]:
    """What is handed to the agent for these parameters.

    Raises:
        ConfigError: the table refuses them; the message names the parameter, not the device.
    """
    for one in remarks(agent, given):
        if one.refused:
            raise ConfigError(one.words, next=one.next)
    found = dict(given)
    for caution in cautions_of(agent):
        if caution.cure is Cure.LEFT_OUT:
            found = {key: value for key, value in found.items() if spelled(key) not in _names(caution.key)}
        elif caution.cure is Cure.SET and _given(given, caution.key) is None:
            found[caution.key] = caution.value
    return found


def plug_must_be_listed(agent: str, given: Given) -> bool:
    """Whether an "off" of this agent may only mean that its plug is not there."""
    name = base_name(agent)
    if name not in _SNMP_VERSION:
        return False
    return (_given(given, "snmp_version") or _SNMP_VERSION[name]).strip() != "1"


def must_be_sent(agent: str) -> bool:
    """Whether its "already off" may be said of a machine that goes on."""
    return base_name(agent) in _VAGUE


def is_listed(given: Given, listing: str) -> bool:
    """Whether the plug stands in what the agent printed for its action `list`.

    Args:
        listing: lines of PLUG,NAME, where the separator is a parameter; of a device with several switches
            PLUG is SWITCH:PLUG.
    """
    plug = (_given(given, "plug") or "").strip().casefold()
    switch = (_given(given, "switch") or "1").strip()
    separator = _given(given, "separator") or ","
    for line in listing.splitlines():
        there, _, name = line.partition(separator)
        ways = (there.strip().casefold(), name.strip().casefold())
        if plug and (plug in ways or ways[0] == f"{switch}:{plug}"):
            return True
    return False


def _names(key: str) -> tuple[str, ...]:
    return (key, OLD_NAMES[key]) if key in OLD_NAMES else (key,)


def _values(given: Given, key: str) -> list[str]:
    """Under all its names and spellings."""
    names = _names(key)
    return [value for name, value in given.items() if spelled(name) in names]


def _given(given: Given, key: str) -> str | None:
    """Of several the last, as agents have it."""
    values = _values(given, key)
    return values[-1] if values else None
