"""Disk slots of shared VGs, as this host's daemon uses them."""

from collections.abc import Iterator

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, note, warning

MISSING_TWO = warning(
    "slots-missing-two-node",
    "a shared VG of two nodes has no disk slots",
    "after a partition neither half may write to it until the other is proven fenced, and two fence devices "
    "that lie at once make two writers; with slots the disk itself tells who was given up",
)
MISSING = note(
    "slots-missing",
    "a shared VG has no disk slots",
    "a host that was fenced by a lie, or hangs without a network, is not found out by its writes to the disk",
)
FAIL = warning(
    "slots-fail",
    "the disk slots of a VG cannot be used",
    "this host cannot tell there whether it was given up, nor mark whom it gives up: in a partition of two "
    "its writes to the VG are held, and no lock of the VG moves from a victim before somebody can mark it",
)
KINDS = (MISSING_TWO, MISSING, FAIL)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    cluster, daemon = facts.cluster, facts.daemon
    if cluster is None or daemon is None or not daemon.ready or cluster.naive:
        return
    known = {one.vg: one for one in daemon.slots}
    for vg in (one for one in daemon.shared_vgs if one not in daemon.gone_vgs):
        slots = known.get(vg)
        if slots is None or not slots.kept:
            kind = MISSING_TWO if cluster.two_node else MISSING
            yield kind.at("", f"VG {vg} has no disk slots", f"ringfence slots add {vg}")
        elif slots.trouble:
            what = f"VG {vg} on {facts.me}: {slots.trouble}"
            mend = f"ringfence slots show {vg}; look at the device and the kernel's log"
            yield FAIL.at(facts.me, what, mend)
