"""A device's agent -> the command that is started for it.

Agents that are part of ringfence speak FenceAgentAPI as all others do, so that they are run, limited and
recorded like them.  `fence_sbd` is one of them on purpose: the stock one's word is not even a claim
(`agents.sbd` says why), and its name is what an administrator looks for."""

import sys
from collections.abc import Sequence

from ringfence.agents.find import find_agent
from ringfence.config.agents.stock import base_name

OWN = {"ringfence-pacemaker": "ringfence.agents.pacemaker", "fence_sbd": "ringfence.agents.sbd"}
"""The name that a configuration gives -> the module that is run."""


def command_of(agent: str) -> Sequence[str]:
    """Raises Unavailable: there is no such agent on this host."""
    own = OWN.get(base_name(agent))
    return (sys.executable, "-I", "-m", own) if own is not None else (find_agent(agent),)
