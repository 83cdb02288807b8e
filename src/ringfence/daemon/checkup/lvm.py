"""How stock LVM2 is set up on this host, in its own words (lvmconfig), and its devices file.

Source: lvm.conf(5), lvmdevices(8)."""

import re
from pathlib import Path

from ringfence.config import Paths
from ringfence.core.errors import Damaged, RingfenceError
from ringfence.host.probes import tool
from ringfence.lvm2.names import UUID_LENGTH
from ringfence.lvm2.text import Section, Value, parse_text
from ringfence.wire.checkup import LvmFacts

TOOL_S = 3.0
DEVICES = "etc/lvm/devices"
SETTINGS = (
    "devices/filter", "devices/global_filter", "devices/use_devicesfile", "devices/devicesfile",
    "devices/scan_lvs", "global/use_lvmlockd", "global/lvmlockd_lock_retries", "global/event_activation",
    "activation/auto_activation_volume_list",
)  # fmt: skip
_PLAIN = ("/dev/sd", "/dev/vd", "/dev/nvme", "/dev/loop")
MOST = 64
"""PVs that are told of: facts stay small."""
_VERSION = re.compile(r"LVM version:\s*(\S+)")


def lvm_facts(paths: Paths) -> LvmFacts:
    """Args: paths: a lab's host may have an lvm.conf of its own."""
    own = paths.root / "etc/lvm"
    more = {"LVM_SYSTEM_DIR": str(own)} if own.exists() else {}
    try:
        sections = sorted({name.partition("/")[0] for name in SETTINGS})
        text = tool(("lvmconfig", "--typeconfig", "full", *sections), TOOL_S, more)
        version = _VERSION.search(tool(("lvm", "version"), TOOL_S, more))
        settings = read_settings(parse_text(text.encode(), "lvmconfig"))
    except Damaged as error:
        return LvmFacts(trouble=f"lvmconfig: {error}")
    except RingfenceError as error:
        return LvmFacts(trouble=str(error))
    pvs = _pvs(more)
    devices = None
    if settings.get("devices/use_devicesfile") == "1":
        devices = _devices(paths.root / DEVICES / (settings.get("devices/devicesfile") or "system.devices"))
    return LvmFacts(version[1] if version else "", settings, devices, pvs=pvs)


def _pvs(more: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """PVs on what is no plain disk, as LVM2 finds them; none where it does not answer in time."""
    words = ("pvs", "--noheadings", "--separator", "|", "-o", "vg_name,pv_name", "--nolocking", "--readonly")
    try:
        told = tool(words, TOOL_S, more)
    except RingfenceError:
        return ()
    rows = [line.strip().partition("|")[::2] for line in told.splitlines() if "|" in line]
    return tuple((vg, device) for vg, device in rows if not device.startswith(_PLAIN))[:MOST]


def read_settings(tree: Section) -> dict[str, str]:
    """Those of SETTINGS that are set; a list as its items, one a line."""
    found = {}
    for name in SETTINGS:
        section, _, key = name.partition("/")
        table = tree.section(section)
        value = table.get(key) if table is not None else None
        if value is not None and not isinstance(value, Section):
            found[name] = _plain(value)
    return found


def _plain(value: Value) -> str:
    return "\n".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _devices(path: Path) -> tuple[str, ...] | None:
    """None: LVM2 uses every device while there is no such file."""
    try:
        return read_devices(path.read_text(errors="replace"))
    except FileNotFoundError:
        return None
    except OSError:
        return ()


def read_devices(text: str) -> tuple[str, ...]:
    """The PV uuids of a devices file: PVID=UUID, 32 characters."""
    found = re.findall(r"\bPVID=([0-9A-Za-z]+)", text)
    return tuple(uuid for uuid in found if len(uuid) == UUID_LENGTH)
