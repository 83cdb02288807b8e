"""Each host is a machine of its own, and this boot of it is like no other."""

from collections.abc import Iterator

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.findings import Finding, error, note

CLONED = error(
    "machine-cloned",
    "two hosts have one machine id",
    "evidence is about a machine and a boot of it: what proves that one clone is off, or back, would be "
    "taken for the other",
)
BOOT_CLONED = error(
    "boot-cloned",
    "two hosts have one boot id",
    "a new boot is proof that the old one is over; hosts with one boot id are one machine, or lie about it",
)
VIRTUAL = note(
    "host-virtual",
    "a host is itself a virtual machine",
    "it can be paused with its clock and its watchdog, and started on two hypervisors at once: neither is "
    "evidence about it; fence it by its hypervisor or by the storage",
    excused="a lab's host is a directory",
)
UNKNOWN = error("machine-unknown", "a host has no machine id", "its daemon cannot start without")
KINDS = (CLONED, BOOT_CLONED, UNKNOWN, VIRTUAL)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    machines: dict[str, str] = {}
    boots: dict[str, str] = {}
    for host in facts.hosts:
        name, place = host.node, f"{host.root.rstrip('/')}/etc/machine-id"
        if not host.machine and host.boottime_ns:
            yield UNKNOWN.at(name, f"{name}: {place} holds no identity", "systemd-machine-id-setup")
            continue
        if host.hypervisor:
            mend = "give it a level with a device that is its hypervisor's, or the storage's"
            yield VIRTUAL.at(name, f"{name} is a virtual machine ({host.hypervisor})", mend)
        other = machines.setdefault(host.machine, name)
        if host.machine and other != name:
            mend = (
                f"rm {place}; systemd-machine-id-setup; reboot; if it is refused then, on any "
                f"other host: ringfence node re-enrol {name}"
            )
            yield CLONED.at(name, f"{name} has the machine id of {other}: one is a clone", mend)
        other = boots.setdefault(host.boot, name)
        if host.boot and other != name:
            what = f"{name} has the boot id of {other}"
            yield BOOT_CLONED.at(
                name, what, "run one daemon a machine; in containers, give each its own kernel"
            )
