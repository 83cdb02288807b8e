"""The machine's watchdog: a timer that resets the host unless it is fed.

To open the device starts the timer; from then on the host lives from one feeding to the next.  Only the
letter V, written right before the device is closed, stops it again; a process that ends in any other way
leaves it running.  Nobody but one process can have it open.

On a virtual machine the timer stands still whenever the machine does: there it proves nothing.

Source: Linux Documentation/watchdog/watchdog-api.rst; include/uapi/linux/watchdog.h for the numbers below,
which are the same on x86, ARM, RISC-V and s390 (asm-generic/ioctl.h), and others on POWER and MIPS."""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path
from typing import Protocol

from ringfence.core.errors import Unavailable

WDIOC_GETSUPPORT = 0x80285700
WDIOC_KEEPALIVE = 0x80045705
WDIOC_SETTIMEOUT = 0xC0045706
WDIOC_GETTIMEOUT = 0x80045707
MAGIC = b"V"
INFO = struct.Struct("II32s")
"""struct watchdog_info: options, firmware version, identity."""
SECONDS = struct.Struct("i")
_HELD = (errno.EBUSY, errno.EAGAIN)


class Device(Protocol):
    """An open watchdog device.  Its methods raise OSError."""

    def ioctl(self, request: int, argument: bytes) -> bytes: ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class CharacterDevice:
    """The real one.

    Raises Unavailable: it is not there, is no character device, or somebody else has it."""

    def __init__(self, path: Path) -> None:
        try:
            if not stat.S_ISCHR(path.stat().st_mode):
                raise Unavailable(f"{path} is no watchdog", next='[watchdog] device = "/dev/watchdog"')
            self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            held = "another program has it open" if error.errno in _HELD else error.strerror
            raise Unavailable(f"watchdog {path}: {held}", next="ringfence doctor") from None

    def ioctl(self, request: int, argument: bytes) -> bytes:
        return fcntl.ioctl(self._fd, request, argument)

    def write(self, data: bytes) -> None:
        os.write(self._fd, data)

    def close(self) -> None:
        os.close(self._fd)


class Watchdog:
    """A watchdog that ticks, from the construction on.

    Args:
        device: just opened.
        name: for messages.
        timeout_s: whole seconds; the driver may round it, but a longer time is not taken.

    Raises Unavailable: it is none, or cannot do what is asked; it is closed then, and does not tick."""

    def __init__(self, device: Device, name: str, timeout_s: int) -> None:
        assert timeout_s > 0
        self._device, self._name = device, name
        try:
            _, _, identity = INFO.unpack(device.ioctl(WDIOC_GETSUPPORT, bytes(INFO.size)))
        except OSError:
            device.close()  # without a word: who knows what it is
            raise Unavailable(f"{name} is no watchdog", next='[watchdog] device = "/dev/watchdog"') from None
        self.identity = identity.split(b"\0")[0].decode(errors="replace")
        try:
            device.ioctl(WDIOC_SETTIMEOUT, SECONDS.pack(timeout_s))
            (self.timeout_s,) = SECONDS.unpack(device.ioctl(WDIOC_GETTIMEOUT, bytes(SECONDS.size)))
        except OSError as error:
            self._give_up(f"cannot be set: {error.strerror}")
        if not 0 < self.timeout_s <= timeout_s:
            self._give_up(f"takes {self.timeout_s} s instead of {timeout_s} s")
        self.feed()

    def feed(self) -> None:
        """Start the timer anew.  Never raises: a timer that cannot be fed resets the host, as it should."""
        with contextlib.suppress(OSError):
            self._device.ioctl(WDIOC_KEEPALIVE, bytes(SECONDS.size))

    def stop(self) -> None:
        """The host may go on without it, for nothing is open any more: the timer ends.

        (Not so with a driver that was loaded with `nowayout`.)"""
        with contextlib.suppress(OSError):
            self._device.write(MAGIC)
        self._device.close()

    def leave_ticking(self) -> None:
        """Close it without a word: the host resets, unless another process opens it in time."""
        self._device.close()

    def _give_up(self, why: str) -> None:
        self.stop()
        raise Unavailable(f"watchdog {self._name} {why}", next="use another, or leave [watchdog] out")


def open_watchdog(path: Path, timeout_s: int) -> Watchdog:
    """Raises Unavailable."""
    return Watchdog(CharacterDevice(path), str(path), timeout_s)
