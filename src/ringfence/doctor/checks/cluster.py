"""The daemon, and who answers."""

from collections.abc import Iterator

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, error, note, warning

DOWN = error(
    "daemon-down",
    "this host's daemon does not answer",
    "without it the host has no locks and opens no volume; the others fence it when its grace period ends",
)
NOT_READY = error(
    "not-ready",
    "this host is no ready member of the cluster",
    "it grants no locks and its volumes hold their writes until it is one again",
)
BLOCKED = warning(
    "blocked", "something waits for a fence or for authority", "who waits for it waits until that is done"
)
ABSENT = warning(
    "host-absent",
    "a configured host is not ready",
    "it could not be compared, and takes no part in quorum: one more that fails may stop the rest",
)
SILENT = error(
    "host-silent",
    "a ready host did not answer in time",
    "its disks or its daemon may hang; what it looks like is not known",
)
NAIVE = warning(
    "naive", "every protection is switched off", "two hosts may write to one volume: data are lost"
)
VERSIONS = note(
    "versions-differ",
    "hosts run different versions of ringfence",
    "that is meant for an upgrade only: new protocols are spoken when all hosts have them",
)
KINDS = (DOWN, NOT_READY, BLOCKED, ABSENT, SILENT, NAIVE, VERSIONS)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    daemon = facts.daemon
    if facts.daemon_trouble:
        mend = _start(facts, facts.me)
        yield DOWN.at(facts.me, f"{facts.me}: {facts.daemon_trouble}", mend)
    elif daemon is not None and not daemon.ready:
        yield NOT_READY.at(facts.me, f"{facts.me}: {daemon.why}", "ringfence why")
    for line in daemon.blocked_by if daemon is not None and daemon.ready else ():
        yield BLOCKED.at(facts.me, line, "ringfence why")
    last = facts.rounds[-1] if facts.rounds else None
    for name in last.absent if last is not None else ():
        yield ABSENT.at(name, f"{name} is not ready", _start(facts, name))
    failed = [one.node for one in facts.hosts if one.unseen and not one.boottime_ns]
    for name in [*(last.silent if last is not None else ()), *failed]:
        yield SILENT.at(
            name, f"{name} did not say what it looks like", "ringfence doctor, and look at its disks"
        )
    if facts.cluster is not None and facts.cluster.naive:
        yield NAIVE.at("", f"cluster {facts.cluster.name} is naive", "make another lab, without --naive")
    versions = {one.version: one.node for one in facts.hosts if one.version}
    if len(versions) > 1:
        told = ", ".join(f"{one.node} {one.version}" for one in facts.hosts)
        yield VERSIONS.at("", f"ringfence is of different versions: {told}", "upgrade the older ones")


def _start(facts: ClusterFacts, name: str) -> str:
    if facts.lab:
        directory = facts.own.root.rpartition("/")[0]
        return f"ringfence lab start {name} daemon --dir {directory}; then ringfence why"
    return "systemctl start ringfence; then ringfence why, and journalctl -u ringfence"
