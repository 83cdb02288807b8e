"""Checker 5: a value block that is read is the last one written, or says "not valid".

Clients count in value blocks; each write bears a number of its own.  From what they asked and were told,
and from nothing else, follows what a read may return:

* a value that was written, and none that a later writer's answered write has replaced before the read
  was asked for.  (A write whose answer never came may have been carried out, or not.)
* nothing from before a holder of PW or EX was lost, for a reader whose mode could not be granted beside
  that holder: such a writer may have changed what the block describes.
* nothing from before a write that said "not valid" (IVVALBLK).
* all zeros only if the resource began anew since: a value block lives as long as some lock does.

Later is what bears the greater (token, session, count)."""

import struct
from dataclasses import dataclass, field

from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.sim.grips import Grip, compatible
from ringfence.sim.safety import SafetyViolation

_VALUE = struct.Struct("<8sQ")
_MAGIC = b"counter\0"
_BYTES = 32
Key = tuple[Token, int, int]


@dataclass(eq=False)
class Write:
    number: int
    """0: it says "not valid"."""
    key: Key
    begun_ns: int
    done_ns: int | None = None
    """When its answer came, or somebody read it."""


@dataclass(eq=False)
class _Block:
    writes: list[Write] = field(default_factory=list)
    lost: list[tuple[Key, Mode]] = field(default_factory=list)
    """Holders that ended without giving back."""
    fresh_ns: int = -1
    """When the resource was last seen to have no lock at all."""


class Counters:
    def __init__(self) -> None:
        self._blocks: dict[tuple[str, str], _Block] = {}
        self._last = 0
        self.reads = 0
        """Reads that returned a value."""
        self.invalid = 0
        self.promised = True
        """Whether anything is promised for these value blocks, whatever strikes in this world."""

    def begin(self, grip: Grip, now_ns: int, spoil: bool = False) -> tuple[Write, bytes]:
        """A holder writes with its next operation.  Returns the write, and the block's bytes."""
        self._last += 1
        number = 0 if spoil else self._last
        write = Write(number, (grip.token, grip.session, self._last), now_ns)
        self._block(grip).writes.append(write)
        return write, _VALUE.pack(_MAGIC, number).ljust(_BYTES, b"\0")

    def done(self, write: Write, now_ns: int) -> None:
        write.done_ns = now_ns if write.done_ns is None else write.done_ns

    def lost(self, grip: Grip) -> None:
        """The holder is gone, and did not give its lock back."""
        if grip.mode >= Mode.PW:
            self._last += 1
            self._block(grip).lost.append(((grip.token, grip.session, self._last), grip.mode))

    def fresh(self, space: str, resource: str, now_ns: int) -> None:
        """Nobody has any lock of the resource: the next one makes it anew."""
        self._blocks.setdefault((space, resource), _Block()).fresh_ns = now_ns

    def read(self, grip: Grip, mode: Mode, asked_ns: int, now_ns: int, lvb: bytes | None) -> None:
        """A grant in `mode` brought this value.  Raises SafetyViolation."""
        if lvb is None or not self.promised:
            self.invalid += 1
            return
        self.reads += 1
        block = self._block(grip)
        magic, number = _VALUE.unpack_from(lvb)
        where = f"5: {grip.host.name} reads {grip.lockspace}/{grip.resource}"
        if not any(lvb):
            after = [one for one in block.writes if one.done_ns is not None and one.begun_ns > block.fresh_ns]
            if any(one.done_ns is not None and one.done_ns <= asked_ns for one in after):
                raise SafetyViolation(f"{where} as if it had never been written")
            return
        read = next((one for one in block.writes if one.number == number != 0), None)
        if magic != _MAGIC or read is None:
            raise SafetyViolation(f"{where} with a value that nobody wrote: {lvb.hex()}")
        for one in block.writes:
            if one.key > read.key and one.done_ns is not None and one.done_ns <= asked_ns:
                what = f"value {one.number}" if one.number else '"not valid"'
                raise SafetyViolation(f"{where} with value {number}, though {what} was written since")
        for key, held in block.lost:
            if read.key < key and key[:2] < (grip.token, grip.session) and not compatible(mode, held):
                raise SafetyViolation(f"{where} with value {number}, though a writer was lost since")
        self.done(read, now_ns)

    def _block(self, grip: Grip) -> _Block:
        return self._blocks.setdefault((grip.lockspace, grip.resource), _Block())
