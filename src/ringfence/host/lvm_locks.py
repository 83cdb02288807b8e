"""The locks that stock LVM2 has through this host's daemon, for the daemon that follows it in this boot.

RUN/lvm-locks, in memory (tmpfs): it need not survive a power cut, for neither do the locks.  One slot of
512 bytes a lock, so that to note and to strike one costs one write each, however many there are, and the
file never has to be written anew:

    slot 0      b"ringfence-lvm-locks 1 " boot-id [b" lost"] b"\\n", padded with NULs
    slot n      empty (NULs), or a lock: JSON (`wire.lvmlockd.LvmLock` as an array), padded with NULs

The state after a kill at any point: a write of one slot is one system call within one page, so the slot is
as it was or as it shall be.  A file that ends within a slot (no room was left) ends before that slot: the
call that wrote it has failed, and its lock was told to nobody.

"lost": the life that had these locks is over for the cluster; what LVM2 has active under them is being cut
(`host.mapper`), and no later daemon may adopt it.  A file of another boot holds nothing.

Documented in docs/formats/lvm-locks.md."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ringfence.core.errors import Damaged, DeviceFailed
from ringfence.wire.lvmlockd import LvmLock

SLOT_BYTES = 512
MAGIC = b"ringfence-lvm-locks 1 "
LOST = b" lost"
_WHAT_AT_MOST = 100

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(LvmLock).decode

Key = tuple[str, str, int, int]


def read_locks(path: Path, boot: str) -> tuple[tuple[LvmLock, ...], bool]:
    """(the locks noted, whether they are lost), for who only looks while the daemon writes.

    Nothing is noted where there is no file, or one of another boot.

    Raises OSError; ValueError: a slot is being written, or the file is damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return (), False
    head = data[:SLOT_BYTES].rstrip(b"\0\n")
    if head.removesuffix(LOST) != MAGIC + boot.encode():
        return (), False
    slots = (data[at : at + SLOT_BYTES].rstrip(b"\0") for at in range(SLOT_BYTES, len(data), SLOT_BYTES))
    return tuple(_decode(slot) for slot in slots if slot), head.endswith(LOST)


class LvmLocks:
    """The file, open for the daemon that holds its root's lock.

    Args:
        path: made if it is not there.
        boot: this boot's id.

    Raises:
        DeviceFailed: it cannot be read or made.
        Damaged: it is no such file, though of this boot perhaps: what LVM2 has active is not known."""

    def __init__(self, path: Path, boot: str) -> None:
        self._path = path
        self._head = MAGIC + boot.encode()
        self._slots: dict[Key, int] = {}
        self._free: list[int] = []
        self._end = 1
        self._locks: dict[Key, LvmLock] = {}
        self.lost = False
        """These locks are over; see above."""
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            data = os.read(self._fd, os.fstat(self._fd).st_size)
        except OSError as error:
            raise self._failed(error) from None
        if data:
            self._read(data)
        else:
            self.clear()

    def locks(self) -> tuple[LvmLock, ...]:
        """All, as of now."""
        return tuple(self._locks.values())

    def keep(self, kept: Iterable[LvmLock], gone: Iterable[LvmLock]) -> None:
        """Note and strike off; the file has it when this returns.

        Raises DeviceFailed: what was to be noted is not, and must be told to nobody."""
        try:
            for lock in gone:
                self._strike(lock.key)
            for lock in kept:
                self._note(lock)
        except OSError as error:
            raise self._failed(error) from None

    def lose(self) -> None:
        """No later daemon adopts any of these.  Raises DeviceFailed."""
        self.lost = True
        self._write_head()

    def clear(self) -> None:
        """All of them are over, and nothing of LVM2's under them is active any more.  Raises DeviceFailed."""
        self._slots, self._free, self._end, self._locks = {}, [], 1, {}
        self.lost = False
        try:
            os.ftruncate(self._fd, 0)
        except OSError as error:
            raise self._failed(error) from None
        self._write_head()

    def close(self) -> None:
        os.close(self._fd)

    def _note(self, lock: LvmLock) -> None:
        key, data = lock.key, _encode(lock)
        if len(data) > SLOT_BYTES:
            data = _encode(msgspec.structs.replace(lock, what=lock.what[:_WHAT_AT_MOST]))
        assert len(data) <= SLOT_BYTES, lock
        slot = self._slots.get(key)
        if slot is None:
            slot = self._free.pop() if self._free else self._end
        self._write(slot, data)
        self._end = max(self._end, slot + 1)
        self._slots[key] = slot
        self._locks[key] = lock

    def _strike(self, key: Key) -> None:
        slot = self._slots.pop(key, None)
        if slot is not None:
            del self._locks[key]
            self._free.append(slot)
            self._write(slot, b"")

    def _write_head(self) -> None:
        try:
            self._write(0, self._head + (LOST if self.lost else b"") + b"\n")
        except OSError as error:
            raise self._failed(error) from None

    def _write(self, slot: int, data: bytes) -> None:
        if os.pwrite(self._fd, data.ljust(SLOT_BYTES, b"\0"), slot * SLOT_BYTES) != SLOT_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _read(self, data: bytes) -> None:
        head = data[:SLOT_BYTES].rstrip(b"\0")
        if not head.startswith(MAGIC) or not head.endswith(b"\n"):
            raise self._damaged("its head is not of such a file")
        if head.removesuffix(b"\n").removesuffix(LOST) != self._head:
            self.clear()
            return
        self.lost = head.removesuffix(b"\n").endswith(LOST)
        for slot in range(1, len(data) // SLOT_BYTES):
            here = data[slot * SLOT_BYTES : (slot + 1) * SLOT_BYTES].rstrip(b"\0")
            self._end = slot + 1
            if not here:
                self._free.append(slot)
                continue
            try:
                lock = _decode(here)
            except msgspec.MsgspecError as error:
                raise self._damaged(f"slot {slot}: {error}") from None
            self._slots[lock.key], self._locks[lock.key] = slot, lock

    def _failed(self, error: OSError) -> DeviceFailed:
        return DeviceFailed(
            f"cannot keep {self._path}: {error.strerror}", next=f"make room under {self._path.parent}"
        )

    def _damaged(self, what: str) -> Damaged:
        return Damaged(
            f"{self._path} is damaged ({what}): it is not known what LVM2 has active here",
            next=f"vgchange -an (LVM2's own) on every shared VG, then remove {self._path}",
        )
