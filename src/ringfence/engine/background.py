"""Work on unclean LVs that this node goes on with by itself, whoever began it: what wiping and moving share.

Which LVs are unclean, of every VG, is in the ordered state since protocol 6 (`UncleanNoted`, said before the
notice of the change that made it so); what this host has seen on the disks when it started its VGs counts
beside it, for a state may have begun afresh.  An LV's own lock decides who works on it, so all may try;
whoever fails, tries again later.  One command a VG and kind of work, for one of its LVs after the other."""

from abc import ABC, abstractmethod
from typing import Any

import msgspec

from ringfence.core.errors import RingfenceError
from ringfence.engine.commands.locking import space_of
from ringfence.engine.context import Context
from ringfence.engine.orders import Command
from ringfence.engine.tasks import Tasks

BEGIN_MS = 500
"""After an LV has become unclean: whoever made it so has its lock yet, or does the work at once."""
AGAIN_MS = 5_000
"""Until a VG is looked at once more in which something is left to do."""


class _Vg(msgspec.Struct):
    runs: bool = False
    due_ns: int = 0
    seen: tuple[str, ...] = ()
    """Its unclean LVs when it was last looked at: new ones are begun with soon."""
    idle: tuple[str, ...] = ()
    """Of these, such as there is nothing of this kind to do of."""
    trouble: str = ""
    waits: dict[str, str] = {}
    """LV's uuid -> why this node did nothing, or not all, of it when it looked last."""


class Background(ABC):
    """One kind of work."""

    WORK = ""
    """What its commands are called: `WORK vg0`."""

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
                one.idle = tuple(uuid for uuid in one.idle if uuid in uuids)
            wanted = tuple(uuid for uuid in uuids if uuid not in one.idle)
            if wanted and not one.runs and context.now_ns >= one.due_ns and self._may_begin(vg):
                self._begin(vg, one, wanted)

    @property
    def troubles(self) -> dict[str, str]:
        """VG -> what is in the way of its LVs, as this node met it last."""
        return {vg: one.trouble for vg, one in self._vgs.items() if one.trouble}

    def waits_for(self, vg: str, uuid: str) -> str:
        """What this node waits for with an LV, as it met it last; empty: for nothing that it knows of."""
        return self._vgs[vg].waits.get(uuid, "") if vg in self._vgs else ""

    def _may_begin(self, vg: str) -> bool:
        return self._context.is_in(space_of(vg)) and vg not in self._context.killed

    def _begin(self, vg: str, one: _Vg, uuids: tuple[str, ...]) -> None:
        one.runs = True

        def finished(answer: dict[str, Any] | None, error: RingfenceError | None) -> None:
            one.runs = False
            one.due_ns = self._context.now_ns + AGAIN_MS * 1_000_000
            if answer is not None:
                gone: list[str] = answer["gone"]
                one.idle = tuple(dict.fromkeys((*one.idle, *gone, *answer["kept"])))
                seen = self._context.unclean_seen.get(vg, ())
                self._context.see_unclean(vg, [uuid for uuid in seen if uuid not in gone])
                self._tell_done(vg, answer["done"])
            trouble = str(error) if answer is None else str(answer["trouble"])
            if trouble and trouble != one.trouble:
                self._tell_trouble(vg, trouble)
            one.trouble, one.waits = trouble, answer["waits"] if answer is not None else {}

        self._tasks.start(f"{self.WORK} {vg}", self._command(vg, uuids), finished, gives_way=True)

    @abstractmethod
    def _command(self, vg: str, uuids: tuple[str, ...]) -> Command:
        """Works on those of these LVs that it may.

        Answer: {"done": [what `_tell_done` takes], "gone": [uuid: there is no such LV any more], "kept":
        [uuid: there is nothing of this kind to do of it], "trouble": a line, or empty, "waits": {uuid: why it
        is not through}}."""

    @abstractmethod
    def _tell_done(self, vg: str, done: list[Any]) -> None: ...

    @abstractmethod
    def _tell_trouble(self, vg: str, trouble: str) -> None: ...
