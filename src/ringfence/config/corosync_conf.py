"""corosync.conf in and out, for the ring that corosync carries.

Pure: text in, values out, and back.  One configuration, ringfence.toml's, renders both files, so that node
ids, names, votes and the token are the same in both; `differences` says where two files disagree.

The token is the real one: `token_coefficient` is 0, for else corosync adds 650 ms for each node above two.
`consensus` stays at corosync's default, 1.2 x token; the two together are `Timing.detection_ms`.

`two_node` brings `wait_for_all` with it: a host that boots alone waits for the other before it has quorum,
instead of fencing a peer that merely boots more slowly.  It is ringfence's own rule for two nodes without
state as well.  It costs nothing while one of the two stays up; only a corosync that is restarted while its
peer is gone waits, and a person ends that.  Three nodes and more need no such rule: their majority is.

Source: corosync.conf(5) and votequorum(5) of corosync 3.1; lines as its exec/coroparse.c reads them."""

import re
from collections.abc import Iterator, Sequence

import msgspec

from ringfence.core.cluster import ClusterConfig, NodeConfig
from ringfence.core.errors import ConfigError

TRANSPORTS = ("knet", "udpu")
PROVIDER = "corosync_votequorum"
PORT = 5405
"""UDP, where neither file says otherwise."""
MOST_LINKS = 8
QUICK_TOKEN_MS = 500
"""Below it knet's links flap unless they are pinged more often than its own arithmetic says."""
QUICK_PING_MS = 100
QUICK_PING_TIMEOUT_MS = 1000
PINGS_A_TOKEN = 10
"""knet leaves a dead link that it used after 4 to 5 times its ping timeout (seen), by default half the token:
then a lost cable costs nearly the detection time, and under load a host.  With these, about a token."""
DEFAULT_TOKEN_MS = 3000
DEFAULT_COEFFICIENT_MS = 650

_ADDRESS = re.compile(r"ring([0-7])_addr")


class Section(msgspec.Struct, frozen=True):
    """One `name { ... }`, or the whole file (name "")."""

    name: str
    keys: tuple[tuple[str, str], ...] = ()
    """In the file's order; of a key that stands twice corosync takes the last."""
    sections: tuple["Section", ...] = ()

    def get(self, key: str, default: str = "") -> str:
        return dict(self.keys).get(key, default)

    def inner(self, name: str) -> Iterator["Section"]:
        return (section for section in self.sections if section.name == name)


class Options(msgspec.Struct, frozen=True):
    """What ringfence.toml does not say.  The defaults are a real host's."""

    transport: str = "knet"
    """"udpu" is quicker and has one link and no encryption: for labs."""
    encrypted: bool = True
    """Only knet can; it reads the key from `keyfile`."""
    keyfile: str = ""
    """"": corosync's own, /etc/corosync/authkey."""
    state_dir: str = ""
    """"": /var/lib/corosync.  Several corosyncs on one machine need one each."""
    logfile: str = ""
    """"": syslog alone; else this file alone."""
    seqno_unchanged_const: int = 0
    """After so many rotations without a message the token rests; 0: corosync's own, 30."""


class CorosyncNode(msgspec.Struct, frozen=True):
    id: int
    """0: the file gives none."""
    name: str
    votes: int = 1
    addresses: tuple[str, ...] = ()
    """Of link 0, link 1, ..."""


class CorosyncConf(msgspec.Struct, frozen=True):
    """What corosync makes of its file, as far as ringfence depends on it."""

    cluster_name: str = ""
    transport: str = "knet"
    encrypted: bool = False
    token_ms: int = DEFAULT_TOKEN_MS
    """The real one, coefficient included."""
    consensus_ms: int = 0
    """As written; 0: corosync's default, 1.2 x token."""
    provider: str = ""
    two_node: bool = False
    wait_for_all: bool = False
    nodes: tuple[CorosyncNode, ...] = ()
    """Sorted by id."""


# -- out ------------------------------------------------------------------------


