"""Device-mapper without a kernel: tables, suspension, open counts, and the kernel's refusals.

It fulfils `block.dm.mapper.Mapper`.  What it answers was compared with a real kernel: the same story is told
to both, and their answers are equal (`test_block_dm_kernel.py`, recorded by the rig)."""

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from ringfence.block.dm.mapper import Device, Line

MAJOR = 254
NAME_BYTES = 127
UUID_BYTES = 128


@dataclass
class Fake:
    """One device."""

    name: str
    uuid: str
    minor: int
    readonly: bool = False
    active: tuple[Line, ...] | None = None
    inactive: tuple[Line, ...] | None = None
    suspended: bool = False
    opened: int = 0
    goes: bool = False
    """To be removed when its last user closes it."""
    held: list[int] = field(default_factory=list)
    """Writes that wait, sectors."""

    def seen(self) -> Device:
        return Device(
            self.name, self.uuid, os.makedev(MAJOR, self.minor), self.opened, self.suspended, self.readonly,
            self.active is not None, self.inactive is not None,
        )  # fmt: skip


class FakeMapper:
    """Args: known: kinds of targets that this kernel has.

    `hang` is waited for in each suspension, as a disk that does not answer is."""

    def __init__(self, known: Sequence[str] = ("linear", "striped", "error")) -> None:
        self.devices: dict[str, Fake] = {}
        self.calls: list[tuple[str, str]] = []
        self.fail: dict[str, int] = {}
        """Method -> the errno that it answers with."""
        self.hang = threading.Event()
        self.hang.set()
        self.written: list[tuple[str, int]] = []
        """(uuid, sector) of each write that reached the disk."""
        self._known = tuple(known)
        self._lock = threading.Lock()

    # -- as the kernel is asked ---------------------------------------------------

    def find(self, uuid: str) -> Device | None:
        with self._lock:
            there = self.devices.get(uuid)
            return there.seen() if there is not None else None

    def create(self, name: str, uuid: str, *, readonly: bool = False) -> Device:
        with self._asked("create", uuid):
            if not name or "/" in name:
                raise _error(errno.EINVAL)
            if uuid in self.devices or any(one.name == name for one in self.devices.values()):
                raise _error(errno.EBUSY)
            used = [one.minor for one in self.devices.values()]
            minor = next(number for number in range(len(used) + 1) if number not in used)
            self.devices[uuid] = Fake(name, uuid, minor, readonly)
            return self.devices[uuid].seen()

    def load(self, uuid: str, lines: Sequence[Line], *, readonly: bool = False) -> None:
        with self._asked("load", uuid):
            there = self._device(uuid)
            at = 0
            for line in lines:
                if line.start_sectors != at or line.kind not in self._known or not line.length_sectors:
                    raise _error(errno.EINVAL)
                at += line.length_sectors
            if not lines:
                raise _error(errno.EINVAL)
            there.inactive = tuple(lines)

    def suspend(self, uuid: str) -> None:
        with self._asked("suspend", uuid):
            self._device(uuid).suspended = True
        self.hang.wait()

    def resume(self, uuid: str) -> None:
        with self._asked("resume", uuid):
            there = self._device(uuid)
            if there.inactive is not None:
                there.active, there.inactive = there.inactive, None
            if there.active is None:
                raise _error(errno.EINVAL)
            there.suspended = False
            held, there.held = there.held, []
            for sector in held:
                self._carry(there, sector)

    def remove(self, uuid: str, *, deferred: bool = False) -> None:
        with self._asked("remove", uuid):
            there = self._device(uuid)
            if not there.opened:
                del self.devices[uuid]
            elif deferred:
                there.goes = True
            else:
                raise _error(errno.EBUSY)

    def rename(self, uuid: str, name: str) -> None:
        with self._asked("rename", uuid):
            there = self._device(uuid)
            if not name or "/" in name:
                raise _error(errno.EINVAL)
            if any(one.name == name for one in self.devices.values()):
                raise _error(errno.EBUSY)
            there.name = name

    def table(self, uuid: str) -> tuple[Line, ...]:
        with self._asked("table", uuid):
            return self._device(uuid).active or ()

    # -- as its users do ------------------------------------------------------------

    def open(self, uuid: str) -> None:
        with self._lock:
            self.devices[uuid].opened += 1

    def close(self, uuid: str) -> None:
        with self._lock:
            there = self.devices[uuid]
            there.opened -= 1
            if there.goes and not there.opened:
                del self.devices[uuid]

    def write(self, uuid: str, sector: int) -> None:
        """It waits where the device is suspended.  Raises OSError: it fails."""
        with self._lock:
            there = self.devices[uuid]
            if there.suspended:
                there.held.append(sector)
            elif not self._carry(there, sector):
                raise _error(errno.EIO)

    # --------------------------------------------------------------------------------

    def _carry(self, there: Fake, sector: int) -> bool:
        for line in there.active or ():
            if line.start_sectors <= sector < line.start_sectors + line.length_sectors:
                if line.kind == "error":
                    return False
                self.written.append((there.uuid, sector))
                return True
        return False

    def _asked(self, method: str, uuid: str) -> threading.Lock:
        self.calls.append((method, uuid))
        if method in self.fail:
            raise _error(self.fail[method])
        return self._lock

    def _device(self, uuid: str) -> Fake:
        if uuid not in self.devices:
            raise _error(errno.ENXIO)
        return self.devices[uuid]


