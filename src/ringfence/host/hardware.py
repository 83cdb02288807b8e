"""What this machine is made of: its board's own UUID, and whether it is itself a virtual machine.

A copied disk brings the machine-id along, the board's UUID it does not.  Only a digest of that leaves this
module, for the kernel shows it to root alone; where it cannot be read, or says nothing (all digits alike, as
boards have that nobody has named), there is none, and nothing is concluded.

A virtual machine can be paused together with its clock and its watchdog, so neither says anything about it.
It is told as systemd does it: by who made the "board", then by the hypervisor's bit of the CPU; but a
control domain of Xen, and a cloud's bare metal, are no virtual machines.

A lab's host (one under a --root of its own) is what its own files say, ROOT/etc/board and
ROOT/etc/hypervisor; without them it says nothing.

Source: systemd-detect-virt(1), systemd src/basic/virt.c; Documentation/ABI/stable/sysfs-firmware-dmi;
SMBIOS 3.6, 7.2.1 (a UUID of all 0 or all 1 bits is not set)."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from ringfence.wire.ring import Hardware

_DMI = Path("sys/class/dmi/id")
_MADE_BY = (
    ("KVM", "kvm"), ("OpenStack", "kvm"), ("KubeVirt", "kvm"), ("Amazon EC2", "amazon"), ("QEMU", "qemu"),
    ("VMware", "vmware"), ("VMW", "vmware"), ("innotek GmbH", "oracle"), ("VirtualBox", "oracle"),
    ("Oracle Corporation", "oracle"), ("Xen", "xen"), ("Bochs", "bochs"), ("Parallels", "parallels"),
    ("BHYVE", "bhyve"), ("Hyper-V", "microsoft"), ("Apple Virtualization", "apple"),
    ("Google Compute Engine", "google"), ("RHEV Hypervisor", "kvm"), ("oVirt", "kvm"), ("Nutanix AHV", "kvm"),
)  # fmt: skip
"""What the DMI fields of a virtual machine begin with."""
_TOLD_IN = ("product_name", "sys_vendor", "board_vendor", "bios_vendor", "product_version")
_MACHINES_TOO = ("Oracle Corporation",)
"""They make real machines as well: their name alone, without the CPU's bit, says nothing."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HOST = Path("/")
BOARD_DIGITS = 16


def hardware(root: Path | None = None, machine: Path = _HOST) -> Hardware:
    """
    Args:
        root: the --root this host lives under; None or / is the real machine.
        machine: where the real machine's /sys and /proc are.
    """
    if root is not None and root != _HOST:
        hypervisor = _read(root / "etc/hypervisor")
        return Hardware(_digest(_read(root / "etc/board")), "" if hypervisor == "none" else hypervisor)
    return Hardware(board(_read(machine / _DMI / "product_uuid")), hypervisor_of(machine))


def board(uuid: str) -> str:
    """The digest of a board's UUID; "" if it is none."""
    words = uuid.strip().lower()
    if not _UUID.fullmatch(words) or len(set(words.replace("-", ""))) == 1:
        return ""
    return _digest(words)


def hypervisor_of(machine: Path) -> str:
    """Of which kind the virtual machine is ("kvm", "vmware", "xen", …, "unknown"); "": it is none."""
    told = [_read(machine / _DMI / name) for name in _TOLD_IN]
    bit = "hypervisor" in _cpu_flags(_read(machine / "proc/cpuinfo"))
    if told[0].endswith(".metal"):  # Amazon's bare metal has the same maker
        return ""
    if "control_d" in _read(machine / "proc/xen/capabilities").split():
        return ""
    if told[0] == "Virtual Machine" and told[1] == "Microsoft Corporation":
        return "microsoft"
    found = next((kind for text in told for name, kind in _MADE_BY if _begins(text, name, bit)), "")
    if found or not bit:
        return found
    return "xen" if _read(machine / "sys/hypervisor/type") == "xen" else "unknown"


def _begins(text: str, name: str, bit: bool) -> bool:
    return text.startswith(name) and (bit or name not in _MACHINES_TOO)


def _cpu_flags(cpuinfo: str) -> Sequence[str]:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            return value.split()
    return ()


def _digest(text: str) -> str:
    return hashlib.sha256(f"ringfence board {text}".encode()).hexdigest()[:BOARD_DIGITS] if text else ""


def _read(path: Path) -> str:
    """What is there; "" where nothing can be read, from which nothing follows."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
