"""corosync under the daemon: does it run, do both see the same cluster, is it set up alike everywhere.

Every host judges its own corosync, and tells it through the ring."""

from collections.abc import Iterator, Sequence

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, error
from ringfence.doctor.outvoted import outvoted
from ringfence.wire.checkup import CorosyncFacts, HostFacts

CONF, KEY = "/etc/corosync/corosync.conf", "/etc/corosync/authkey"

DOWN = error("corosync-down", "corosync does not answer on a host", "the daemon has no ring without it")
MEMBERS = error(
    "corosync-members",
    "corosync and the daemon see different members",
    "a daemon that is missing from the ring is fenced; one that sees fewer may be about to lose its majority",
)
VETO = error(
    "corosync-not-quorate",
    "corosync says that there is no quorum",
    "its word is a veto: whatever the votes in ringfence.toml say, this host grants and fences nothing",
)
DISAGREES = error(
    "corosync-conf-disagrees",
    "corosync.conf and ringfence.toml disagree",
    "nodes, votes and timing of both must be the same, or each counts another majority and detection time",
)
TOKEN = error(
    "corosync-token",
    "corosync runs with another token than ringfence.toml says",
    "authority to report grants must run out before the others can have detected a failure: that is "
    "reckoned from [timing] token_ms",
)
CONF_DIFFERS = error(
    "corosync-conf-differs",
    "a host has another corosync.conf than the rest",
    "it may form a cluster of its own at its next start",
)
KEY_DIFFERS = error(
    "corosync-key-differs",
    "a host has another authkey than the rest",
    "it cannot join after its next start",
)
KEY_MISSING = error(
    "corosync-key-missing", "corosync.conf wants a key and there is none", "corosync will not start"
)
KEY_OPEN = error(
    "corosync-key-open",
    "others may read or change the authkey",
    "who has it can speak in the cluster's name, and have hosts fenced",
)
KINDS = (DOWN, MEMBERS, VETO, DISAGREES, TOKEN, CONF_DIFFERS, KEY_DIFFERS, KEY_MISSING, KEY_OPEN)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    hosts = [one for one in facts.hosts if one.corosync is not None]
    for host in hosts:
        assert host.corosync is not None
        yield from _host(facts, host, host.corosync)
    yield from _alike(hosts)


def _host(facts: ClusterFacts, host: HostFacts, corosync: CorosyncFacts) -> Iterator[Finding]:
    name = host.node
    if corosync.trouble:
        yield DOWN.at(
            name, f"{name}: {corosync.trouble}", "systemctl restart corosync; then journalctl -u corosync"
        )
    daemon = facts.daemon
    out = _without_daemon(facts)
    if corosync.members is not None and daemon is not None and daemon.members:
        missing = [node for node in corosync.members if node not in daemon.members and node not in out]
        extra = [node for node in daemon.members if node not in corosync.members]
        if missing or extra:
            seen = ", ".join(map(str, corosync.members))
            view = ", ".join(map(str, daemon.members))
            what = f"{name}: corosync has nodes {seen}, the daemons' view has {view}"
            yield MEMBERS.at(name, what, "ringfence why; corosync-cfgtool -s")
    if corosync.quorate is False:
        what = f"{name}: corosync-quorumtool says that it is not quorate"
        yield VETO.at(name, what, "corosync-quorumtool -s; start corosync on the hosts that it lacks")
    for line in corosync.differences:
        mend = f"mend {CONF}; then corosync-cfgtool -R"
        if "has addresses" in line:  # corosync takes links out and in, and changes none
            mend = f"{mend} (an address: stop the cluster first, or take the link out, -R, and in again)"
        yield DISAGREES.at(name, f"{name}: {line}", mend)
    wanted = facts.cluster.timing.token_ms if facts.cluster is not None else corosync.token_ms
    if corosync.token_ms is not None and corosync.token_ms != wanted:
        what = f"{name}: corosync's token is {corosync.token_ms} ms, [timing] token_ms is {wanted}"
        mend = f"set token: {wanted} and token_coefficient: 0 in {CONF}; then corosync-cfgtool -R"
        yield TOKEN.at(name, what, mend)
    key = corosync.key_file
    if key is not None and key.kind and key.mode & 0o077:
        yield KEY_OPEN.at(name, f"{name}: {key.path} has mode {key.mode:04o}", f"chmod 400 {key.path}")
    if key is not None and corosync.encrypted and not key.kind and not key.trouble:
        mend = f"copy {KEY} from another host (mode 0400), or corosync-keygen"
        yield KEY_MISSING.at(name, f"{name}: there is no {key.path}", mend)


def _without_daemon(facts: ClusterFacts) -> list[int]:
    """Nodes that are known not to be ready: that is a finding of its own."""
    absent = facts.rounds[-1].absent if facts.rounds else ()
    nodes = facts.cluster.nodes if facts.cluster is not None else ()
    return [node.id for node in nodes if node.name in absent]


def _alike(hosts: Sequence[HostFacts]) -> Iterator[Finding]:
    confs = {one.node: one.corosync.conf for one in hosts if one.corosync is not None and one.corosync.conf}
    keys = {one.node: one.corosync.key for one in hosts if one.corosync is not None and one.corosync.key}
    for name, like in outvoted(confs):
        mend = f"scp {like}:{CONF} {CONF}; then corosync-cfgtool -R"
        yield CONF_DIFFERS.at(name, f"{name} has another {CONF} than {like}", mend)
    for name, like in outvoted(keys):
        mend = f"scp -p {like}:{KEY} {KEY}; then systemctl restart corosync (leave the cluster first)"
        yield KEY_DIFFERS.at(name, f"{name} has another {KEY} than {like}", mend)
