"""A VG's versions, as stock commands announce them, and what becomes of them."""

from ringfence.core.locknames import GLOBAL_SPACE, VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine.commands.locking import (
    GLOBAL_RESOURCE,
    VG_RESOURCE,
    Version,
    parse_lvb,
    print_lvb,
)
from ringfence.engine.context import Context
from ringfence.engine.lvmlockd.sessions import Session, Where
from ringfence.engine.uses import Use
from ringfence.wire import entries


class Versions:
    def __init__(self, context: Context) -> None:
        self._context = context

    def value(self, session: Session, where: Where, use: Use) -> bytes | None:
        """What goes into the value block as a lock goes down from EX; None: what is there stays."""
        if use.held is None or use.held.mode is not Mode.EX:
            return None
        if where == (GLOBAL_SPACE, GLOBAL_RESOURCE):
            version = parse_lvb(use.held.lvb) or Version(0)
            return print_lvb(Version(version.number + 1))
        number = session.versions.pop(where[0], None) if where[1] == VG_RESOURCE else None
        if number is None:
            return None
        self.publish(session, where[0].removeprefix(VG_SPACE), number)
        return print_lvb(Version(number))

    def publish(self, session: Session, vg: str, version: int) -> None:
        """Tell every node that a stock command has changed a VG."""
        me = self._context.name(self._context.me)
        self._context.submit(entries.VolumeNotice(vg, version, 0, f"{me}: {session.who}"))

    def following(self, space: str, use: Use | None) -> int:
        """Which seqno a change of the VG gets that is locked by `use`."""
        before = parse_lvb(use.held.lvb) if use is not None and use.held is not None else None
        state = self._context.state
        told = state.vgs.get(space.removeprefix(VG_SPACE)) if state is not None else None
        return max(before.number if before is not None else 0, told.seqno if told is not None else 0) + 1
