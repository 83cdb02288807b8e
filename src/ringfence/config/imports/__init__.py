"""What other cluster software was told -> ringfence's configuration, and what could not be carried over.

Pure: bytes in, values out.  Whatever is wrong with a file is one line with its name; no entity is expanded,
nothing is guessed: what ringfence has no word for is named, with the reason."""

import re
from collections.abc import Mapping

import msgspec

from ringfence.config.imports.cluster_conf import read_cluster_conf
from ringfence.config.imports.dlm_conf import add_dlm_conf
from ringfence.config.imports.found import Found, Uses, proving, short_names
from ringfence.config.imports.from_corosync import read_corosync_conf
from ringfence.config.setup.nodes import address_of, check_links
from ringfence.config.setup.plan import timing_for
from ringfence.core.cluster import ClusterConfig, Confirms, NodeConfig, Timing
from ringfence.core.errors import BadInput, ConfigError

__all__ = ["LARGEST_BYTES", "carry_over"]

CLUSTER_CONF, COROSYNC_CONF, DLM_CONF = "cluster.conf", "corosync.conf", "dlm.conf"
LARGEST_BYTES = 1 << 20
"""Of a file; nobody need read more of it."""
_SECTION = re.compile(r"^\s*[a-z]+\s*\{", re.MULTILINE)
_DLM = re.compile(
    r"^\s*((device|connect|unfence|fence_all|unfence_all|lockspace|master)\s|[a-z_]+\s*=)", re.MULTILINE
)


def carry_over(
    files: Mapping[str, bytes], said: Mapping[str, Confirms], name: str = ""
) -> tuple[ClusterConfig, dict[str, Uses], list[str]]:
    """
    Args:
        files: by the name that messages use.
        said: what an off proves, of agents that the table of stock agents does not have.
        name: another name for the cluster; "": the files' own.

    Returns: the cluster without its devices, each node's levels, and what was not carried over.

    Raises:
        BadInput: the files do not go together, or one of them is broken.
    """
    kinds: dict[str, tuple[str, bytes]] = {}
    for file, data in files.items():
        kind = _kind(file, data)
        if kind in kinds:
            raise BadInput(f"{kinds[kind][0]} and {file} are both a {kind}", next="give one")
        kinds[kind] = (file, data)
    found = _read(kinds)
    levels, notes = proving(found.levels, said)
    file = next(kinds[kind][0] for kind in (CLUSTER_CONF, COROSYNC_CONF) if kind in kinds)
    return _cluster(file, found, name), levels, [*found.notes, *notes]


def _kind(file: str, data: bytes) -> str:
    if len(data) > LARGEST_BYTES:
        raise ConfigError(f"{file} is larger than any configuration", next="name another file")
    # UTF-16, too, begins with <, between or before zeros; what encoding it is the XML says itself.
    if data.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"<"):
        return CLUSTER_CONF
    text = _text(file, data)
    if _SECTION.search(text):
        return COROSYNC_CONF
    if _DLM.search(text):
        return DLM_CONF
    raise ConfigError(f"{file} is neither cluster.conf, corosync.conf nor dlm.conf", next="name another file")


def _text(file: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8", next="save it as UTF-8") from None
    if not text.strip():
        raise ConfigError(f"{file} is empty", next="name another file")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.rstrip("\r").replace("\t", " ").isprintable():
            raise ConfigError(f"{file} line {number} holds control characters", next="remove them")
    return text


def _read(kinds: Mapping[str, tuple[str, bytes]]) -> Found:
    if CLUSTER_CONF in kinds:
        file, data = kinds[CLUSTER_CONF]
        if len(kinds) > 1:
            raise BadInput(f"{file} describes a whole cluster", next="give it alone")
        return read_cluster_conf(file, data)
    if COROSYNC_CONF not in kinds:
        file, _ = kinds[DLM_CONF]
        raise BadInput(f"{file} names no hosts", next="give the corosync.conf of the same cluster, too")
    file, data = kinds[COROSYNC_CONF]
    found = short_names(read_corosync_conf(file, _text(file, data)))
    if DLM_CONF in kinds:
        file, data = kinds[DLM_CONF]
        found = add_dlm_conf(file, _text(file, data), found)
    return found


def _reachable(node: NodeConfig) -> NodeConfig:
    addresses = tuple(address_of(node.name, one) for one in node.addresses)
    return msgspec.structs.replace(node, addresses=addresses)


def _cluster(file: str, found: Found, name: str) -> ClusterConfig:
    timing = timing_for(found.token_ms) if found.token_ms else Timing()
    if found.post_join_delay_ms:
        timing = msgspec.structs.replace(timing, post_join_delay_ms=found.post_join_delay_ms)
    name = name or found.name
    if not name:
        raise BadInput("the files give the cluster no name", next="--name NAME")
    try:
        nodes = tuple(_reachable(node) for node in sorted(found.nodes, key=lambda node: node.id))
        check_links(nodes)
    except BadInput as error:  # its cure is for who types the addresses
        raise ConfigError(f"{file}: {error.message}", next="mend a copy of it, and import that") from None
    return ClusterConfig(
        name,
        ring="corosync",
        two_node=found.two_node,
        fence_action="reboot" if found.reboot else "off",
        timing=timing,
        nodes=nodes,
    )
