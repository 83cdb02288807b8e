"""Which devices the configuration's [devices] paths allow, each once.

A path may be a glob.  Only regular files and block devices count, links are followed; of several
names of one device the first is used and the others are its aliases."""

import glob
import os
import stat
from collections.abc import Sequence

import msgspec

from ringfence.engine.orders import Device
from ringfence.storage.direct import size_and_block


class Found(msgspec.Struct, frozen=True):
    devices: tuple[Device, ...]
    refused: dict[str, str]
    """Allowed by the configuration, but not to be used: path -> why."""


def scan_devices(patterns: Sequence[str]) -> Found:
    devices: dict[tuple[int, int], Device] = {}
    refused: dict[str, str] = {}
    for pattern in patterns:
        # A name that exists as it stands wins over its meaning as a glob.
        names = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern))
        for name in names:
            try:
                status = os.stat(name)
                identity = _identity(status)
                if identity is None:
                    continue
                if identity in devices:
                    devices[identity] = _with_alias(devices[identity], name)
                    continue
                size, block = size_and_block(name)
            except (OSError, ValueError) as error:
                refused[name] = str(error)
                continue
            if size:
                real = os.path.realpath(name)
                aliases = (real,) if real != name else ()
                devices[identity] = Device(name, size, block, aliases)
    return Found(tuple(devices.values()), refused)


def _identity(status: os.stat_result) -> tuple[int, int] | None:
    if stat.S_ISBLK(status.st_mode):
        return -1, status.st_rdev
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def _with_alias(device: Device, name: str) -> Device:
    if name == device.path or name in device.aliases:
        return device
    return Device(device.path, device.size_bytes, device.sector_bytes, (*device.aliases, name))
