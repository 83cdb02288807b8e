"""A watchdog device that resets nobody: it keeps the time at which it would have."""

import errno
import os

from ringfence.host import watchdog as real


class FakeDevice:
    """As the kernel's watchdog core does it: opening starts it, V and a close stop it.

    Args:
        rounds_to_s: the driver takes multiples of this only, rounded up.
        settable: the driver lets its timeout be set."""

    def __init__(self, rounds_to_s: int = 1, *, settable: bool = True, is_one: bool = True) -> None:
        self.now_s = 0.0
        self.timeout_s = 60
        self.fed_s = 0.0
        self.ticks = True
        self.closed = False
        self._rounds_to_s = rounds_to_s
        self._settable = settable
        self._is_one = is_one
        self._last = b""

    @property
    def has_reset(self) -> bool:
        return self.ticks and self.now_s - self.fed_s >= self.timeout_s

    def ioctl(self, request: int, argument: bytes) -> bytes:
        assert not self.closed
        if not self._is_one:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        if request == real.WDIOC_GETSUPPORT:
            assert len(argument) == 40
            return real.INFO.pack(0x8180, 1, b"fake\0")
        if request == real.WDIOC_SETTIMEOUT:
            if not self._settable:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            (asked_s,) = real.SECONDS.unpack(argument)
            self.timeout_s = -(-asked_s // self._rounds_to_s) * self._rounds_to_s
            return real.SECONDS.pack(self.timeout_s)
        if request == real.WDIOC_GETTIMEOUT:
            return real.SECONDS.pack(self.timeout_s)
        assert request == real.WDIOC_KEEPALIVE
        self.fed_s = self.now_s
        return argument

    def write(self, data: bytes) -> None:
        assert not self.closed
        self._last = data
        self.fed_s = self.now_s

    def close(self) -> None:
        assert not self.closed
        self.closed = True
        if self._last == real.MAGIC:
            self.ticks = False
