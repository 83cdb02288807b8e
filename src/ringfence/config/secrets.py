"""Secrets of fence devices: ETC/secrets/DEVICE, lines of key=value, readable by their user alone.

They never stand in ringfence.toml, never travel to other nodes, and are handed to the agent on
stdin only.  Empty lines and lines that begin with # are left out, as fence agents do.
Source: FenceAgentAPI (options on stdin, one name=value a line)."""

import re
import stat
from pathlib import Path

from ringfence.config.paths import Paths
from ringfence.core.errors import ConfigError

_KEY = re.compile(r"[A-Za-z0-9_-]+")


def secret_file(paths: Paths, device: str) -> Path:
    return paths.secrets / device


def check_secret_file(path: Path) -> bool:
    """False: there is none.

    Raises:
        ConfigError: others than its user could read or change it.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, PermissionError):
        # Who may not look cannot leak it either; the daemon, which must, fails in read_secrets.
        return False
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a file", next="put the device's secrets there as key=value lines")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigError(
            f"{path} holds secrets and others may use it (mode {mode:04o})", next=f"chmod 600 {path}"
        )
    return True


def read_secrets(paths: Paths, device: str) -> dict[str, str]:
    """The device's secret parameters; empty if it has no file.

    Raises:
        ConfigError: the file is open to others, unreadable or malformed.  No value is ever quoted.
    """
    path = secret_file(paths, device)
    if not check_secret_file(path) and not path.exists():
        return {}
    return parse_secrets(path)


def parse_secrets(path: Path) -> dict[str, str]:
    """As `read_secrets`, for any file; does not look at its mode."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", next="check its owner") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8", next="write key=value lines") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        key = key.strip()
        if not equals or not _KEY.fullmatch(key):
            raise ConfigError(f"{path} line {number} is not key=value", next="write one key=value a line")
        if key in found:
            raise ConfigError(f"{path} line {number}: {key} stands there twice", next="remove one")
        found[key] = value.strip()
    return found
