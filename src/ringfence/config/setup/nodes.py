"""`n1=10.0.0.1,10.1.0.1 n2=...` -> nodes with their addresses, one for each link."""

import ipaddress
import re
from collections.abc import Sequence

from ringfence.config.checks import NAME
from ringfence.config.corosync_conf import MOST_LINKS
from ringfence.core.cluster import NodeConfig
from ringfence.core.errors import BadInput

_HOST = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([\w-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([\w-]{0,61}[A-Za-z0-9])?)*", re.ASCII
)
_EXAMPLE = "write NAME=ADDRESS, e.g. n1=10.0.0.1, or n1=10.0.0.1,10.1.0.1 for two links"


def nodes_of(words: Sequence[str]) -> tuple[NodeConfig, ...]:
    """Ids count from 1 in the order given; no fence levels yet, so `manual`.

    Raises:
        BadInput: names the word and what to write.
    """
    nodes = tuple(_node(id, word) for id, word in enumerate(words, 1))
    seen: dict[str, str] = {}
    for node in nodes:
        if [one.name for one in nodes].count(node.name) > 1:
            raise BadInput(f"node {node.name} is there twice", next="give each host its own name")
        for address in node.addresses:
            if address in seen:
                raise BadInput(
                    f"{address} is given twice: {seen[address]} and {node.name}", next="each needs its own"
                )
            seen[address] = node.name
    check_links(nodes)
    return nodes


def check_links(nodes: Sequence[NodeConfig]) -> None:
    """Raises BadInput: not as many links everywhere, or IPv4 and IPv6 on one link, which knet cannot."""
    first = nodes[0]
    for node in nodes:
        if len(node.addresses) != len(first.addresses):
            counts = f"{len(node.addresses)}, {len(first.addresses)}"
            raise BadInput(
                f"{node.name} and {first.name} do not have as many addresses: {counts}",
                next="give every host one address for each link, in the links' order",
            )
        if len(node.addresses) > MOST_LINKS:
            raise BadInput(f"corosync has at most {MOST_LINKS} links, not {len(node.addresses)}")
    for link in range(len(first.addresses)):
        kinds = {family(node.addresses[link]): node.addresses[link] for node in nodes}
        if 4 in kinds and 6 in kinds:
            raise BadInput(
                f"link {link} has IPv4 and IPv6 addresses ({kinds[4]}, {kinds[6]})",
                next="give one kind a link",
            )


def _node(id: int, word: str) -> NodeConfig:
    name, equals, given = word.partition("=")
    if not equals or not given:
        raise BadInput(f"{word!r} gives no address", next=_EXAMPLE)
    if not NAME.fullmatch(name):
        raise BadInput(f"{name!r} cannot be a host's name", next=_EXAMPLE)
    return NodeConfig(
        id, name, addresses=tuple(address_of(name, one) for one in given.split(",")), manual=True
    )


def address_of(node: str, text: str) -> str:
    """An address in its usual form, or a host name in lower case.

    Raises:
        BadInput: it is neither, or no other host could reach it.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        if ":" in text or re.fullmatch(r"[0-9.]*", text) or not _HOST.fullmatch(text):
            raise BadInput(f"{node}: {text!r} is no address", next=_EXAMPLE) from None
        return text.lower()
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise BadInput(f"{node}: {text} is no address at which other hosts reach it", next=_EXAMPLE)
    if address.version == 6 and address.is_link_local:  # with or without a %: corosync cannot bind it alone
        raise BadInput(f"{node}: {text} means something else on every host", next="give a unique one")
    return str(address)


def family(address: str) -> int | None:
    """4, 6, or None for a host name."""
    try:
        return ipaddress.ip_address(address).version
    except ValueError:
        return None
