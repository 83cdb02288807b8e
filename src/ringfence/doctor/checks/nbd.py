"""NBD: how virtual machines' requests are served."""

from collections.abc import Iterator

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, warning

SLOW = warning(
    "nbd-slow",
    "NBD requests are served by the interpreter alone",
    "as safely as without it, but with a third of the requests a second",
)
KINDS = (SLOW,)
MEND = (
    "install a C compiler (gcc), then ringfence anew, its dependencies not: pip install --force-reinstall "
    "--no-deps; volumes that are opened after that are served fast"
)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    for host in facts.hosts:
        if host.slow_nbd:
            yield SLOW.at(host.node, f"{host.node}: {host.slow_nbd}", MEND)
