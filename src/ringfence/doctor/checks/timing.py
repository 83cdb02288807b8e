"""Timing: the rules that a configuration must keep, and what a failover will wait for.

Source of the rules: docs/ARCHITECTURE.md, authority."""

from collections.abc import Iterator

from ringfence.config.checks import check_timing
from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import ConfigError
from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, error, note, warning
from ringfence.fencing.delays import DECIDING_MS, shoots_at_once

LOOKS = 2
"""An off and its second look: about two status calls at least."""

RULES = error(
    "timing-rules",
    "[timing] breaks a rule that safety rests on",
    "authority would outlive the moment from which others may act",
)
HOLD = warning(
    "timing-hold",
    "writes are failed before a failover can be over",
    "a blip that the cluster survives would still be an I/O error in virtual machines",
)
BOUND = note(
    "timing-bound",
    "failover waits for the purge bound, not for the fence",
    "a victim's write authority must have run out before its locks move; a shorter write_ms ends sooner, a "
    "longer one spares running machines more blips",
    excused="a lab's agents answer at once",
)
TWO_NODE = note(
    "two-node-alone",
    "two nodes and no third vote",
    "after a partition one fence decides who goes on; two fence devices that lie at once make two writers on "
    "every VG without disk slots. A third vote (a small host without volumes is enough) ends that",
)
AT_ONCE = warning(
    "two-nodes-at-once",
    "two nodes that lose each other fence one another at the same time",
    "one cable less, and both may be off: nothing says which of them is to wait",
    excused="a lab's hosts are made to die",
)
NO_MAJORITY = warning(
    "two-nodes-no-majority",
    "two nodes without two_node",
    "when one fails, the other has no majority and stops",
)
KINDS = (RULES, HOLD, BOUND, TWO_NODE, AT_ONCE, NO_MAJORITY)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    cluster = facts.cluster
    if cluster is None:
        return
    timing = cluster.timing
    try:
        check_timing(timing)
    except ConfigError as broken:
        yield RULES.at("", broken.message, f"{broken.next}; then ringfence config apply")
    if timing.hold_ms < timing.bound_ms:
        what = f"hold_ms = {timing.hold_ms} is below the purge bound of {timing.bound_ms} ms"
        yield HOLD.at("", what, "raise [timing] hold_ms (default: 60000); then ringfence config apply")
    fence_ms = timing.detection_ms + LOOKS * _slowest_first_level_ms(facts, cluster)
    if facts.devices and timing.bound_ms > fence_ms:
        what = (
            f"failover takes about {timing.bound_ms} ms (write_ms, its margin); detection and a first-level "
            f"fence may be over after {fence_ms} ms"
        )
        yield BOUND.at("", what, "nothing, or lower [timing] write_ms; then ringfence config apply")
    if cluster.two_node:
        what = f"{cluster.name} has two nodes and no third vote"
        yield TWO_NODE.at("", what, "add a third node with a vote, and remove two_node")
        if shoots_at_once(cluster):
            what = f"{' and '.join(node.name for node in cluster.nodes)} fence each other at the same time"
            mend = f"[timing] priority_delay_ms = {DECIDING_MS}: who has more volumes open wins; or "
            mend += f"fence_delay_ms = {DECIDING_MS} of the node that is to win; then ringfence config apply"
            yield AT_ONCE.at("", what, mend)
    elif len(cluster.nodes) == 2 and all(node.votes == cluster.nodes[0].votes for node in cluster.nodes):
        what = f"{cluster.name} has two nodes with equal votes, and not two_node"
        yield NO_MAJORITY.at("", what, "set [cluster] two_node = true, or add a third node")


def _slowest_first_level_ms(facts: ClusterFacts, cluster: ClusterConfig) -> int:
    first = [name for node in cluster.nodes for level in node.levels[:1] for name in level.names]
    return max((one.took_ms for one in facts.devices if one.device in first), default=0)
