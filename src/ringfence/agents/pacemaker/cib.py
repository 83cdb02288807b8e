"""Pacemaker's configuration (CIB) -> the devices that can fence a host, and the plugs to look at.

Pure.  Whatever is not understood for certain (rules, references, renamed actions) is refused by name: a look
at another plug than the one that Pacemaker switches would be no look at all.

Source: Pacemaker Explained 2.1, "Fencing" (pcmk_host_map, pcmk_host_argument, fencing topology);
lib/fencing/st_rhcs.c and daemons/fenced/fenced_commands.c for what an agent is handed."""

import re
from collections.abc import Collection
from xml.etree.ElementTree import Element

import msgspec

from ringfence.core.errors import ConfigError

_ALIAS = re.compile(r"\s*([^:=;\s]+)[:=]((?:\\.|[^;\s])+)[;\s]*")


class Plug(msgspec.Struct, frozen=True):
    """One plug of one of Pacemaker's devices, and what its agent is to be handed."""

    device: str
    agent: str
    parameters: dict[str, str]

    @property
    def label(self) -> str:
        plug = self.parameters.get("plug", self.parameters.get("port", ""))
        return f"{self.device}[{plug}]" if plug else self.device

    @property
    def session(self) -> str:
        """What may serve one call at a time: the agents of one address."""
        return self.parameters.get("ip") or self.parameters.get("ipaddr") or self.device


def plugs(cib: Element, device: str, target: str) -> tuple[Plug, ...]:
    """Each plug of `device` that feeds `target`.  Raises ConfigError: it cannot be told for certain."""
    found = next((one for one in cib.iter("primitive") if one.get("id") == device), None)
    if found is None:
        raise ConfigError(f"{device} is not configured", next="pcs stonith config")
    template = next((one for one in cib.iter("template") if one.get("id") == found.get("template")), None)
    of = found if template is None else template
    agent = of.get("type", "")
    if of.get("class") != "stonith" or not agent.startswith("fence_"):
        raise ConfigError(f"{device} is no fence agent that can be asked", next="use one called fence_...")
    given = {**_attributes(device, template), **_attributes(device, found)}
    if given.get("pcmk_status_action", "status") != "status":
        raise ConfigError(f"{device} has another action for its status", next="remove pcmk_status_action")
    own = {key: value for key, value in given.items() if not key.startswith("pcmk_") and value != "dynamic"}
    argument = given.get("pcmk_host_argument", "plug")
    if argument == "none":
        return (Plug(device, agent, own),)
    fixed = next((key for key in (argument, "plug", "port") if key in own), "")
    named = own.pop(fixed) if fixed else _alias(given.get("pcmk_host_map", ""), target)
    names = [one.strip() for one in named.split(",") if one.strip()]
    return tuple(Plug(device, agent, {**own, argument: one}) for one in names)


def levels(cib: Element, target: str, capable: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Ids of the devices of each level, in their order; without a topology each that can fence it is one.

    Raises ConfigError: which levels are the target's cannot be told."""
    all_levels = tuple(cib.iter("fencing-level"))
    own = [one for one in all_levels if one.get("target") == target]
    own = own or [one for one in all_levels if _matches(one.get("target-pattern", ""), target)]
    if not own and any(one.get("target-attribute") for one in all_levels):
        raise ConfigError("its fencing levels go by attributes", next="name the target in its fencing levels")
    if not own:
        return tuple((one,) for one in capable)
    found: dict[int, list[str]] = {}
    for one in own:
        devices = [name.strip() for name in one.get("devices", "").split(",")]
        found.setdefault(int(one.get("index", "0")), []).extend(name for name in devices if name)
    return tuple(tuple(devices) for _, devices in sorted(found.items()))


def _attributes(device: str, element: Element | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for group in element.findall("instance_attributes") if element is not None else ():
        if group.get("id-ref") or group.find("rule") is not None:
            raise ConfigError(f"{device} has parameters by rule or reference", next="write them out")
        for pair in group.findall("nvpair"):
            name, value = pair.get("name", ""), pair.get("value")
            if value is None or found.get(name, value) != value:
                raise ConfigError(f"{device}: {name} stands twice or by reference", next="write it once")
            found[name] = value
    return found


def _alias(host_map: str, target: str) -> str:
    """As the fencer reads "n1:1;n2:2,3": what the host is called at the device."""
    for match in _ALIAS.finditer(host_map):
        if match[1] == target:
            return re.sub(r"\\(.)", r"\1", match[2])
    return target


def _matches(pattern: str, target: str) -> bool:
    try:
        return bool(pattern) and re.search(pattern, target) is not None
    except re.error:
        raise ConfigError(f"the pattern {pattern} of a level is not read", next="name its target") from None
