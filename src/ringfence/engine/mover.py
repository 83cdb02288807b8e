"""LVs that are on their way to other extents: this node goes on with those that it may, and nobody else does.

Which LVs keep extents for others stands among those that are unclean (`wiper`); of these the metadata tell
which they are.  So a move that was begun outlives its command, its daemon and its host, and an LV that is
open is moved by whoever has it open, without being asked.  One command a VG, one LV after the other."""

import msgspec

from ringfence.core.errors import RingfenceError
from ringfence.engine.commands.locking import space_of
from ringfence.engine.commands.pvmove import move_all
from ringfence.engine.context import Context
from ringfence.engine.tasks import Tasks

BEGIN_MS = 500
"""After there is something new: whoever asked for it does it at once."""
AGAIN_MS = 5_000


class _Vg(msgspec.Struct):
    runs: bool = False
    due_ns: int = 0
    seen: tuple[str, ...] = ()
    """Its unclean LVs when it was last looked at."""
    over: bool = False
    """None of these is on its way."""
    trouble: str = ""


class Mover:
    def __init__(self, context: Context, tasks: Tasks) -> None:
        self._context = context
        self._tasks = tasks
        self._vgs: dict[str, _Vg] = {}

    def lost(self) -> None:
        """This life is stale."""
        self._vgs = {}

    def look(self) -> None:
        context = self._context
        state = context.running
        if state is None or not context.may_report or not (state.unclean or context.unclean_seen):
            return
        for vg in dict.fromkeys((*state.unclean, *context.unclean_seen)):
            one = self._vgs.setdefault(vg, _Vg())
            uuids = context.unclean(vg)
            if uuids != one.seen:
                one.seen, one.over, one.due_ns = uuids, False, context.now_ns + BEGIN_MS * 1_000_000
            if uuids and not one.over and not one.runs and context.now_ns >= one.due_ns and self._may(vg):
                self._begin(vg, one, uuids)

    def _may(self, vg: str) -> bool:
        return self._context.is_in(space_of(vg)) and vg not in self._context.killed

    @property
    def troubles(self) -> dict[str, str]:
        """VG -> why an LV of it is not moved by this node."""
        return {vg: one.trouble for vg, one in self._vgs.items() if one.trouble}

    def _begin(self, vg: str, one: _Vg, uuids: tuple[str, ...]) -> None:
        one.runs = True

        def finished(answer: dict[str, object] | None, error: RingfenceError | None) -> None:
            one.runs = False
            one.due_ns = self._context.now_ns + AGAIN_MS * 1_000_000
            trouble = str(error) if error is not None or answer is None else str(answer["trouble"])
            if answer is not None:
                done, gone = answer["done"], answer["gone"]
                assert isinstance(done, list)
                assert isinstance(gone, list)
                one.over = not answer["left"] and uuids == one.seen
                seen = self._context.unclean_seen.get(vg, ())
                self._context.see_unclean(vg, [uuid for uuid in seen if uuid not in gone])
                for name in done:
                    self._context.record("lv-moved", f"LV {vg}/{name} is where it was to go", vg=vg, lv=name)
            if trouble and trouble != one.trouble:
                self._context.record("move-failed", f"VG {vg}: an LV is not moved: {trouble}", vg=vg)
            one.trouble = trouble

        self._tasks.start(f"move {vg}", move_all(vg, uuids), finished, gives_way=True)
