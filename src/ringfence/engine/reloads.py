"""This node's own open paths follow their VGs: whatever changes a VG, what is open of it is looked at
(`commands.reload`), and reloaded where the new metadata says otherwise.

Where the notice of a change says which LVs it touched, those alone are looked at, and nothing is read if
none of them is open.  One look at a VG at a time; changes that come meanwhile are looked at together,
after it.  What could not be reloaded goes on as it was, is shown as broken, and is tried again."""

from collections.abc import Sequence

import msgspec

from ringfence.core.errors import RingfenceError
from ringfence.engine.commands.reload import reload_changed
from ringfence.engine.context import Context
from ringfence.engine.facts import VgChanged
from ringfence.engine.orders import OpenPath, ReloadPath
from ringfence.engine.tasks import Tasks
from ringfence.lvm2.images import section_uuid

AGAIN_MS = 1_000
"""After a look or a reload that failed."""
LOOK = "reload"
"""What a look is called among the commands."""


class _Vg(msgspec.Struct):
    due_ns: int = 0
    """When to look; 0: there is no reason to."""
    all: bool = False
    """Which: all that are open."""
    lvs: dict[str, None] = {}
    """Or these, by uuid."""
    runs: bool = False
    failed: dict[str, str] = {}
    """VG/LV -> why, of those that are not as the metadata says."""
    trouble: str = ""
    """Why the last look told nothing."""


class Reloads:
    def __init__(self, context: Context, tasks: Tasks) -> None:
        self._context = context
        self._tasks = tasks
        self._vgs: dict[str, _Vg] = {}
        tasks.was_opened = self._opened
        tasks.was_reloaded = self._reloaded

    # -- reasons to look -------------------------------------------------------------------

    def changed(self, fact: VgChanged) -> bool:
        """Returns whether there is something to look at."""
        if fact.delta is None:
            return self._due(fact.vg)
        opened = self._tasks.opened
        uuids = (section_uuid(section) for splice in fact.delta.splices for section in splice.lvs)
        lvs = dict.fromkeys(uuid for uuid in uuids if (fact.vg, uuid) in opened)
        return self._due(fact.vg, lvs) if lvs else False

    def entered(self) -> None:
        """This node runs in a new epoch: it may have missed changes, or taken paths over."""
        for vg in dict.fromkeys(vg for vg, _ in self._tasks.opened):
            self._due(vg)

    def _opened(self, opened: Sequence[OpenPath]) -> None:
        """They may have changed between the look at their metadata and their opening."""
        seqnos = {vg: self._seqno(vg) for vg in dict.fromkeys(one.vg for one in opened)}
        for one in opened:
            if seqnos[one.vg] > one.seqno:
                self._due(one.vg, {one.uuid: None})

    def _reloaded(self, order: ReloadPath, what: str) -> None:
        """Perhaps ahead of a change that is never committed (`commands.narrow`)."""
        if what == LOOK:
            return
        self._due(order.vg, {order.uuid: None})

    def _due(self, vg: str, lvs: dict[str, None] | None = None) -> bool:
        """Args: lvs: these, by uuid; None: all that are open.  Returns whether any is open."""
        if not any(opened == vg for opened, _ in self._tasks.opened):
            return False
        one = self._vgs.setdefault(vg, _Vg())
        one.due_ns = self._context.now_ns
        one.all |= lvs is None
        one.lvs |= lvs or {}
        return True

    def lost(self) -> None:
        """This life is stale."""
        self._vgs = {}

    # -- looking ---------------------------------------------------------------------------

    def look(self) -> None:
        if not self._allowed():
            return
        for vg, one in self._vgs.items():
            if one.due_ns and one.due_ns <= self._context.now_ns and not one.runs:
                self._begin(vg, one)

    def _begin(self, vg: str, one: _Vg) -> None:
        every, lvs = one.all, () if one.all else tuple(one.lvs)
        one.due_ns, one.runs, one.all, one.lvs = 0, True, False, {}

        def finished(failed: dict[str, str] | None, error: RingfenceError | None) -> None:
            one.runs = False
            trouble = str(error) if error is not None else ""
            if trouble and trouble != one.trouble:
                what = f"VG {vg} has changed, and which of its open LVs did is not known: {trouble}"
                self._context.record("refresh-failed", what, vg=vg)
            for name, why in (failed or {}).items():
                if one.failed.get(name) != why:
                    self._context.record("refresh-failed", f"LV {name} was not reloaded: {why}", vg=vg)
            one.trouble = trouble
            if failed is not None:
                one.failed = failed
            if trouble or one.failed:
                one.all |= every
                one.lvs |= dict.fromkeys(lvs)
                one.due_ns = one.due_ns or self._context.now_ns + AGAIN_MS * 1_000_000

        self._tasks.start(LOOK, reload_changed(vg, self._allowed, self._seqno(vg), lvs), finished)

    @property
    def wrong(self) -> dict[str, str]:
        """VG/LV -> what is wrong with its path."""
        return {
            name: f"as it was before its last change: {why}"
            for one in self._vgs.values()
            for name, why in one.failed.items()
        }

    def _allowed(self) -> bool:
        """A lock that may be another's by now is no reason to load a table."""
        return self._context.running is not None and self._context.may_report

    def _seqno(self, vg: str) -> int:
        state = self._context.state
        version = state.vgs.get(vg) if state is not None else None
        return version.seqno if version is not None else 0