def render_corosync(config: ClusterConfig, options: Options = Options()) -> str:  # noqa: B008 (frozen)
    """corosync.conf, the same text for every host.

    Raises:
        ConfigError: a node without an address, or with other links than the rest.
    """
    links = _links(config, options)
    totem = [("version", "2"), ("cluster_name", config.name), ("transport", options.transport)]
    if options.encrypted and options.transport == "knet":
        totem += [("secauth", "on"), ("crypto_cipher", "aes256"), ("crypto_hash", "sha256")]
        totem += [("keyfile", options.keyfile)] if options.keyfile else []
    totem += [("token", str(config.timing.token_ms)), ("token_coefficient", "0")]
    if options.seqno_unchanged_const:
        totem.append(("seqno_unchanged_const", str(options.seqno_unchanged_const)))
    interfaces: list[Section] = []
    if options.transport == "knet":
        interfaces = [_pinged(link, *pings) for link in range(links) for pings in _pings(config, links)]
    quorum = [("provider", PROVIDER)]
    quorum += [("two_node", "1"), ("wait_for_all", "1")] if config.two_node else []
    logging = [("to_syslog", "yes")]
    if options.logfile:
        logging = [("to_logfile", "yes"), ("logfile", options.logfile), ("to_syslog", "no")]
    logging = [("to_stderr", "no"), *logging, ("timestamp", "on")]
    sections = [
        Section("totem", tuple(totem), tuple(interfaces)),
        Section("nodelist", (), tuple(_node(node) for node in config.nodes)),
        Section("quorum", tuple(quorum)),
        Section("logging", tuple(logging)),
    ]
    if options.state_dir:
        sections.append(Section("system", (("state_dir", options.state_dir),)))
    return "\n\n".join("\n".join(_lines(section, "")) for section in sections) + "\n"


def _links(config: ClusterConfig, options: Options) -> int:
    if options.transport not in TRANSPORTS:
        raise ConfigError(f"transport {options.transport} is not known", next=f"one of {TRANSPORTS}")
    most = MOST_LINKS if options.transport == "knet" else 1
    links = len(config.nodes[0].addresses) if config.nodes else 0
    for node in config.nodes:
        if not node.addresses:
            raise ConfigError(
                f"[node.{node.name}] has no addresses, and corosync needs one of each node",
                next='add addresses = ["..."]',
            )
        if len(node.addresses) != links:
            raise ConfigError(
                f"[node.{node.name}] has {len(node.addresses)} addresses, {config.nodes[0].name} {links}: "
                f"one for each link",
                next="give all nodes as many, in the links' order",
            )
        if links > most:
            raise ConfigError(
                f"{options.transport} has {most} {'link' if most == 1 else 'links'}, not {links}",
                next="leave addresses out",
            )
    return links


def _node(node: NodeConfig) -> Section:
    keys = [(f"ring{link}_addr", address) for link, address in enumerate(node.addresses)]
    keys += [("name", node.name), ("nodeid", str(node.id))]
    keys += [("quorum_votes", str(node.votes))] if node.votes != 1 else []
    return Section("node", tuple(keys))


