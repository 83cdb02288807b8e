"""LVs that are being zeroed or wiped: this node goes on with those that nobody else works on.

Which there are, of every VG, is in the ordered state since protocol 6 (`UncleanNoted`, said before the notice
of the change that made it so); what this host has seen on the disks when it started its VGs counts beside
it, for a state may have begun afresh.  An LV's own lock decides who works on it, so all may try; whoever
fails, tries again later.  One command a VG, which takes its LVs one after the other."""

import msgspec

from ringfence.core.errors import RingfenceError
from ringfence.core.units import sized
from ringfence.engine.commands.locking import space_of
from ringfence.engine.commands.wiping import Cleansed, cleanse_all
from ringfence.engine.context import Context
from ringfence.engine.tasks import Tasks
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.unclean import done_extents, size_of

BEGIN_MS = 500
"""After an LV has become unclean: whoever made it so has its lock yet, or zeroes it at once."""
AGAIN_MS = 5_000
"""Until a VG is looked at once more in which something is left to do."""


class _Vg(msgspec.Struct):
    runs: bool = False
    due_ns: int = 0
    seen: tuple[str, ...] = ()
    """Its unclean LVs when it was last looked at: new ones are begun with soon."""
    gone: tuple[str, ...] = ()
    """Of these, such as there is nothing to do of."""
    trouble: str = ""


class Wiper:
    def __init__(self, context: Context, tasks: Tasks) -> None:
        self._context = context
        self._tasks = tasks
        self._vgs: dict[str, _Vg] = {}

    def lost(self) -> None:
        """This life is stale."""
        self._vgs = {}
        self._context.unclean_seen.clear()

    def look(self) -> None:
        context = self._context
        state = context.running
        if state is None or not context.may_report or not (state.unclean or context.unclean_seen):
            return
        for vg in dict.fromkeys((*state.unclean, *context.unclean_seen)):
            one = self._vgs.setdefault(vg, _Vg())
            uuids = context.unclean(vg)
            if uuids != one.seen:
                one.seen, one.due_ns = uuids, context.now_ns + BEGIN_MS * 1_000_000
                one.gone = tuple(uuid for uuid in one.gone if uuid in uuids)
            wanted = tuple(uuid for uuid in uuids if uuid not in one.gone)
            if wanted and not one.runs and context.now_ns >= one.due_ns and self._may_begin(vg):
                self._begin(vg, one, wanted)

    def line(self, vg: Vg, lv: Lv) -> str:
        """How far an unclean LV is: by whoever works here, else by what stands in the metadata."""
        what = "wiped" if lv.wiping else "zeroed"
        size = size_of(vg, lv)
        done, where = done_extents(lv) * vg.extent_bytes, ""
        for task in self._tasks.running():
            told = task.progress
            if told is not None and (told.vg, told.lv) == (vg.name, lv.name):
                done, where = told.done_bytes, " by this host"
        percent = 100 * done / size if size else 100
        line = f"{vg.name}/{lv.name} is being {what}{where}: {percent:.2f} %, {sized(done)} of {sized(size)}"
        one = self._vgs.get(vg.name)
        return f"{line}; {one.trouble}; trying again" if one is not None and one.trouble else line

    def _may_begin(self, vg: str) -> bool:
        return self._context.is_in(space_of(vg)) and vg not in self._context.killed

    def _begin(self, vg: str, one: _Vg, uuids: tuple[str, ...]) -> None:
        one.runs = True

        def finished(answer: dict[str, object] | None, error: RingfenceError | None) -> None:
            one.runs = False
            one.due_ns = self._context.now_ns + AGAIN_MS * 1_000_000
            if error is not None or answer is None:
                self._tell_trouble(vg, one, str(error))
                return
            done, gone, kept = answer["done"], answer["gone"], answer["kept"]
            assert isinstance(done, list)
            assert isinstance(gone, list)
            assert isinstance(kept, list)
            one.gone = tuple(dict.fromkeys((*one.gone, *gone, *kept)))
            self._context.see_unclean(vg, [uuid for uuid in self._seen(vg) if uuid not in gone])
            self._tell_done(vg, done)
            self._tell_trouble(vg, one, str(answer["trouble"]))

        self._tasks.start(f"wipe {vg}", cleanse_all(vg, uuids), finished, gives_way=True)

    def _seen(self, vg: str) -> tuple[str, ...]:
        return self._context.unclean_seen.get(vg, ())

    def _tell_done(self, vg: str, done: list[Cleansed]) -> None:
        for one in done:
            what = f"LV {vg}/{one.name} is {one.what}"
            what += ", and its extents are free" if one.what == "wiped" else ", and can be activated"
            self._context.record(f"lv-{one.what}", what, vg=vg, lv=one.name)

    def _tell_trouble(self, vg: str, one: _Vg, trouble: str) -> None:
        if trouble and trouble != one.trouble:
            what = f"VG {vg}: LVs are not zeroed or wiped to the end: {trouble}; trying again"
            self._context.record("wipe-failed", what, vg=vg)
        one.trouble = trouble
