"""What stock LVM2's commands need on a lab host: block devices, and an lvm.conf of the host's own.

A lab's hosts share one kernel, and its device-mapper knows nothing of hosts: what one of them activated
would be active on all.  So LVM2 activates nothing there (`activation=0`); it asks for the same locks, and
writes the same metadata.

Source: lvm.conf(5); losetup(8); lib/locking/lvmlockd.c, which wants the pid file to exist."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from ringfence.core.errors import Refused

LIMIT_S = 60.0

_CONF = """\
# For stock LVM2 on one host of a ringfence lab: this lab's disks and no other, its own locks and places.
config {{
	checks = 0
}}
devices {{
	filter = [ {devices} ]
	global_filter = [ {devices} ]
	use_devicesfile = 0
	obtain_device_list_from_udev = 0
	external_device_info_source = "none"
	hints = "none"
	scan_lvs = 0
	md_component_detection = 0
	multipath_component_detection = 0
}}
global {{
	use_lvmlockd = 1
	use_lvmpolld = 0
	event_activation = 0
	notify_dbus = 0
	locking_dir = "{locks}"
	# All hosts of a lab share one device-mapper: what one activated would be active on all.
	activation = 0
}}
activation {{
	udev_sync = 0
	udev_rules = 0
	monitoring = 0
}}
backup {{
	backup = 1
	backup_dir = "{lvm}/backup"
	archive = 0
	archive_dir = "{lvm}/archive"
}}
"""


def lvm_conf(system_dir: Path, locks: Path, disks: Sequence[str]) -> str:
    """The text of one host's lvm.conf.

    Args:
        system_dir: LVM_SYSTEM_DIR, where it will be.
        locks: for the locks of commands on this host among themselves.
        disks: the only devices that LVM2 may look at; a file is not one for it.
    """
    accepted = "".join(f'"a|^{disk}$|", ' for disk in disks)
    return _CONF.format(devices=f'{accepted}"r|.*|"', locks=locks, lvm=system_dir)


def attach(image: Path) -> str:
    """Make the file a block device; its path.  Raises Refused: not without root, or not here."""
    try:
        ran = subprocess.run(
            ["losetup", "--find", "--show", str(image)],
            text=True, capture_output=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        why = ran.stderr.strip() if ran.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    if why:
        raise Refused(
            f"the lab's disk cannot be a loop device here: {why}",
            next="become root; or leave out --loop, and stock LVM2 with it",
        )
    return ran.stdout.strip()


def detach(image: Path) -> None:
    """No loop device is made of the file any more.  One that is still open goes with who has it open."""
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            mine = file.read_text().strip() == str(image.resolve())
        except OSError:  # it went meanwhile
            continue
        if mine:
            words = ["losetup", "--detach", f"/dev/{file.parts[3]}"]
            subprocess.run(words, capture_output=True, timeout=LIMIT_S, check=False)
