"""-r: the file system grows with its LV.

Where the LV is a block device here (device-mapper), LVM2's own fsadm does it.  What is served over NBD is a
disk of whoever has it connected, a guest mostly, and no business of this host: then it is said what to do.

Source: LVM2 scripts/fsadm.sh, fsadm(8)."""

import os
import stat
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
        how = (
            f"The file system on {name} is not resized here: where it is mounted, connect anew, then run "
            "resize2fs DEVICE or xfs_growfs MOUNTPOINT"
            if device
            else f"The file system on {name} is not resized: the LV is not active here; "
            "activate it, then run fsadm resize DEVICE, or resize it where it is used"
        )
        return {**result, "notes": [*result.get("notes", []), how]}
    why = _fsadm(device)
    if not why:
        return result
    problem = f"{name} has grown, its file system has not: {why}; next: fsadm resize {device}"
    return {**result, "problems": [problem]}


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
