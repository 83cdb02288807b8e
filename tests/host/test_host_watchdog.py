"""The watchdog's own language, and the fake that the other tests use for one."""

from pathlib import Path

import pytest
from fake_watchdog import FakeDevice

from ringfence.core.errors import Unavailable
from ringfence.host import watchdog
from ringfence.host.watchdog import Watchdog, open_watchdog


def test_it_resets_unless_it_is_fed() -> None:
    device = FakeDevice()
    dog = Watchdog(device, "dog", 4)
    assert (dog.timeout_s, dog.identity) == (4, "fake")
    for _ in range(10):
        device.now_s += 3.9
        assert not device.has_reset
        dog.feed()
    device.now_s += 4
    assert device.has_reset


def test_only_the_magic_letter_stops_it() -> None:
    device = FakeDevice()
    Watchdog(device, "dog", 4).stop()
    device.now_s = 100
    assert device.closed
    assert not device.has_reset
    other = FakeDevice()
    Watchdog(other, "dog", 4).leave_ticking()
    other.now_s = 4
    assert other.closed
    assert other.has_reset


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (FakeDevice(rounds_to_s=60), "watchdog dog takes 60 s instead of 4 s"),
        (FakeDevice(settable=False), "watchdog dog cannot be set: Operation not supported"),
    ],
)
def test_one_that_cannot_do_it_is_stopped_again(device: FakeDevice, why: str) -> None:
    with pytest.raises(Unavailable, match=why):
        Watchdog(device, "dog", 4)
    assert device.closed
    assert not device.ticks


def test_nothing_is_written_to_what_is_no_watchdog() -> None:
    device = FakeDevice(is_one=False)
    with pytest.raises(Unavailable, match="dog is no watchdog"):
        Watchdog(device, "dog", 4)
    assert device.closed
    assert device.ticks, "not a letter was written"


def test_real_files_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"precious")
    none, null = tmp_path / "none", Path("/dev/null")
    for path, why in ((file, "is no watchdog"), (none, "No such file"), (null, "is no watchdog")):
        with pytest.raises(Unavailable, match=why):
            open_watchdog(path, 4)
    assert file.read_bytes() == b"precious"


def test_the_numbers_are_the_kernels() -> None:
    """_IOC(direction, "W", number, size), asm-generic/ioctl.h."""

    def ioc(direction: int, number: int, size: int) -> int:
        return direction << 30 | size << 16 | ord("W") << 8 | number

    assert ioc(2, 0, watchdog.INFO.size) == watchdog.WDIOC_GETSUPPORT
    assert ioc(2, 5, 4) == watchdog.WDIOC_KEEPALIVE
    assert ioc(3, 6, 4) == watchdog.WDIOC_SETTIMEOUT
    assert ioc(2, 7, 4) == watchdog.WDIOC_GETTIMEOUT
