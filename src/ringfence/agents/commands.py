"""A device's agent -> the command that is started for it.

Agents that are part of ringfence speak FenceAgentAPI as all others do, so that they are run, limited and
recorded like them.  `fence_sbd` is one of them on purpose: the stock one's word is not even a claim
(`agents.sbd` says why), and its name is what an administrator looks for."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ringfence.agents.process import AGENT_PATH
from ringfence.core.errors import Unavailable

OWN = {"ringfence-pacemaker": "ringfence.agents.pacemaker", "fence_sbd": "ringfence.agents.sbd"}
"""The name that a configuration gives -> the module that is run."""


def command_of(agent: str) -> Sequence[str]:
    """Raises Unavailable: there is no such agent on this host."""
    own = OWN.get(agent.rsplit("/", 1)[-1])
    return (sys.executable, "-I", "-m", own) if own is not None else (find_agent(agent),)


def find_agent(agent: str) -> str:
    """The executable's path.  Raises Unavailable."""
    if "/" in agent and not agent.startswith("/"):
        raise Unavailable(f"fence agent {agent} is neither a name nor an absolute path", next="mend `agent`")
    found = shutil.which(agent, path=AGENT_PATH)
    if found is None:
        there = Path(agent).exists() if agent.startswith("/") else False
        what = "is not executable" if there else "is not installed on this host"
        raise Unavailable(f"fence agent {agent} {what}", next="install it (Debian: fence-agents)")
    return found
