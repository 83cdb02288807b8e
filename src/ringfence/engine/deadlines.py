"""The authority pages: what each data path of this node may read as its deadline.

One page for grants and one per VG whose lockspace this node has joined.  A page is LOST for ever
once this life is stale; LAPSED holds writes until the page is renewed."""

from ringfence.engine.context import Context, Phase
from ringfence.engine.effects import LAPSED, LOST, UNCHECKED, SetDeadline

VG_SPACE = "lvm_"
GLOBAL_SPACE = "lvm_global"


def vg_of(lockspace: str) -> str | None:
    """The VG behind a lockspace name, as lvmlockd names them; None for any other lockspace."""
    if lockspace.startswith(VG_SPACE) and lockspace != GLOBAL_SPACE:
        return lockspace.removeprefix(VG_SPACE)
    return None


class Deadlines:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._written: dict[str, int] = {}

    def update(self, joined: list[str]) -> None:
        """Bring the pages up to date.  `joined`: lockspaces of this node."""
        context = self._context
        if context.phase is Phase.STALE:
            return
        grant_ns, write_ns = context.deadlines_ns()
        self._write("grant", UNCHECKED if context.config.naive else max(grant_ns, LAPSED))
        wanted = {"grant"}
        for lockspace in joined:
            vg = vg_of(lockspace)
            if vg is None:
                continue
            page = f"vg/{vg}"
            wanted.add(page)
            if context.config.naive:
                self._write(page, UNCHECKED)
            elif context.state is not None and context.state.lied(lockspace):
                self._write(page, LAPSED)
            else:
                self._write(page, max(write_ns, LAPSED))
        for page in [one for one in self._written if one not in wanted]:
            self._write(page, LAPSED)
            del self._written[page]

    def lose(self) -> None:
        """This life has lost everything: every page says so for ever."""
        for page in sorted({"grant", *self._written}):
            self._write(page, LOST)

    def start(self) -> None:
        """A new incarnation has pages of its own."""
        self._written = {}

    def _write(self, page: str, deadline_ns: int) -> None:
        if self._written.get(page) != deadline_ns:
            self._written[page] = deadline_ns
            self._context.out(SetDeadline(self._context.life.incarnation, page, deadline_ns))
