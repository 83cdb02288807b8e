"""Watchdogs: the machine's, and systemd's eye on the daemon."""

from collections.abc import Iterator

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, note, warning

NONE = note(
    "watchdog-none",
    "the host has no watchdog",
    "a host that hangs then stays hung until it is fenced; nothing in ringfence relies on it",
)
SOFT = note(
    "watchdog-soft",
    "the watchdog is software",
    "it hangs with the kernel that it should watch",
)
HELD = note(
    "watchdog-held",
    "who has the watchdog open",
    "only one program can; if that one ends badly, the host resets",
)
UNUSED = warning(
    "watchdog-unused",
    "the watchdog that is configured is not fed",
    "a host that hangs, or cannot close its volumes, then stays so until others fence it",
)
UNWATCHED = warning(
    "service-unwatched",
    "systemd does not watch the daemon",
    "a daemon that hangs is started again only if ringfence.service has WatchdogSec",
)
KINDS = (NONE, SOFT, HELD, UNUSED, UNWATCHED)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    for host in facts.hosts:
        name, watchdog = host.node, host.watchdog
        if watchdog is None:
            continue
        if not watchdog.device:
            yield NONE.at(
                name, f"{name}: there is no /dev/watchdog", "load the driver of the board's or BMC's"
            )
        if "software" in watchdog.identity.lower():
            what = f"{name}: {watchdog.device} is {watchdog.identity!r}"
            yield SOFT.at(name, what, "load the driver of the board's or BMC's watchdog instead of softdog")
        if watchdog.holder:
            what = f"{name}: {watchdog.device} is held by {watchdog.holder}"
            yield HELD.at(name, what, "nothing, if that is the program that should")
        if watchdog.unused:
            what = f"{name}: [watchdog] device = {watchdog.configured}: {watchdog.unused}"
            yield UNUSED.at(name, what, "mend [watchdog] in ringfence.toml, then restart ringfence-block")
        if watchdog.service_us == 0:
            what = f"{name}: ringfence.service has no WatchdogSec"
            yield UNWATCHED.at(name, what, "systemctl edit ringfence: [Service] WatchdogSec=10s")
