"""The checker of volumes: `lab.judge`, and whether what it found was reported.

A write that landed after its host's authority had ended is allowed if an incident tells of it (see the
table in docs/ARCHITECTURE.md).  One gap is known and counted apart: power that is cut between such a
write and its report.  It can only be the write that was in flight when its client ended."""

from collections.abc import Sequence

import msgspec

from ringfence.core.ids import Token
from ringfence.lab.judge import judge
from ringfence.lab.stamps import Acknowledged, Failed, Found, Record, Started, Stopped
from ringfence.wire.entries import Incident


class VolumeVerdict(msgspec.Struct, frozen=True):
    violations: tuple[str, ...]
    writers: int
    acknowledged: int
    refused: int
    reported: int
    """Blocks that a reported late write explains."""
    unreported: int
    """Blocks that a write in flight explains whose client ended with its host."""


def check_volume(
    volume: str, logs: Sequence[Sequence[Record]], final: Sequence[Found], incidents: Sequence[Incident]
) -> VolumeVerdict:
    """
    Args:
        volume: "VG/LV".
        logs: of all its writers, in any order; those that never began are left out.
        final: what the volume holds now.

    Raises ValueError: logs that do not belong together.
    """
    writers = sorted((log for log in logs if _start(log) is not None), key=_order)
    if not writers:
        return VolumeVerdict((f"{volume}: nobody ever wrote to it",), 0, 0, 0, 0, 0)
    verdict = judge(writers, final)
    flying = {one.slot for one in map(_in_flight, writers) if one is not None}
    violations: list[str] = []
    reported = unreported = 0
    size = started(writers[0]).block_bytes
    wrong = [
        (one.slot, f"{volume}: the acknowledged write {one.seq} of {one.tag} is lost") for one in verdict.lost
    ]
    wrong += [
        (one.slot, f"{volume}: slot {one.slot} holds write {one.seq} of {one.tag}, which is not its turn")
        for one in verdict.foreign_blocks
    ]
    wrong += [(slot, f"{volume}: slot {slot} is damaged") for slot in verdict.damaged_slots]
    for slot, what in wrong:
        if any(_explains(one, volume, slot * size, size) for one in incidents):
            reported += 1
        elif slot in flying:
            unreported += 1
        else:
            violations.append(what)
    return VolumeVerdict(
        tuple(violations),
        len(writers),
        verdict.acknowledged_writes,
        verdict.refused_writes,
        reported,
        unreported,
    )


def started(log: Sequence[Record]) -> Started:
    first = _start(log)
    assert first is not None
    return first


def _start(log: Sequence[Record]) -> Started | None:
    return next((one for one in log if isinstance(one, Started)), None)


def _order(log: Sequence[Record]) -> tuple[Token, int]:
    """Of take-over."""
    first = started(log)
    return Token.parse(first.token), first.at_ns


def _in_flight(log: Sequence[Record]) -> Found | None:
    """The write that a writer which ended without a word may have sent."""
    first, last = started(log), log[-1]
    if isinstance(last, Stopped):
        return None
    if isinstance(last, Acknowledged | Failed):
        return Found((last.slot + 1) % first.slots, first.tag, last.seq + 1)
    return Found(0, first.tag, 1)


def _explains(incident: Incident, volume: str, offset_bytes: int, length_bytes: int) -> bool:
    """Whether it tells of a write to this range that landed late.  (A refused one has not landed.)"""
    return (
        incident.kind == "write-late"
        and incident.volume == volume
        and incident.offset_bytes <= offset_bytes
        and offset_bytes + length_bytes <= incident.offset_bytes + incident.length_bytes
    )
