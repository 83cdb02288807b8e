"""What a device is configured with -> what is said of it, and what its agent is told.

A file holds blocks, with a blank line between them.  A block is a device: `agent NAME`, then `give KEY=VALUE`
for a parameter, `plug KEY=VALUE` for one of the node's own, `secret KEY=VALUE`, `settle MS`, `reboot` for a
cluster that switches hosts on again.  After a line of four dashes stands what `config check` says of it with
the agents that are installed here, and what the agent reads on stdin beyond what it was given, or why it is
not started.  Lines with `#` are for people.  REWRITE=1 records the second half anew; read the difference
before you commit it."""

from collections.abc import Callable, Iterator
from pathlib import Path

from ringfence.agents.runner import request_of
from ringfence.config.agents.check import check_agents
from ringfence.config.agents.metadata import Metadata
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Use
from ringfence.core.errors import ConfigError

Known = Callable[[str], Metadata | None]


class BadCommand(Exception):
    """The file's fault."""


def replay(path: Path, known: Known) -> tuple[str, str]:
    """The file's text, and as it would be recorded now."""
    text = path.read_text()
    return text, "\n\n".join(_block(block, known) for block in text.strip().split("\n\n")) + "\n"


def _block(block: str, known: Known) -> str:
    head = block.partition("\n----")[0]
    return "\n".join([head, "----", *_said([line for line in head.splitlines() if line[0] != "#"], known)])


def _said(commands: list[str], known: Known) -> Iterator[str]:
    agent, action, given, plug, secrets, settle_ms = "", "off", {}, {}, {}, 0
    for line in commands:
        word, _, rest = line.partition(" ")
        key, _, value = rest.partition("=")
        match word:
            case "agent":
                agent = rest
            case "give":
                given[key] = value
            case "plug":
                plug[key] = value
            case "secret":
                secrets[key] = value
            case "settle":
                settle_ms = int(rest)
            case "reboot":
                action = "reboot"
            case _:
                raise BadCommand(line)
    device = DeviceConfig("d", agent, Confirms.HOST_OFF, given, settle_ms=settle_ms)
    node = NodeConfig(1, "n1", levels=(Level((Use("d", plug),)),))
    cluster = ClusterConfig("c", fence_action=action, nodes=(node,), devices=(device,))
    for one in check_agents(cluster, known, lambda name: secrets):
        yield f"{'wrong' if one.wrong else 'note'} {one.line}"
    whole = {**given, **plug, **secrets}
    told = DeviceConfig("d", agent, Confirms.HOST_OFF, {**given, **plug})
    try:
        lines = request_of(told, secrets, "off", "n1").decode().splitlines()
    except ConfigError as error:
        yield f"refused {error}"
        return
    read = dict(line.split("=", 1) for line in lines)
    yield from (f"without {key}" for key in whole if key not in read)
    new = [f"{key}={value}" for key, value in read.items() if whole.get(key) != value]
    yield f"told {' '.join(one for one in new if one not in ('nodename=n1', 'action=off')) or 'as given'}"
