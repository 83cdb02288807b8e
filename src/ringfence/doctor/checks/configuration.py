"""ringfence.toml: usable, the same on all hosts, and what the daemons run with."""

from collections.abc import Iterator

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, error, warning
from ringfence.doctor.outvoted import outvoted

UNUSABLE = error(
    "config-unusable",
    "a host's ringfence.toml cannot be used",
    "its daemon will not start again with it, and the host will be fenced when it restarts",
)
DIFFERS = error(
    "config-differs",
    "a host's file differs from the others' in the part that all hosts share",
    "a daemon that starts with another configuration than the rest is not let in",
)
RUNS_OTHER = error(
    "config-runs-other",
    "daemons run with different configurations",
    "they would count other majorities, or fence by other devices",
)
NOT_APPLIED = warning(
    "config-not-applied",
    "the file says something else than the daemon runs with",
    "what was edited is not in force, and at the next restart the daemon is not let in with it",
)
KINDS = (UNUSABLE, DIFFERS, RUNS_OTHER, NOT_APPLIED)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    for host in facts.hosts:
        if host.file_trouble:
            mend = "ringfence config check; ringfence config show prints the one in force"
            yield UNUSABLE.at(host.node, f"{host.node}: {host.file_trouble}", mend)
    running = {one.node: one.running for one in facts.hosts if one.running}
    for name, like in outvoted(running):
        what = f"{name}'s daemon runs with another configuration than {like}'s"
        yield RUNS_OTHER.at(name, what, "ringfence config show on both; then ringfence config apply FILE")
    files = {one.node: one.file for one in facts.hosts if one.file}
    different = list(outvoted(files))
    for name, like in different:
        what = f"{name}'s ringfence.toml differs from {like}'s"
        mend = f"copy it from {like} (keep [devices], [socket], [hub]); or ringfence config apply, for all"
        yield DIFFERS.at(name, what, mend)
    for host in facts.hosts:
        if host.running and host.file and host.running != host.file:
            what = f"{host.node}: ringfence.toml is not what the daemon runs with"
            mend = "ringfence config apply; or ringfence config show, and put that into the file"
            yield NOT_APPLIED.at(host.node, what, mend)
