"""Without a rule about what is zeroed, wiped and opened.

Two rules keep others' data out of an LV: what is removed is wiped, and what is new is zeroed.  Each is enough
where the other was kept; so the story removes some LVs without a wipe."""

from collections.abc import Generator

from ringfence.engine.commands import activation, growing, lv
from ringfence.sim.mutants.table import Change, mutant
from ringfence.volumes import plan
from ringfence.volumes.model import Lv


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
