"""Without a rule about what is zeroed, wiped and opened.

Two rules keep others' data out of an LV: what is removed is wiped, and what is new is zeroed.  Each is enough
where the other was kept; so the story removes some LVs without a wipe."""

from collections.abc import Generator
from typing import Any

import msgspec

from ringfence.engine import path_locks
from ringfence.engine.commands import activation, growing, lv, moving, wiping
from ringfence.engine.commands.activation import extents_of
from ringfence.engine.commands.moving import Use
from ringfence.engine.orders import MirrorPath, OpenPaths
from ringfence.sim.host import Host
from ringfence.sim.mirrored import Mirrored
from ringfence.sim.mutants.table import Change, mutant
from ringfence.volumes import moves, plan, unclean
from ringfence.volumes.discovery import VgOnDisk
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.moves import moved_segment
from ringfence.volumes.unclean import by_uuid
from ringfence.wire.block import Extent, begins_with


@mutant("unzeroed", "a new LV is not zeroed before it is opened", story="volumes")
def _() -> list[Change]:
    def nothing(found: VgOnDisk, lv: Lv) -> Generator[None, None, tuple[()]]:
        yield from ()
        return ()

    return [(lv, "zero_lv", nothing)]


@mutant("grown-unzeroed", "what a little growth adds is not zeroed", story="volumes")
def _() -> list[Change]:
    return [(growing, "zero", lambda vg, extents: iter(()))]


@mutant("unclean-opened", "an LV is opened though it is being zeroed or wiped", story="volumes")
def _() -> list[Change]:
    def no_wait(vg: str, lv: Lv, wait_ms: int | None) -> Generator[None, None, int | None]:
        yield from ()
        return wait_ms

    return [(plan, "check_clean", lambda vg, lv: None), (activation, "await_zeroed", no_wait)]


@mutant("reaps-mid-write", "a life is called closed while a write of a command is in flight", "slow-writes")
def _() -> list[Change]:
    return [(Host, "_can_be_closed", lambda self: True)]


@mutant("opened-unlocked", "a command opens an LV under a lock that another has let go of", story="met")
def _() -> list[Change]:
    return [
        (path_locks.PathLocks, "_may_open", lambda self, key, order, needs: True),
        (path_locks.PathLocks, "check_lock", lambda self, order: None),
    ]


@mutant("copied-in-use", "an LV is copied to where it moves whoever has it open", story="moved")
def _() -> list[Change]:
    def taken(work: object, vg: object, keeper: object) -> Generator[None, None, Use]:
        yield from ()
        return Use(None, None)

    return [(moving, "_taken", taken)]


@mutant("moved-early", "an LV is at its new place before the copy is complete; its path lets it", "moved")
def _() -> list[Change]:
    def mirrored(work: Any, found: Any, move: Any, use: Any) -> Generator[Any, Any, bool]:
        lv = by_uuid(found.vg, use.volume.uuid)
        assert lv is not None
        at, segment = moved_segment(lv, move)
        to = extents_of(found, msgspec.structs.replace(lv, segments=(segment,)))
        start_bytes = at * found.vg.extent_bytes
        yield MirrorPath(found.vg.name, use.volume.lv, use.volume.uuid, start_bytes, to, use.lock.token)
        return True

    def seal(self: Mirrored) -> object:
        self.moving = msgspec.structs.replace(self.moving, complete=True, sealed=True)
        return self.moving

    return [(moving, "_mirrored", mirrored), (Mirrored, "seal", seal)]


@mutant("unsealed", "a copy may still fail when the metadata name it; its path lets it", story="moved-sick")
def _() -> list[Change]:
    def check_becomes(self: Mirrored, extents: tuple[Extent, ...]) -> None:
        if not begins_with(tuple(extents), self._moved):
            becomes(self, extents)

    becomes = Mirrored.check_becomes
    return [
        (moving, "SealPath", lambda vg, lv, uuid: OpenPaths()),
        (Mirrored, "check_becomes", check_becomes),
    ]


@mutant("noted-early", "a slice counts as zeroed or wiped, in what is noted, before it is", story="volumes")
def _() -> list[Change]:
    def note_done(vg: Vg, lv: str, extents: int) -> Vg:
        found = next(one for one in vg.lvs if one.name == lv)
        return noted(vg, lv, min(extents + 1, found.extent_count))

    noted = unclean.note_done
    return [(wiping, "note_done", note_done)]


@mutant("uncopied", "a slice counts as copied before it is", story="moved")
def _() -> list[Change]:
    def copied(work: Any, found: Any, move: Any) -> Generator[Any, Any, bool]:
        yield from ()
        return True

    return [(moving, "_copied", copied)]


@mutant("old-place-freed", "what an LV had is free before its path has left it", story="moved")
def _() -> list[Change]:
    def freed(vg: Vg, keeper: Lv, move: moves.Move, *, in_use: bool) -> Vg:
        return moves.moved(vg, keeper, move, in_use=False)

    return [(moving, "moved", freed)]
