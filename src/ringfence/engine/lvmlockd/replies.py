"""What stock commands are told, and what of it the daemon's log is."""

import errno
from collections.abc import Callable

from ringfence.core.errors import LocksLost, NotFound, RingfenceError
from ringfence.core.locknames import VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine.context import Context
from ringfence.engine.effects import LvmAnswer, Note
from ringfence.engine.lvmlockd.recent import Recent
from ringfence.engine.lvmlockd.sessions import PERSISTENT, Session, what
from ringfence.wire.lvmlockd import ELMERR, ENOLS, MODES, LvmAnswered, LvmAsked

NO_LOCKSPACES = "NO_LOCKSPACES"


class Replies:
    """Args:
    shared: called with a VG and an LV's uuid that is about to be active in shared mode.
    recent: hears of every answer."""

    def __init__(self, context: Context, shared: Callable[[str, str], None], recent: Recent) -> None:
        self._context = context
        self._shared = shared
        self._recent = recent

    def answer(
        self,
        session: Session,
        result: int,
        *,
        flags: tuple[str, ...] = (),
        mode: str = "",
        holder: str = "",
    ) -> None:
        """Args: holder: the node that is in the way."""
        asked, session.asked, session.until_ns, session.lock = session.asked, None, 0, 0
        session.why = ""
        if asked is None:
            return  # its connection ended
        self._recent.answered(self._context.wall_ms, session.who, asked, result)
        if result == 0 and asked.mode == "sh" and PERSISTENT in asked.opts:
            self._shared(asked.vg_name, asked.lv_uuid)
        if result == -ENOLS and not self._started_any:
            flags = (*flags, NO_LOCKSPACES)
        nodes = self._context.config.nodes if holder else ()
        number = next((node.id for node in nodes if node.name == holder), 0)
        answered = LvmAnswered(asked.op, result, flags=flags, mode=mode, holder=number, holder_name=holder)
        self._context.out(LvmAnswer(session.client, answered))

    @property
    def _started_any(self) -> bool:
        state = self._context.state
        names = state.lockspaces if state is not None else ()
        return any(name.startswith(VG_SPACE) and self._context.is_in(name) for name in names)

    def refused(self, session: Session, asked: LvmAsked, error: RingfenceError | None) -> None:
        assert error is not None
        self.note(session, asked, error.message)
        if isinstance(error, NotFound):
            self.answer(session, -ENOLS)
        elif isinstance(error, LocksLost):
            self.answer(session, -ELMERR)
        else:
            self.answer(session, -errno.EAGAIN, holder=error.node)

    def note(self, session: Session, asked: LvmAsked, why: str) -> None:
        """In the log: who wanted what, and why not."""
        about = what(asked)
        why = why.removeprefix(about).lstrip(": ").removeprefix("is ")
        wants = {"un": "to let it go", "": f"{asked.op}"}.get(asked.mode)
        wants = wants or MODES.get(asked.mode, Mode.UN).name
        self._context.out(Note("lvmlockd", f"{about}: {session.who} wants {wants}, {why}"))
