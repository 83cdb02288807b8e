"""Stock LVM2 beside ringfence: does it see the shared PVs, and keep its hands off what is inside volumes.

`ringfence doctor --fix` (`doctor.fix`) mends what lets it in.  Source: lvm.conf(5)."""

from collections.abc import Iterator

from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.filters import accepts, is_inside
from ringfence.doctor.findings import Finding, note, warning
from ringfence.doctor.outvoted import outvoted
from ringfence.wire.checkup import HostFacts, LvmFacts

HIDES = warning(
    "lvm-hides",
    "stock LVM2 does not see a shared PV",
    "vgs, pvck and vgcfgrestore cannot help when they are needed; and vgcreate there could reuse the disk",
)
NO_LOCKS = note(
    "lvm-lockd-off",
    "use_lvmlockd is off",
    "stock LVM2 hides shared VGs and refuses to change them: only ringfence's own commands work on them",
)
SCANS = warning(
    "lvm-scans-lvs",
    "LVM2 looks for PVs inside LVs",
    "VGs of virtual machines appear on the host, and may be changed there while the machine runs",
)
ACTIVATES = note(
    "lvm-autoactivation",
    "LVM2 activates by itself what it finds",
    "VGs are activated at boot on every host that sees them; of shared ones what no other host holds",
)
GUEST = warning(
    "guest-vg",
    "a VG of a virtual machine is active on the host",
    "host and guest then both write its metadata and file systems",
)
SEEN = warning(
    "guest-vg-seen",
    "LVM2 shows a VG that is inside a volume",
    "it is a virtual machine's: whoever changes it as the host's destroys what the machine writes",
)
VERSIONS = note(
    "lvm-versions",
    "hosts have different versions of LVM2",
    "what one writes the other may not read (new segment types, new flags)",
)
MEND = "ringfence doctor --fix"
KINDS = (HIDES, NO_LOCKS, SCANS, ACTIVATES, GUEST, SEEN, VERSIONS)


def check(facts: ClusterFacts) -> Iterator[Finding]:
    for host in facts.hosts:
        if host.lvm is not None and not host.lvm.trouble:
            yield from _host(host, host.lvm)
            yield from _guests(host, host.lvm, facts.daemon.shared_vgs if facts.daemon is not None else ())
    versions = {one.node: one.lvm.version for one in facts.hosts if one.lvm is not None and one.lvm.version}
    for name, like in outvoted(versions):
        what = f"{name} has LVM2 {versions[name]}, {like} has {versions[like]}"
        yield VERSIONS.at(name, what, "install the same version on all hosts")
    for one in facts.mapped:
        for below in one.above:
            if below in (facts.daemon.shared_vgs if facts.daemon is not None else ()):
                what = f"{facts.me}: VG {one.vg} is inside an LV of shared VG {below} and active on this host"
                mend = f"vgchange -an {one.vg}; keep LVM2 away from LVs (devices/scan_lvs=0, or a filter)"
                yield GUEST.at(facts.me, what, mend)


def _guests(host: HostFacts, lvm: LvmFacts, vgs: tuple[str, ...]) -> Iterator[Finding]:
    disks = [disk.path for disk in host.disks]
    for vg, device in lvm.pvs:
        if vg and vg not in vgs and is_inside(device, vgs, disks):
            yield SEEN.at(host.node, f"{host.node}: stock LVM2 shows VG {vg} on {device}", MEND)


def _host(host: HostFacts, lvm: LvmFacts) -> Iterator[Finding]:
    name, settings = host.node, lvm.settings
    for disk in host.disks:
        if not disk.block or not disk.pv:
            continue
        if lvm.devices is not None and disk.pv not in lvm.devices:
            what = f"{name}: PV {disk.path} is not in LVM2's devices file"
            yield HIDES.at(name, what, f"lvmdevices --adddev {disk.path}")
        for key in ("filter", "global_filter"):
            if not accepts(settings.get(f"devices/{key}", "").splitlines(), (disk.path,)):
                what = f"{name}: devices/{key} in lvm.conf rejects PV {disk.path}"
                yield HIDES.at(name, what, f"accept it: lvmconfig devices/{key}; then edit /etc/lvm/lvm.conf")
    if settings.get("global/use_lvmlockd") == "0":
        what = f"{name}: global/use_lvmlockd = 0"
        mend = "nothing, unless stock commands are to change shared VGs; then set it to 1 (docs/lvm2.md)"
        yield NO_LOCKS.at(name, what, mend)
    if settings.get("devices/scan_lvs") == "1":
        what = f"{name}: devices/scan_lvs = 1"
        yield SCANS.at(name, what, MEND)
    listed = "activation/auto_activation_volume_list" in settings
    if settings.get("global/event_activation") == "1" and not listed:
        what = f"{name}: event_activation = 1 and no auto_activation_volume_list"
        mend = "list the host's own VGs in activation/auto_activation_volume_list"
        yield ACTIVATES.at(name, what, mend)
