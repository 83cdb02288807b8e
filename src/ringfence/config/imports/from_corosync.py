"""corosync.conf -> nodes, votes, token.  It knows nothing of fencing."""

from collections.abc import Iterator

from ringfence.config.checks import is_secret
from ringfence.config.corosync_conf import PROVIDER, Section, parse_sections, read_corosync, whole
from ringfence.config.imports.found import Found
from ringfence.core.cluster import NodeConfig
from ringfence.core.errors import ConfigError

_OURS = {
    "totem": (
        "version", "cluster_name", "transport", "secauth", "crypto_cipher", "crypto_hash", "crypto_model",
        "token", "token_coefficient",
    ),
    "nodelist": (),
    "quorum": ("provider", "two_node", "wait_for_all", "expected_votes"),
    "interface": ("linknumber", "knet_ping_interval", "knet_ping_timeout"),  # written anew, from the token
    "node": ("nodeid", "name", "quorum_votes", *(f"ring{link}_addr" for link in range(8))),
}  # fmt: skip
_WHY = {
    "consensus": "ringfence counts on corosync's default, 1.2 x token",
    "interface": "links come from the nodes' addresses, one each, on port 5405 and up",
    "keyfile": "init makes a new key",
    "key": "init makes a new key",
    "rrp_mode": "knet looks after several links by itself",
    "logging": "it says nothing of the cluster",
    "device": "its vote is not counted: only nodes have votes",
    "auto_tie_breaker": "half of the votes is no majority to ringfence, whoever is in it",
    "last_man_standing": "votes are counted as they are configured",
    "allow_downscale": "votes are counted as they are configured",
    "uidgid": "Pacemaker and others keep their own files in uidgid.d",
}
_UNKNOWN = "ringfence has no word for it"


def read_corosync_conf(file: str, text: str) -> Found:
    """Raises ConfigError."""
    tree = parse_sections(text, file)
    conf = read_corosync(tree, file)
    if not conf.nodes:
        raise ConfigError(
            f"{file} has no nodelist with nodes", next="add one; udp multicast alone names nobody"
        )
    notes = list(_notes(tree, file))
    for node in conf.nodes:
        if not node.id:
            raise ConfigError(
                f"{file}: node {node.name or '?'} has no nodeid",
                next="give it the one that corosync-cmapctl shows",
            )
        if not node.addresses:
            raise ConfigError(f"{file}: node {node.id} has no ring0_addr", next="add it")
    if conf.provider != PROVIDER:
        notes.append(f"{file}: there is no quorum provider; here it is {PROVIDER}")
    if conf.wait_for_all != conf.two_node:
        notes.append(
            f"{file}: quorum wait_for_all {int(conf.wait_for_all)}: it goes with two_node, and with it alone"
        )
    votes, expected = sum(node.votes for node in conf.nodes), whole(tree, "quorum").get("expected_votes")
    if expected not in ("", str(votes)):
        notes.append(f"{file}: quorum expected_votes {expected}: the nodes have {votes}, which counts")
    if conf.transport != "knet" or not conf.encrypted:
        was = f"{conf.transport}, {'' if conf.encrypted else 'not '}encrypted"
        notes.append(f"{file}: transport {was}; here knet, encrypted: all hosts change at once")
    said_token = any(section.get("token") for section in tree.inner("totem"))
    return Found(
        name=conf.cluster_name,
        nodes=tuple(
            NodeConfig(one.id, one.name, one.votes, one.addresses, manual=True) for one in conf.nodes
        ),
        two_node=conf.two_node,
        token_ms=conf.token_ms if said_token else 0,
        notes=tuple(notes),
    )


def _notes(tree: Section, file: str) -> Iterator[str]:
    for key, _ in tree.keys:
        yield f"{file}: {key}: {_UNKNOWN}"
    for section in tree.sections:
        known = _OURS.get(section.name)
        if known is None:
            yield f"{file}: {section.name}: {_WHY.get(section.name, _UNKNOWN)}"
            continue
        yield from _unknown(section, known, f"{file}: {section.name}")
        for inner in section.sections:
            if (section.name, inner.name) == ("nodelist", "node"):
                yield from _unknown(inner, _OURS["node"], f"{file}: node {inner.get('nodeid') or '?'}")
            elif any(key not in _OURS.get(inner.name, ()) for key, _ in inner.keys):
                yield f"{file}: {section.name} {inner.name}: {_WHY.get(inner.name, _UNKNOWN)}"


def _unknown(section: Section, known: tuple[str, ...], where: str) -> Iterator[str]:
    for key, value in section.keys:
        if key not in known:
            shown = "" if key == "key" or is_secret(key) else f" {value}"
            yield f"{where} {key}{shown}: {_WHY.get(key, _UNKNOWN)}"
