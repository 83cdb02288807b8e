"""Without a rule about what is zeroed, wiped and opened.

Two rules keep others' data out of an LV: what is removed is wiped, and what is new is zeroed.  Each is enough
where the other was kept; so the story removes some LVs without a wipe."""

from collections.abc import Generator

from ringfence.engine.commands import activation, growing, lv, wiping
from ringfence.sim.mutants.table import Change, mutant
from ringfence.volumes import plan, unclean
from ringfence.volumes.model import Lv, Vg


@mutant("unzeroed", "a new LV is not zeroed before it is opened", story="volumes")
def _() -> list[Change]:
    return [(lv, "zero_lv", lambda found, lv: iter(()))]


@mutant("grown-unzeroed", "what a little growth adds is not zeroed", story="volumes")
def _() -> list[Change]:
    return [(growing, "zero", lambda vg, extents: iter(()))]


@mutant("unclean-opened", "an LV is opened though it is being zeroed or wiped", story="volumes")
def _() -> list[Change]:
    def no_wait(vg: str, lv: Lv, wait_ms: int | None) -> Generator[None, None, int | None]:
        yield from ()
        return wait_ms

    return [(plan, "check_clean", lambda vg, lv: None), (activation, "await_zeroed", no_wait)]


@mutant("progress-early", "an extent is noted as done before it is", story="volumes")
def _() -> list[Change]:
    def note_done(vg: Vg, name: str, extents: int) -> Vg:
        lv = next(one for one in vg.lvs if one.name == name)
        return unclean.note_done(vg, name, min(extents + 1, lv.extent_count))

    return [(wiping, "note_done", note_done)]
