"""The stock fence agents: what an "off" of each proves, and what it must be told.

Whoever is not in the table must say it himself (`confirms`): a wrong guess here would let locks move while
their holder still writes.  Agents that prove nothing are named with the reason.

Source: the agents' own metadata and descriptions, ClusterLabs fence-agents 4.12."""

import difflib
import enum
from collections.abc import Mapping

import msgspec

from ringfence.core.cluster import Confirms
from ringfence.core.errors import BadInput


class Sort(enum.Enum):
    BMC = "management controller"
    """Inside the host, so it loses its power with the host's outlets."""
    MANAGER = "enclosure's or hypervisor's manager"
    OUTLET = "switched outlet"
    STORAGE = "storage access"


class StockAgent(msgspec.Struct, frozen=True):
    sort: Sort
    secrets: tuple[str, ...] = ("password",)
    """Which of its parameters hold the secret."""

    @property
    def confirms(self) -> Confirms:
        return _CONFIRMS[self.sort]

    @property
    def own_supply(self) -> bool:
        """It sees the host itself and keeps its power when the host's outlets are off."""
        return self.sort is Sort.MANAGER

    @property
    def needs(self) -> tuple[str, ...]:
        """Parameters without which it cannot know what to switch off."""
        return _NEEDS[self.sort]


_CONFIRMS = {
    Sort.BMC: Confirms.HOST_OFF,
    Sort.MANAGER: Confirms.HOST_OFF,
    Sort.OUTLET: Confirms.OUTLET_OFF,
    Sort.STORAGE: Confirms.STORAGE_CUT,
}
_NEEDS = {Sort.BMC: ("ip",), Sort.MANAGER: ("plug",), Sort.OUTLET: ("ip", "plug"), Sort.STORAGE: ()}
OLD_WORDS = {"ip": "ipaddr", "plug": "port", "username": "login"}
"""What agents still take for these, and old configurations say."""
OTHER_WAYS = ("identity_file", "password_script", "passwd_script")
"""With one of these an agent asks for no password."""

_SORTS = {
    Sort.BMC: (
        "alom amt amt_ws drac drac5 idrac ilo ilo2 ilo3 ilo3_ssh ilo4 ilo4_ssh ilo5 ilo5_ssh ilo6 ilo_mp "
        "ilo_ssh imm ipmilan ipmilanplus redfish rsa rsb"
    ),
    Sort.MANAGER: (
        "bladecenter cisco_ucs hpblade ibmblade ilo_moonshot intelmodular ldom lpar pve rhevm vbox virsh "
        "virt vmware_rest vmware_soap xenapi xvm"
    ),
    Sort.OUTLET: (
        "apc apc_snmp cdu cyberpower_ssh eaton_snmp emerson eps ipdu lindypdu netio raritan raritan_px3 "
        "tripplite_snmp wti"
    ),
    Sort.STORAGE: "brocade cisco_mds mpath sanbox2 scsi",
}
_SECRETS = {
    "community": "apc_snmp cisco_mds eaton_snmp emerson ibmblade intelmodular ipdu lindypdu tripplite_snmp",
    "": "mpath scsi virt xvm",
}
"""Where it is not "password"."""


def _secrets(name: str) -> tuple[str, ...]:
    found = next((key for key, names in _SECRETS.items() if name in names.split()), "password")
    return (found,) if found else ()


STOCK = {
    f"fence_{name}": StockAgent(sort, _secrets(name))
    for sort, names in _SORTS.items()
    for name in names.split()
}

NO_PROOF = {
    "dlm_stonith": "it asks Pacemaker, whose word names no device",
    "fence_ack_manual": "it is a person's word; that is `ringfence fence confirm`",
    "fence_compute": "it changes a record of OpenStack's",
    "fence_crosslink": "a link that is down says nothing of the host",
    "fence_delay": "it only waits",
    "fence_dummy": "it does nothing",
    "fence_evacuate": "it changes a record of OpenStack's",
    "fence_heuristics_ping": "a host that can ping may go on, which fences nobody",
    "fence_kdump": "the host has crashed, but its controllers may still write, and it boots again",
    "fence_manual": "it is a person's word; that is `ringfence fence confirm`",
    "fence_pcmk": "it asks Pacemaker, whose word names no device",
    "fence_watchdog": "it does nothing: the victim's own watchdog is trusted to bite",
    "fence_ringfence": "it asks ringfence itself: a circle",
    "fence_sbd": "it says off once a request lies on the disk, whether or not the host obeyed",
}
"""Agents that are no proof, and why."""


def base_name(agent: str) -> str:
    return agent.rsplit("/", 1)[-1]


def stock_agent(agent: str) -> StockAgent | None:
    """By name or path; None: not in the table."""
    return STOCK.get(base_name(agent))


def confirms_of(agent: str, said: Mapping[str, Confirms], how_to_say: str) -> Confirms:
    """What its off proves: what the user says, else what the table says.

    Args:
        said: agents by their name.
        how_to_say: words with {words} in them, for who must say it.

    Raises:
        BadInput: nobody says, or the agent proves nothing.
    """
    name = base_name(agent)
    if name in said:
        return said[name]
    if name in NO_PROOF:
        raise BadInput(f"{name} proves nothing: {NO_PROOF[name]}", next="name a device that switches power")
    stock = STOCK.get(name)
    if stock is None:
        near = difflib.get_close_matches(f"fence_{name.removeprefix('fence_')}", STOCK, 1)
        cure = how_to_say.format(words="|".join(one.value for one in Confirms), agent=name)
        raise BadInput(
            f"what an off of {name} proves is not known",
            next=f"did you mean {near[0]}? else {cure}" if near else cure,
        )
    return stock.confirms
