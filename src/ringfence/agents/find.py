"""Where a fence agent's executable lies.

First where the system has its agents, then on PATH, of which only directories count that nobody but root (or
this user) can write to: whoever may put a file there would run it as the daemon."""

import difflib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ringfence.agents.process import AGENT_PATH
from ringfence.core.errors import Unavailable

NOT_AGENTS = (
    "fence_check", "fence_kdump_send", "fence_mpath_check", "fence_node", "fence_scsi_check", "fence_tool",
    "fence_virtd",
)  # fmt: skip
"""What is called like an agent and is none: to start it would do something."""


def find_agent(agent: str) -> str:
    """The executable's path.  Raises Unavailable."""
    if "/" in agent and not agent.startswith("/"):
        raise Unavailable(f"fence agent {agent} is neither a name nor an absolute path", next="mend `agent`")
    found = shutil.which(agent, path=os.pathsep.join(agent_directories()))
    if found is None:
        there = Path(agent).exists() if agent.startswith("/") else False
        what = "is not executable" if there else "is not installed on this host"
        near = "" if there else nearest_agent(agent)
        cure = "install it (Debian: fence-agents)"
        raise Unavailable(
            f"fence agent {agent} {what}", next=f"did you mean {near}? else {cure}" if near else cure
        )
    return found


def nearest_agent(agent: str) -> str:
    """An installed one that is called nearly so; empty: none is."""
    wanted = agent.rsplit("/", 1)[-1].removeprefix("fence_")
    names = {name.removeprefix("fence_"): name for name in installed_agents()}
    return next((names[near] for near in difflib.get_close_matches(wanted, names, 1)), "")


def installed_agents() -> dict[str, str]:
    """Every agent on this host: its path by its name, sorted; of two the one that would be run."""
    found: dict[str, str] = {}
    for directory in agent_directories():
        for name in _executables(directory):
            if name.startswith("fence_") and name.partition(".")[0] not in NOT_AGENTS:
                found.setdefault(name, os.path.join(directory, name))
    return dict(sorted(found.items()))


def agent_directories() -> list[str]:
    own = [
        one for one in os.environ.get("PATH", "").split(os.pathsep) if one.startswith("/") and only_ours(one)
    ]
    return list(dict.fromkeys((*AGENT_PATH.split(os.pathsep), *own)))


def only_ours(path: str) -> bool:
    """Whether nobody but root, or this user, could change what stands there."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _executables(directory: str) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_file() and os.access(entry.path, os.X_OK):
                    yield entry.name
    except OSError:
        return
