"""`--fence NODE[:LEVEL]=AGENT[,KEY=VALUE...]` -> what each node's levels use.

Each word is a level of its own, tried in the order given; words that name the same LEVEL make up that one,
and all of them must pass (a host with two power supplies needs both outlets off)."""

from collections.abc import Sequence

from ringfence.config.agents.stock import OLD_WORDS, Sort, base_name, confirms_of, stock_agent
from ringfence.config.checks import is_secret
from ringfence.config.setup.plan import Use, bmc_address
from ringfence.core.cluster import Confirms
from ringfence.core.errors import BadInput

_EXAMPLE = "write NODE=AGENT,KEY=VALUE,..., e.g. n1=fence_ipmilan,ip=10.9.0.1,username=admin"


def levels_of(words: Sequence[str], nodes: Sequence[str]) -> dict[str, list[list[Use]]]:
    """Each node's levels, each a list of uses; a node without any has none.

    Raises:
        BadInput: names the word and what to write.
    """
    levels: dict[str, list[list[Use]]] = {node: [] for node in nodes}
    seen: dict[tuple[str, ...], str] = {}
    bmcs: dict[str, str] = {}
    for word in words:
        node, level, use = _word(word)
        if node not in levels:
            raise BadInput(f"--fence {node}: no such node", next=f"one of {', '.join(nodes)}")
        stock = stock_agent(use.agent)
        same = (use.agent, *sorted(f"{key}={value}" for key, value in use.parameters.items()))
        if same in seen and (stock is None or stock.sort is not Sort.STORAGE):  # that goes by the node's name
            raise BadInput(
                f"--fence: {use.agent} of {seen[same]} and of {node} would switch the same thing",
                next="give each its own address or plug",
            )
        seen[same] = node
        _check_bmc(node, use, bmcs)
        mine = levels[node]
        level = level or len(mine) + 1
        if level > len(mine) + 1:
            raise BadInput(
                f"--fence {node}:{level}: there is no level {len(mine) + 1} yet", next="number levels from 1"
            )
        if level == len(mine) + 1:
            mine.append([])
        mine[level - 1].append(use)
    return levels


def _check_bmc(node: str, use: Use, bmcs: dict[str, str]) -> None:
    """The address of another host's controller, copied by mistake, would switch that host off and prove this
    one to be.

    Args:
        bmcs: whose each is, by its address; it learns of this one."""
    address = bmc_address(use.agent, use.parameters)
    owner = bmcs.setdefault(address, node) if address else node
    if owner != node:
        raise BadInput(
            f"--fence {node}: {address} is the management controller of {owner} already",
            next="give each host the address of its own",
        )


def _word(word: str) -> tuple[str, int, Use]:
    head, equals, tail = word.partition("=")
    node, colon, level = head.partition(":")
    agent, *pairs = tail.split(",")
    if not equals or not node or not agent or "=" in agent:
        raise BadInput(f"--fence {word!r} is not understood", next=_EXAMPLE)
    if colon and not (level.isascii() and level.isdigit() and 1 <= int(level) <= 9):
        raise BadInput(f"--fence {head}: {level!r} is no level", next="give 1 to 9, e.g. n1:2=...")
    parameters: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            last = next(reversed(parameters), "plug")
            raise BadInput(
                f"--fence {head}: {pair!r} is not KEY=VALUE",
                next=f"for another {last} repeat the word: --fence {node}:LEVEL={agent},...,{last}={pair}",
            )
        if key in parameters:
            raise BadInput(f"--fence {head}: {key} stands there twice", next="give it once")
        if is_secret(key):
            raise BadInput(
                f"--fence {head}: {key} does not belong on a command line, which others can read",
                next="leave it out and fill it in afterwards, or use --password-file",
            )
        parameters[key] = value
    confirms = _confirms(head, agent, parameters)
    _check_needs(head, agent, parameters)
    device = f"{base_name(agent).removeprefix('fence_').replace('_', '-')}-{node}"
    return node, int(level or 0), Use(device, agent, parameters, confirms)


def _confirms(head: str, agent: str, parameters: dict[str, str]) -> Confirms:
    said = parameters.pop("confirms", "")
    words = {one.value: one for one in Confirms}
    if said and said not in words:
        raise BadInput(f"--fence {head}: confirms={said} is not known", next=f"one of {', '.join(words)}")
    try:
        return confirms_of(
            agent, {base_name(agent): words[said]} if said else {}, "add confirms={words} to the word"
        )
    except BadInput as error:
        raise BadInput(f"--fence {head}: {error.message}", next=error.next) from None


def _check_needs(head: str, agent: str, parameters: dict[str, str]) -> None:
    stock = stock_agent(agent)
    for key in stock.needs if stock else ():
        if not (parameters.get(key) or parameters.get(OLD_WORDS[key])):
            assert stock is not None
            raise BadInput(
                f"--fence {head}: {base_name(agent)} ({stock.sort.value}) needs {key}=...",
                next=f"add {key}=...",
            )
