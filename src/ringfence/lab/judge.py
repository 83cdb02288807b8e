"""The judge: from the writers' logs and the volume itself, what was lost and what is foreign.

Writers come in the order in which they took the volume over: A, then B, ….  Each looked at the whole
volume first (its baseline) and looks at a slot again before it writes it anew.  (A host that takes
the volume over once more does so under another tag, with another log.)

lost      an acknowledged write that was not there, nor a later one of the same tag, when it next had
          to be: at its writer's own next look, at the successor's baseline, or at the end.  What was
          acknowledged to a writer after the successor had looked must be there at the end, or it is
          lost: the successor could not know of it.  No clock decides about a write; a frozen writer
          hears of its last one late.
foreign   a block of another tag that the last writer found, or that is there at the end, and that
          was not there at the last writer's baseline.
damaged   a slot whose bytes are no whole block of that slot, though no unanswered write explains it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ringfence.lab.stamps import (
    Acknowledged,
    Baseline,
    Failed,
    Found,
    Mismatch,
    Odd,
    Record,
    Started,
    read_log,
)

_NEVER_NS = 1 << 64


class Foreign(msgspec.Struct, frozen=True, order=True):
    slot: int
    offset_bytes: int
    length_bytes: int
    tag: str
    seq: int


class Verdict(msgspec.Struct, frozen=True):
    acknowledged_writes: int
    lost_writes: int
    foreign_blocks: tuple[Foreign, ...]
    damaged_slots: tuple[int, ...]
    refused_writes: int
    """Writes that the volume answered with an error."""
    lost: tuple[Found, ...]
    """The lost ones."""

    @property
    def clean(self) -> bool:
        return not (self.lost_writes or self.foreign_blocks or self.damaged_slots)

    def as_dict(self) -> dict[str, Any]:
        verdict: dict[str, Any] = msgspec.to_builtins(self)
        return verdict


class _Writer:
    """One log, taken apart."""

    def __init__(self, records: Sequence[Record]) -> None:
        starts = [one for one in records if isinstance(one, Started)]
        if not starts:
            raise ValueError("a log without a start")
        self.tag = starts[0].tag
        self.geometry = (starts[0].slots, starts[0].block_bytes)
        if any((one.tag, one.slots, one.block_bytes) != (self.tag, *self.geometry) for one in starts):
            raise ValueError(f"the runs in the log of {self.tag} do not write the same slots")
        self.records = records
        self.baselines = [one for one in records if isinstance(one, Baseline)]
        self.mismatches = [one for one in records if isinstance(one, Mismatch)]
        self.acknowledged = [one for one in records if isinstance(one, Acknowledged)]
        self.failed = [one for one in records if isinstance(one, Failed)]


def judge(logs: Sequence[Sequence[Record]], final: Sequence[Found]) -> Verdict:
    """
    Args:
        logs: each writer's records, in the order of take-over.
        final: what the volume holds now (`stamps.snapshot`).

    Raises ValueError: logs that do not belong together.
    """
    writers = [_Writer(records) for records in logs]
    if not writers:
        raise ValueError("no log to judge by")
    if len({writer.tag for writer in writers}) != len(writers):
        raise ValueError("two logs of one tag: give each writer a tag of its own")
    if any(writer.geometry != writers[0].geometry for writer in writers):
        raise ValueError("the logs are of different slots")
    if len(final) != writers[0].geometry[0]:
        told = writers[0].geometry[0]
        raise ValueError(f"the volume was read in {len(final)} slots, its logs tell of {told}")
    lost: list[Found] = []
    for index, writer in enumerate(writers):
        later = [other.baselines[0] for other in writers[index + 1 :] if other.baselines]
        lost += _lost(writer, later, final)
    return Verdict(
        sum(len(writer.acknowledged) for writer in writers),
        len(lost),
        _foreign(writers[-1], final),
        _damaged(writers, final),
        sum(1 for writer in writers for one in writer.failed if one.errno),
        tuple(lost),
    )


def judge_files(paths: Sequence[Path], final: Sequence[Found]) -> Verdict:
    """As `judge`.  Raises also OSError."""
    return judge([read_log(path) for path in paths], final)


def _lost(writer: _Writer, later: Sequence[Baseline], final: Sequence[Found]) -> list[Found]:
    """Walk its log; `current` is each slot's last acknowledged write that nobody has missed yet."""
    until_ns = later[0].began_ns if later else _NEVER_NS
    looks = [{found.slot: found for found in one.slots} for one in later]
    looks.append({found.slot: found for found in final})
    acknowledged = {(one.slot, one.seq) for one in writer.acknowledged}
    current: dict[int, int] = {}
    lost: list[Found] = []

    def miss(slot: int, seq: int) -> None:
        lost.append(Found(slot, writer.tag, seq))

    def kept(slot: int, seq: int, looks: Sequence[dict[int, Found]]) -> bool:
        return any(look[slot].tag == writer.tag and look[slot].seq >= seq for look in looks)

    for record in writer.records:
        if isinstance(record, Acknowledged):
            current[record.slot] = record.seq
        elif isinstance(record, Baseline) and record.began_ns < until_ns:
            own = [{found.slot: found for found in record.slots}]
            for slot, seq in sorted(current.items()):
                if not kept(slot, seq, own):
                    miss(slot, current.pop(slot))
        elif isinstance(record, Mismatch):
            for one in record.expected:
                if one.tag != writer.tag or (one.slot, one.seq) not in acknowledged:
                    continue
                if current.get(one.slot) == one.seq:
                    del current[one.slot]
                # A successor that has seen it may overwrite it.
                if record.at_ns < until_ns or not kept(one.slot, one.seq, looks[:-1]):
                    miss(one.slot, one.seq)
    for slot, seq in sorted(current.items()):
        if not kept(slot, seq, looks):
            miss(slot, seq)
    return lost


def _foreign(last: _Writer, final: Sequence[Found]) -> tuple[Foreign, ...]:
    at_baseline = {found for one in last.baselines[:1] for found in one.slots}
    strangers = {
        found
        for found in (*(one.found for one in last.mismatches), *final)
        if found.tag and found.tag != last.tag and found not in at_baseline
    }
    size = last.geometry[1]
    return tuple(sorted(Foreign(one.slot, one.slot * size, size, one.tag, one.seq) for one in strangers))


def _damaged(writers: Sequence[_Writer], final: Sequence[Found]) -> tuple[int, ...]:
    before = {one.slot for base in writers[0].baselines[:1] for one in base.slots if _is_damaged(one)}
    written = {one.slot for writer in writers for one in writer.acknowledged}
    torn = {one.slot for writer in writers for one in writer.failed}
    slots = {one.slot for one in (*_looks(writers), *final) if _is_damaged(one)}
    # A slot that nobody of us wrote may hold what it held before; an unanswered write may have left half.
    return tuple(sorted(slot for slot in slots - torn if slot in written or slot not in before))


def _looks(writers: Sequence[_Writer]) -> Iterator[Found]:
    """All that the writers saw after the first one's start."""
    for index, writer in enumerate(writers):
        for baseline in writer.baselines[1 if index == 0 else 0 :]:
            yield from baseline.slots
        for mismatch in writer.mismatches:
            yield mismatch.found


def _is_damaged(found: Found) -> bool:
    return found.odd == Odd.DAMAGED.value
