"""The host's watchdog: which one, who holds it, and whether systemd watches the daemon.

Source: Linux Documentation/watchdog/watchdog-api.rst (sysfs: CONFIG_WATCHDOG_SYSFS)."""

import contextlib
import os
from pathlib import Path

from ringfence.block.self_fence import misfit
from ringfence.config import Loaded
from ringfence.core.errors import RingfenceError
from ringfence.host.probes import tool
from ringfence.wire.checkup import WatchdogFacts

NAMES = ("/dev/watchdog0", "/dev/watchdog")
CLASS = Path("/sys/class/watchdog")
TOOL_S = 2.0


def watchdog_facts(loaded: Loaded | None = None) -> WatchdogFacts:
    """Args: loaded: this host's configuration, as far as it can be read."""
    device = next((name for name in NAMES if Path(name).exists()), "")
    open_ = bool(device) and _told("state") != "inactive"
    holder = _holder() if open_ else ""
    configured = str(loaded.watchdog or "") if loaded is not None else ""
    unused = _unused(loaded, holder) if loaded is not None and configured else ""
    return WatchdogFacts(device, _told("identity"), holder, _service_us(), configured, unused)


def _unused(loaded: Loaded, holder: str) -> str:
    """Why the watchdog that is configured is not fed; empty: as far as can be seen, it is."""
    assert loaded.watchdog is not None
    if not loaded.watchdog.exists():
        return f"there is no {loaded.watchdog}"
    if wrong := misfit(loaded.cluster.timing, loaded.watchdog_ms):
        return wrong
    return "" if holder or os.geteuid() != 0 else "nobody has it open; does ringfence-block run?"


def _told(name: str) -> str:
    try:
        return (CLASS / "watchdog0" / name).read_text().strip()
    except OSError:
        return ""


def _service_us() -> int | None:
    """Of the running service manager's idea of ringfence.service; 0: not watched."""
    try:
        words = ("systemctl", "show", "--property=WatchdogUSec,LoadState", "ringfence.service")
        return read_watchdog_us(tool(words, TOOL_S))
    except RingfenceError:
        return None


def read_watchdog_us(text: str) -> int | None:
    """None: there is no such unit.  systemctl prints a time span (1min 30s), or 0, or infinity."""
    keys = dict(line.partition("=")[::2] for line in text.splitlines())
    if keys.get("LoadState") != "loaded":
        return None
    total = 0
    units = (("min", 60_000_000), ("ms", 1000), ("us", 1), ("h", 3_600_000_000), ("s", 1_000_000))
    for word in keys.get("WatchdogUSec", "0").split():
        for unit, size in units:
            number = word.removesuffix(unit)
            if number != word and number.isdecimal():
                total += int(number) * size
                break
    return total


def _holder() -> str:
    """The first process that has it open, as far as this user may see."""
    for entry in sorted(Path("/proc").iterdir()):
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            for fd in os.listdir(entry / "fd"):
                if os.readlink(entry / "fd" / fd).startswith("/dev/watchdog"):
                    return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
    return ""
