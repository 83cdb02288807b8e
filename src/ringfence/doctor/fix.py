"""`ringfence doctor --fix`: keeps this host's stock LVM2 out of volumes.

Inside an LV a virtual machine has PVs and VGs of its own.  Where LVM2 on the host looks there, it shows those
VGs, may activate them, and "repairs" what a guest is just writing.  So a block of our own in lvmlocal.conf,
which LVM2 reads over lvm.conf, says: do not scan LVs; and of devices reject, before whatever else decides,
nbd devices, the sockets' directory, and the nodes of shared VGs' LVs.  Whatever the host already filters
stays behind that.  A device that holds a PV of a shared VG is never rejected.

Written whole or not at all (a new file, renamed); once more changes nothing.  Source: lvm.conf(5)."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ringfence.config import Paths
from ringfence.core.errors import RingfenceError
from ringfence.daemon.checkup.lvm import lvm_facts
from ringfence.doctor.facts import ClusterFacts
from ringfence.doctor.filters import accepts, rejects_of

FILE = "etc/lvm/lvmlocal.conf"
BEGIN = "# -- from `ringfence doctor --fix`; changes between these lines are lost --"
END = "# -- to here --"


def fix(paths: Paths, facts: ClusterFacts) -> list[str]:
    """Returns what was done, a line each.  Raises RingfenceError: nothing was, or LVM2 does not heed it."""
    lvm = facts.own.lvm
    if lvm is None or lvm.trouble:
        raise RingfenceError(f"stock LVM2 cannot be asked: {lvm.trouble if lvm else 'it was not looked at'}")
    vgs = facts.daemon.shared_vgs if facts.daemon is not None else ()
    own_disks = [disk.path for disk in facts.own.disks if disk.block]
    before = lvm.settings.get("devices/global_filter", "").splitlines()
    wanted = rejects_of(vgs, own_disks)
    rules = [*wanted, *(rule for rule in before if rule not in wanted)]
    sound = before[: len(wanted)] == wanted and lvm.settings.get("devices/scan_lvs") == "0"
    if sound:
        return ["stock LVM2 keeps out of volumes already"]
    hidden = [path for path in own_disks if accepts(before, (path,)) and not accepts(rules, (path,))]
    assert not hidden, "a PV of ours is not rejected"
    file = paths.root / FILE
    try:
        old = file.read_text() if file.exists() else ""
        _replace(file, with_block(old, rules))
    except OSError as error:
        raise RingfenceError(f"cannot write {file}: {error.strerror}", next="run it as root") from error
    now = lvm_facts(paths).settings
    if now.get("devices/scan_lvs") != "0" or now.get("devices/global_filter", "").splitlines() != rules:
        raise RingfenceError(
            f"{file} was written, and LVM2 does not heed it",
            next="see: lvmconfig devices/scan_lvs devices/global_filter; is LVM_SYSTEM_DIR set?",
        )
    return [f"wrote {file}: LVM2 scans no LVs, and rejects {' '.join(wanted)}"]


def with_block(text: str, rules: Sequence[str]) -> str:
    """The file with our block, in place of an earlier one."""
    before, begins, rest = text.partition(BEGIN)
    behind = rest.partition(END)[2].lstrip("\n") if begins else ""
    listed = ", ".join(f'"{rule}"' for rule in rules)
    block = f"{BEGIN}\ndevices {{\n\tscan_lvs = 0\n\tglobal_filter = [ {listed} ]\n}}\n{END}\n"
    before = before.rstrip("\n")
    return f"{before}\n\n{block}{behind}" if before else f"{block}{behind}"


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    mode = file.stat().st_mode & 0o7777 if file.exists() else 0o644
    number, name = tempfile.mkstemp(dir=file.parent, prefix=".lvmlocal")
    try:
        with os.fdopen(number, "w") as new:
            new.write(text)
            new.flush()
            os.fchmod(number, mode)
            os.fsync(number)
        os.replace(name, file)
    except OSError:
        os.unlink(name)
        raise
