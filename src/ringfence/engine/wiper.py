"""LVs that are being zeroed or wiped: this node goes on with those that nobody else works on."""

from ringfence.core.units import sized
from ringfence.engine.background import Background
from ringfence.engine.commands.wiping import Cleansed, cleanse_all
from ringfence.engine.orders import Command
from ringfence.volumes.model import Lv, Vg
from ringfence.volumes.unclean import done_extents, size_of


class Wiper(Background):
    WORK = "wipe"

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
        waits = "" if where else self.waits_for(vg.name, lv.uuid)
        if waits:  # (it is read before its name is known)
            return f"{line}; not by this host: {waits.replace(lv.uuid, lv.name)}; trying again"
        trouble = self.troubles.get(vg.name, "")
        return f"{line}; {trouble}; trying again" if trouble else line

    def _command(self, vg: str, uuids: tuple[str, ...]) -> Command:
        return cleanse_all(vg, uuids)

    def _tell_done(self, vg: str, done: list[Cleansed]) -> None:
        for one in done:
            what = f"LV {vg}/{one.name} is {one.what}"
            what += ", and its extents are free" if one.what == "wiped" else ", and can be activated"
            self._context.record(f"lv-{one.what}", what, vg=vg, lv=one.name)

    def _tell_trouble(self, vg: str, trouble: str) -> None:
        what = f"VG {vg}: LVs are not zeroed or wiped to the end: {trouble}; trying again"
        self._context.record("wipe-failed", what, vg=vg)
