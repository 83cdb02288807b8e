"""-r: the file system grows with its LV.

Where the LV is a block device here (device-mapper), LVM2's own fsadm does it.  What is served over NBD is a
disk of whoever has it connected, a guest mostly, and no business of this host: then it is said what to do,
and the command fails, as LVM2's does for an LV that is not active: a script must not take it for done.

Source: LVM2 lib/metadata/lv_manip.c (lv_resize); LVM2 scripts/fsadm.sh, fsadm(8)."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ringfence.cli.verbs.table import Given

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_WORDS = 200


def resize_file_system(given: Given, result: dict[str, Any]) -> dict[str, Any]:
    """After lvextend: the result, and what became of the file system.

    The LV has grown, whatever is said here: `problems` make the command fail, and to repeat what they say
    is all that is left to do."""
    device = str(result.get("device") or "")
    if not given["resizefs"]:
        return result
    name = f"{result['vg']}/{result['name']}"
    if not _is_block_device(device):
        why = (
            "it is used over NBD; next: where it is mounted, connect anew, then run resize2fs DEVICE or "
            "xfs_growfs MOUNTPOINT"
            if device
            else "it is not active here; next: activate it, then run fsadm resize DEVICE, or resize2fs or "
            "xfs_growfs where it is mounted"
        )
    else:
        why = _fsadm(device)
        if not why:
            return result
        why = f"{why}; next: fsadm resize {device}"
    return {**result, "problems": [f"{name} has grown, its file system has not: {why}"]}


def _is_block_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def _fsadm(device: str) -> str:
    """Returns why it failed."""
    import shutil
    import subprocess

    program = shutil.which("fsadm", path=_PATH)
    if program is None:
        return "fsadm is not on this host (it comes with lvm2)"
    done = subprocess.run(
        [program, "--yes", "resize", device], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={"LC_ALL": "C", "PATH": _PATH}, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return ""
    lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
    return lines[-1].strip()[:_WORDS]
