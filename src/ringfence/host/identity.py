"""Who this machine is, and which boot of it this is.

A life is told apart by (machine identity, boot id), so neither may be guessed: what cannot be read is
an error, never an empty string.  A host under a --root of its own (a lab host) has its own
ROOT/etc/machine-id and ROOT/run/boot_id, and these win; without them it is the real machine's.

Source: machine-id(5); Documentation/admin-guide/sysctl/kernel.rst (random/boot_id)."""

import re
from pathlib import Path

from ringfence.core.errors import Damaged, Unavailable

MACHINE_ID = Path("/etc/machine-id")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_WORD = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = Path("/")


def machine_id(root: Path | None = None) -> str:
    """The enrolled machine's identity: one word.

    Args:
        root: the --root this host lives under; None or / is the real machine.

    Raises:
        Unavailable: neither file can be read.
        Damaged: the file does not hold one word.
    """
    return _word(_own(root, "etc/machine-id") or MACHINE_ID, "run systemd-machine-id-setup")


def boot_id(root: Path | None = None) -> str:
    """This boot's identity: another one after each boot.  Arguments and errors as `machine_id`."""
    return _word(_own(root, "run/boot_id") or BOOT_ID, "mount /proc")


def _own(root: Path | None, name: str) -> Path | None:
    """A lab host's own file.  One that is there but unreadable still wins: it is then an error."""
    if root is None or root == _HOST:
        return None
    path = root / name
    return path if path.exists() or path.is_symlink() else None


def _word(path: Path, cure: str) -> str:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}", next=cure) from None
    except UnicodeDecodeError:
        text = ""
    if not _WORD.fullmatch(text) or text == "uninitialized":
        raise Damaged(f"{path} does not hold an identity", next=cure)
    return text
