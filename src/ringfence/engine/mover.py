"""LVs that are on their way to other extents: this node goes on with those that it may, and nobody else does.

Which LVs keep extents for others stands among those that are unclean (`background`); of these the metadata
tell which they are.  So a move that was begun outlives its command, its daemon and its host, and an LV that
is open is moved by whoever has it open, without being asked."""

from ringfence.engine.background import Background
from ringfence.engine.commands.pvmove import move_all
from ringfence.engine.orders import Command
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.moves import keepers


class Mover(Background):
    WORK = "move"

    def lines(self, vg: Vg, lv: Lv) -> list[str]:
        """Why an LV that is on its way, or what is kept for it, is not moved by this host just now."""
        found = []
        for keeper in keepers(vg):
            waits = self.waits_for(vg.name, keeper.uuid)
            if waits and lv.uuid in (keeper.uuid, keeper.keeps_for):
                found.append(f"{vg.name}/{lv.name} is being moved, not by this host: {waits}; trying again")
        return found

    def _command(self, vg: str, uuids: tuple[str, ...]) -> Command:
        return move_all(vg, uuids)

    def _tell_done(self, vg: str, done: list[str]) -> None:
        for name in done:
            self._context.record("lv-moved", f"LV {vg}/{name} is where it was to go", vg=vg, lv=name)

    def _tell_trouble(self, vg: str, trouble: str) -> None:
        self._context.record("move-failed", f"VG {vg}: an LV is not moved: {trouble}", vg=vg)