def _pings(config: ClusterConfig, links: int) -> list[tuple[int, int]]:
    """(interval, timeout) in ms, if knet's own arithmetic will not do."""
    token_ms = config.timing.token_ms
    if token_ms < QUICK_TOKEN_MS:
        return [(QUICK_PING_MS, QUICK_PING_TIMEOUT_MS)]
    if links > 1 and token_ms >= PINGS_A_TOKEN * QUICK_PING_MS:
        return [(token_ms // PINGS_A_TOKEN, 2 * token_ms // PINGS_A_TOKEN)]
    return []


def _pinged(link: int, interval_ms: int, timeout_ms: int) -> Section:
    pings = (("knet_ping_interval", interval_ms), ("knet_ping_timeout", timeout_ms))
    return Section("interface", (("linknumber", str(link)), *((key, str(value)) for key, value in pings)))


def _lines(section: Section, indent: str) -> Iterator[str]:
    yield f"{indent}{section.name} {{"
    for key, value in section.keys:
        yield f"{indent}    {key}: {value}"
    for inner in section.sections:
        yield from _lines(inner, indent + "    ")
    yield f"{indent}}}"


# -- in -------------------------------------------------------------------------


def parse_corosync(text: str, file: str = "corosync.conf") -> CorosyncConf:
    """Raises ConfigError: one line with the file's and the line's number."""
    return read_corosync(parse_sections(text, file), file)


def parse_sections(text: str, file: str = "corosync.conf") -> Section:
    """The file as it stands, also what ringfence knows nothing of.

    A section's `{` ends its line, `}` has its own; everything else is `key: value`, an empty line, or a
    comment, whose first character is #.

    Raises:
        ConfigError: what corosync refuses, too.
    """
    open_: list[tuple[str, list[tuple[str, str]], list[Section]]] = [("", [], [])]
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{file} line {number}"
        before, brace, after = line.partition("{")
        key, colon, value = line.partition(":")
        if brace:
            if after.strip() or not before.strip():
                raise ConfigError(f"{where}: a section is NAME {{ and nothing else", next="mend the line")
            open_.append((before.strip(), [], []))
        elif colon:
            open_[-1][1].append((key.strip(), value.strip()))
        elif line == "}":
            if len(open_) == 1:
                raise ConfigError(f"{where}: a }} too many", next="remove it")
            _close(open_)
        else:
            raise ConfigError(
                f"{where} is neither key: value nor a section's begin or end", next="mend the line"
            )
    if len(open_) > 1:
        raise ConfigError(f"{file}: section {open_[-1][0]} is not closed", next="add a }")
    name, keys, sections = open_[0]
    return Section(name, tuple(keys), tuple(sections))


def _close(open_: list[tuple[str, list[tuple[str, str]], list[Section]]]) -> None:
    name, keys, sections = open_.pop()
    open_[-1][2].append(Section(name, tuple(keys), tuple(sections)))


def read_corosync(tree: Section, file: str = "corosync.conf") -> CorosyncConf:
    """Sections that stand twice are read as one, as corosync does.

    Raises ConfigError: a number that is none."""
    totem, quorum = whole(tree, "totem"), whole(tree, "quorum")
    nodes = [node for part in tree.inner("nodelist") for node in part.inner("node")]
    token_ms = _number(file, totem, "token", DEFAULT_TOKEN_MS)
    if len(nodes) > 2:
        coefficient_ms = _number(file, totem, "token_coefficient", DEFAULT_COEFFICIENT_MS)
        token_ms += (len(nodes) - 2) * coefficient_ms
    two_node = _number(file, quorum, "two_node", 0) == 1
    secauth = totem.get("secauth") == "on"
    read = [_read_node(file, node) for node in nodes]
    return CorosyncConf(
        cluster_name=totem.get("cluster_name"),
        transport=totem.get("transport", "knet"),
        encrypted=totem.get("crypto_cipher", "aes256" if secauth else "none") != "none",
        token_ms=token_ms,
        consensus_ms=_number(file, totem, "consensus", 0),
        provider=quorum.get("provider"),
        two_node=two_node,
        wait_for_all=_number(file, quorum, "wait_for_all", 1 if two_node else 0) == 1,
        nodes=tuple(sorted(read, key=lambda node: (node.id, node.name))),
    )


def whole(tree: Section, name: str) -> Section:
    """All sections of that name as one; empty if there is none."""
    parts = list(tree.inner(name))
    keys = [pair for part in parts for pair in part.keys]
    return Section(name, tuple(keys), tuple(inner for part in parts for inner in part.sections))


def _read_node(file: str, node: Section) -> CorosyncNode:
    links = {int(found[1]): value for key, value in node.keys if (found := _ADDRESS.fullmatch(key))}
    addresses = tuple(links[link] for link in sorted(links))
    return CorosyncNode(
        id=_number(file, node, "nodeid", 0),
        name=node.get("name") or (addresses[0] if addresses else ""),
        votes=_number(file, node, "quorum_votes", 1),
        addresses=addresses,
    )


def _number(file: str, section: Section, key: str, default: int) -> int:
    value = section.get(key, str(default))
    if not (value.isascii() and value.isdigit()):
        raise ConfigError(f"{file}: {section.name} {key} = {value!r} is no number", next="mend its value")
    return int(value)


# -- both -----------------------------------------------------------------------


def differences(config: ClusterConfig, conf: CorosyncConf) -> list[str]:
    """Where corosync would run another cluster than ringfence.toml describes; empty: nowhere."""
    found = []
    ours, theirs = {node.id: node for node in config.nodes}, {node.id: node for node in conf.nodes}
    for id in sorted(ours.keys() | theirs.keys()):
        one, other = ours.get(id), theirs.get(id)
        if one is None or other is None:
            name = one.name if one else other.name if other else ""
            has, lacks = ("ringfence.toml", "corosync.conf")[:: 1 if one else -1]
            found.append(f"node {id} ({name}) is in {has} and not in {lacks}")
            continue
        found += _node_differences(one, other)
    if conf.token_ms != config.timing.token_ms:
        found.append(
            f"corosync's token is {conf.token_ms} ms (with token_coefficient), "
            f"ringfence.toml's token_ms {config.timing.token_ms}"
        )
    if conf.consensus_ms and conf.consensus_ms != conf.token_ms * 12 // 10:
        found.append(
            f"corosync's consensus is {conf.consensus_ms} ms; ringfence counts on its default, "
            f"1.2 x token = {conf.token_ms * 12 // 10}"
        )
    if conf.two_node != config.two_node:
        says = _on(conf.two_node), _on(config.two_node)
        found.append(f"two_node is {says[0]} in corosync.conf and {says[1]} in ringfence.toml")
    if conf.provider != PROVIDER:
        found.append(f"corosync.conf has no quorum provider: {PROVIDER}")
    return found


def _node_differences(one: NodeConfig, other: CorosyncNode) -> Iterator[str]:
    pairs: Sequence[tuple[str, object, object]] = (
        ("is called", other.name, one.name),
        ("has votes", other.votes, one.votes),
        ("has addresses", " ".join(other.addresses), " ".join(one.addresses) or " ".join(other.addresses)),
    )
    for what, theirs, ours in pairs:
        if theirs != ours:
            yield f"node {one.id} {what} {theirs} in corosync.conf and {ours} in ringfence.toml"


def _on(value: bool) -> str:
    return "on" if value else "off"
