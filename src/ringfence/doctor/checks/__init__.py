"""The checks: each a pure function of what was found.  A module each for what belongs together.

To add one: a `Kind` in its module's KINDS, and what finds it in its `check`; docs/DOCTOR.md follows
(`REWRITE=1 pytest tests/doctor`)."""

from collections.abc import Callable, Iterator

from ringfence.doctor.checks import (
    clocks,
    cluster,
    configuration,
    corosync,
    disks,
    fencing,
    files,
    identity,
    leftovers,
    lvm,
    lvmlockd,
    nbd,
    slots,
    timing,
    watchdog,
)
from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, Kind

Check = Callable[[ClusterFacts], Iterator[Finding]]
MODULES = (
    cluster, corosync, configuration, identity, clocks, files, disks, fencing, timing, watchdog, lvm,
    lvmlockd, slots, nbd, leftovers,
)  # fmt: skip
CHECKS: dict[str, Check] = {module.__name__.rpartition(".")[2]: module.check for module in MODULES}
KINDS: dict[str, Kind] = {kind.id: kind for module in MODULES for kind in module.KINDS}


def judge(facts: ClusterFacts) -> list[Finding]:
    """All that is wrong, errors first; without what a lab is excused from."""
    found = [one for check in CHECKS.values() for one in check(facts)]
    counted = [one for one in found if not (facts.lab and KINDS[one.id].excused)]
    return sorted(dict.fromkeys(counted), key=lambda one: one.severity.rank)
