"""What the importers find, in ringfence's words, and what they share."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from ringfence.config.agents.stock import NO_PROOF, OLD_WORDS, Sort, base_name, confirms_of, stock_agent
from ringfence.config.setup.nodes import family
from ringfence.config.setup.plan import Use
from ringfence.core.cluster import Confirms, NodeConfig

Uses = list[list[Use]]
"""One node's levels."""


class Part(msgspec.Struct, frozen=True):
    """One device of a level, as the file has it."""

    device: str
    agent: str
    parameters: dict[str, str]
    """Secrets included; without the action."""


class Found(msgspec.Struct, frozen=True):
    name: str
    nodes: tuple[NodeConfig, ...]
    levels: dict[str, list[list[Part]]] = {}
    """By node name."""
    two_node: bool = False
    token_ms: int = 0
    """0: not said."""
    post_join_delay_ms: int = 0
    """0: not said."""
    reboot: bool = False
    """Hosts were switched on again after they were fenced."""
    notes: tuple[str, ...] = ()


def short_names(found: Found) -> Found:
    """Nodes by the short names that hosts have for themselves (`hostname -s`), where those differ; their
    full names stay addresses.  A node that is an IP address gets "node" and its id."""
    short = [
        f"node{node.id}" if family(node.name) else node.name.split(".")[0] or node.name
        for node in found.nodes
    ]
    if len(set(short)) < len(short):
        return found
    renamed = [(node, name) for node, name in zip(found.nodes, short, strict=True) if node.name != name]
    return msgspec.structs.replace(
        found,
        nodes=tuple(
            msgspec.structs.replace(node, name=name) for node, name in zip(found.nodes, short, strict=True)
        ),
        levels={new: found.levels.get(node.name, []) for node, new in zip(found.nodes, short, strict=True)},
        notes=(
            *found.notes,
            *(f"node {node.id} is called {name} here, not {node.name}: `hostname -s` there must say so"
              for node, name in renamed),
        ),
    )  # fmt: skip


def proving(
    levels: Mapping[str, Sequence[Sequence[Part]]], said: Mapping[str, Confirms]
) -> tuple[dict[str, Uses], list[str]]:
    """The levels with what each device's off proves; devices that prove nothing are left out, and named.

    Raises BadInput: an agent that nobody knows."""
    notes: list[str] = []
    found: dict[str, Uses] = {}
    for node, mine in levels.items():
        found[node] = []
        for level in mine:
            uses = []
            for part in level:
                name = base_name(part.agent)
                if name in NO_PROOF and name not in said:
                    notes.append(f"{part.device} of {node} ({name}): {NO_PROOF[name]}")
                    continue
                notes += _lacking(part, node)
                confirms = confirms_of(part.agent, said, "say it: --confirms {agent}={words}")
                uses += [Use(part.device, part.agent, one, confirms) for one in _plugs(part, node, notes)]
            if uses:
                found[node].append(uses)
    return found, notes


def _lacking(part: Part, node: str) -> Iterator[str]:
    stock = stock_agent(part.agent)
    for key in stock.needs if stock is not None else ():
        if not part.parameters.keys() & {key, OLD_WORDS[key]}:
            yield (
                f"{part.device} of {node} ({base_name(part.agent)}) has no {key}: it cannot know what to "
                f"switch off; add it to its parameters in every ringfence.toml"
            )


def _plugs(part: Part, node: str, notes: list[str]) -> Iterator[dict[str, str]]:
    """Parameters for one outlet each: some agents switch only the first of `plug=5,6` and call it done."""
    stock = stock_agent(part.agent)
    key = next((key for key in ("plug", OLD_WORDS["plug"]) if key in part.parameters), "")
    plugs = part.parameters.get(key, "").split(",")
    if stock is None or stock.sort is not Sort.OUTLET or len(plugs) == 1:
        yield part.parameters
        return
    notes.append(
        f"{part.device} of {node}: {key}={part.parameters[key]} as one call; it is one call an outlet now"
    )
    for plug in plugs:
        yield {**part.parameters, key: plug.strip()}