def story(mapper, lines: Sequence[Line], other: Sequence[Line], users) -> list[str]:
    """The same for a kernel and for the fake: what was asked, and the answer.

    Args:
        lines, other: two tables that the kernel takes.
        users: opens the device (of a kernel name) and returns what closes it."""
    told: list[str] = []

    def ask(words: str, call) -> None:
        try:
            told.append(f"{words}: {_words(call())}")
        except OSError as error:
            told.append(f"{words}: {errno.errorcode[error.errno]}")

    def seen(uuid: str) -> str:
        device = mapper.find(uuid)
        return _words(device if device is None else msgspec.structs.replace(device, number=0))

    one, two = "LVM-story-one", "LVM-story-two"
    wrong = [msgspec.structs.replace(lines[0], kind="nothing")]
    gap = [msgspec.structs.replace(lines[0], start_sectors=8)]
    ask("find what is not there", lambda: seen(one))
    ask("load into it", lambda: mapper.load(one, lines))
    ask("suspend it", lambda: mapper.suspend(one))
    ask("remove it", lambda: mapper.remove(one))
    ask("create", lambda: mapper.create("story-1", one) and None)
    ask("find", lambda: seen(one))
    ask("create that name", lambda: mapper.create("story-1", two) and None)
    ask("create that uuid", lambda: mapper.create("story-2", one) and None)
    ask("load a kind that nobody knows", lambda: mapper.load(one, wrong))
    ask("load with a gap", lambda: mapper.load(one, gap))
    ask("load nothing", lambda: mapper.load(one, []))
    ask("load", lambda: mapper.load(one, lines))
    ask("find", lambda: seen(one))
    ask("table", lambda: mapper.table(one))
    ask("resume", lambda: mapper.resume(one))
    ask("find", lambda: seen(one))
    ask("table", lambda: mapper.table(one) == tuple(lines))
    close = users(mapper.find(one).kernel)
    ask("find, open", lambda: seen(one))
    ask("remove, open", lambda: mapper.remove(one))
    ask("suspend", lambda: mapper.suspend(one))
    ask("suspend again", lambda: mapper.suspend(one))
    ask("find", lambda: seen(one))
    ask("load the other", lambda: mapper.load(one, other))
    ask("find", lambda: seen(one))
    ask("resume", lambda: mapper.resume(one))
    ask("resume again", lambda: mapper.resume(one))
    ask("table", lambda: mapper.table(one) == tuple(other))
    ask("rename", lambda: mapper.rename(one, "story-3"))
    ask("find", lambda: seen(one))
    ask("rename to a path", lambda: mapper.rename(one, "a/b"))
    ask("remove later", lambda: mapper.remove(one, deferred=True))
    ask("find", lambda: seen(one))
    close()
    ask("find, closed", lambda: seen(one))
    ask("create read-only", lambda: mapper.create("story-1", one, readonly=True) and None)
    ask("load read-only", lambda: mapper.load(one, lines, readonly=True))
    ask("resume", lambda: mapper.resume(one))
    ask("find", lambda: seen(one))
    ask("remove", lambda: mapper.remove(one))
    ask("find", lambda: seen(one))
    return told


def _words(answer: object) -> str:
    if isinstance(answer, Device):
        set_ = [name for name in ("suspended", "readonly", "active", "inactive") if getattr(answer, name)]
        return " ".join([answer.name, f"open={answer.open_count}", *set_])
    return repr(answer)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
