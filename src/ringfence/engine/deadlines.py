"""The authority pages: what each data path of this node may read as its deadline.

One page for grants and one per VG whose lockspace this node has joined.  A page is LOST for ever
once this life is stale; LAPSED holds writes until the page is renewed.  Volumes that were adopted look
at pages of earlier incarnations: from the adoption on these say what this life's own page says."""

from collections.abc import Collection

from ringfence.core.locknames import vg_of
from ringfence.engine.context import Context, Phase
from ringfence.engine.effects import LAPSED, LOST, UNCHECKED, SetDeadline
from ringfence.engine.slots import Slots


class Deadlines:
    def __init__(self, context: Context, slots: Slots) -> None:
        self._context = context
        self._slots = slots
        self._written: dict[tuple[int, str], int] = {}
        self._inherited: tuple[tuple[int, str], ...] = ()
        """Pages of earlier incarnations under which volumes of this life are open."""
        self._from: tuple[object, ...] = ()
        """All that the pages follow from, as it was when they were brought up to date; empty: not known."""

    def inherit(self, pages: Collection[tuple[int, str]]) -> None:
        """(incarnation, page): they stand as they are until their volumes are adopted."""
        self._inherited, self._from = tuple(sorted(set(pages))), ()

    def update(self, joined: list[str]) -> None:
        """Bring the pages up to date.  `joined`: lockspaces of this node."""
        context = self._context
        if context.phase is Phase.STALE:
            return
        grant_ns, write_ns = context.deadlines_ns()
        if self._stand((grant_ns, write_ns, context.left_open, context.config.naive, joined)):
            return
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
                self._write_inherited(page, LAPSED)
            else:
                by_disk_ns = self._slots.write_deadline_ns(vg)
                deadline_ns = write_ns if by_disk_ns is None else by_disk_ns
                self._write(page, max(deadline_ns, LAPSED))
                if deadline_ns:  # until then what the earlier life had earned holds on
                    self._write_inherited(page, deadline_ns)
        for one in [one for one in self._written if one[1] not in wanted]:
            self._set(one, LAPSED)
            del self._written[one]

    def _stand(self, from_what: tuple[object, ...]) -> bool:
        """Whether there is nothing to bring up to date, as at most steps.

        Where a lie holds writes, or disks may be asked (two_node), pages follow from more than this, and are
        looked at each time."""
        state = self._context.state
        lie = state is not None and any(victim.lied for victim in state.domain.victims)
        before, self._from = self._from, () if lie or self._context.config.two_node else from_what
        return before == self._from != ()

    def lose(self) -> None:
        """This life has lost everything: every page says so for ever."""
        mine = (self._context.life.incarnation, "grant")
        for one in sorted({mine, *self._written, *self._inherited}):
            self._set(one, LOST)

    def start(self) -> None:
        """A new incarnation has pages of its own."""
        self._written, self._inherited, self._from = {}, (), ()

    def _write(self, page: str, deadline_ns: int) -> None:
        self._set((self._context.life.incarnation, page), deadline_ns)

    def _write_inherited(self, page: str, deadline_ns: int) -> None:
        if not self._context.left_open:
            for one in self._inherited:
                if one[1] == page:
                    self._set(one, deadline_ns)

    def _set(self, page: tuple[int, str], deadline_ns: int) -> None:
        if self._written.get(page) != deadline_ns:
            self._written[page] = deadline_ns
            self._context.out(SetDeadline(*page, deadline_ns))
