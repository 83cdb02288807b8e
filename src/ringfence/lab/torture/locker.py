"""A torture client that takes locks: `python -m ringfence.lab.torture.locker ROOT LOGS CLIENT NODE SEED`.

It requests, converts and releases locks of all modes, and uses what they protect: a use is a look (held,
authority valid), a moment, and a second look.  On each lockspace's counter it parks an NL lock, as
lvmlockd does, and converts that to read the value block or to write the next one.

SIGTERM: it asks for nothing new, and ends when what it asked for is answered."""

import contextlib
import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from ringfence.core.errors import LocksLost, RingfenceError, Unavailable
from ringfence.host.clock import boottime_ns
from ringfence.host.pages import Authority, state_of
from ringfence.lab.torture import dlm
from ringfence.lab.torture.dlm import Dlm, Hold
from ringfence.lab.torture.history import (
    After,
    Asked,
    Converting,
    Granted,
    HistoryWriter,
    Lost,
    Refused,
    Released,
    Releasing,
    Started,
    Used,
)
from ringfence.lab.torture.names import COUNTER, RESOURCES, SPACES

MODES = {"EX": 6, "PR": 5, "PW": 2, "CW": 2, "CR": 2}
WAITS_MS = (None, None, 0, 400, 2500)
USE_MS = (4.0, 4.0, 4.0, 4.0, 60.0)
"""At most; one in a few is long enough to be met by a freeze."""
REST_MS = 30.0
TURNS = (1, 2, 4, 40)
"""Uses of one lock."""
AWAY_S = 0.15


class Locker:
    """Args:
    root: the host's.
    logs: where its history goes, CLIENT.jsonl."""

    def __init__(self, root: Path, logs: Path, client: str, node: str, seed: int) -> None:
        self._root = root
        self._client = client
        self._rng = random.Random(seed)
        self._history = HistoryWriter(logs / f"{client}.jsonl")
        self._history.append(Started(client, node, boottime_ns()))
        self._ops = 0
        self._written = 0
        self._parked: dict[str, tuple[int, Hold]] = {}
        self.stopping = False

    def run(self) -> None:
        while not self.stopping:
            self._parked = {}
            with contextlib.suppress(RingfenceError), dlm.dlm(self._root) as opened:
                self._session(opened)
            time.sleep(AWAY_S)

    def _session(self, opened: Dlm) -> None:
        """Until the daemon goes away."""
        for space in SPACES:
            opened.join(space)
        while not self.stopping:
            space = self._rng.choice(SPACES)
            try:
                if self._rng.random() < 0.4:
                    self._count(opened, space)
                else:
                    self._plain(opened, space)
            except LocksLost:
                opened.join(space)
            self._rest(REST_MS)
        for op, hold in self._parked.values():
            self._release(op, hold)

    def _rest(self, most_ms: float) -> None:
        time.sleep(self._rng.uniform(0, most_ms) / 1000)

    # -- locks --------------------------------------------------------------------

    def _plain(self, opened: Dlm, space: str) -> None:
        """Raises LocksLost, Unavailable."""
        mode = self._rng.choices(list(MODES), list(MODES.values()))[0]
        op, hold = self._request(opened, space, self._rng.choice(RESOURCES), mode)
        if hold is None:
            return
        for _ in range(self._rng.choice(TURNS)):
            self._use(op, hold)
            if self._rng.random() < 0.15:
                self._convert(op, hold, self._rng.choice(list(MODES)), self._rng.choice((None, 0, 400)))
        self._release(op, hold)

    def _count(self, opened: Dlm, space: str) -> None:
        """Read a lockspace's counter, or write its next value.  Raises LocksLost, Unavailable."""
        if space not in self._parked:
            op, hold = self._request(opened, space, COUNTER, "NL")
            if hold is None:
                return
            self._parked[space] = (op, hold)
        op, hold = self._parked[space]
        mode = self._rng.choice(("EX", "EX", "PW", "PR"))
        try:
            if not self._convert(op, hold, mode, self._rng.choice(WAITS_MS)):
                return
            self._use(op, hold)
            self._convert(op, hold, "NL", None, None if mode == "PR" else self._next_value())
        except (LocksLost, Unavailable):
            del self._parked[space]
            raise

    def _next_value(self) -> bytes:
        """Unlike any other of the run."""
        self._written += 1
        return f"{self._client}.{self._written}".encode().ljust(32, b"\0")

    # -- each step, and its line in the history -----------------------------------------

    def _request(self, opened: Dlm, space: str, resource: str, mode: str) -> tuple[int, Hold | None]:
        """Raises LocksLost, Unavailable: what is refused otherwise is None."""
        self._ops += 1
        op, wait_ms = self._ops, None if mode == "NL" else self._rng.choice(WAITS_MS)
        self._history.append(Asked(op, space, resource, mode, wait_ms, boottime_ns()))
        try:
            hold = opened.lock(space, resource, mode, wait_ms)
        except RingfenceError as error:
            self._history.append(Refused(op, error.code, boottime_ns()))
            if isinstance(error, LocksLost | Unavailable):
                raise
            self._rejoin(opened, space, error)
            return op, None
        self._granted(op, hold)
        return op, hold

    def _rejoin(self, opened: Dlm, space: str, error: RingfenceError) -> None:
        """A daemon that came back as another life has joined nothing."""
        if error.code not in ("lock-held", "timed-out", "deadlock"):
            opened.join(space)

    def _granted(self, op: int, hold: Hold) -> None:
        now_ns = boottime_ns()
        self._history.append(Granted(op, hold.mode, hold.token, now_ns, hold.value))

    def _convert(
        self, op: int, hold: Hold, mode: str, wait_ms: int | None, writes: bytes | None = None
    ) -> bool:
        """False: refused, the old mode stays.  Raises LocksLost, Unavailable: there is no lock any more."""
        words = None if writes is None else writes.hex()
        self._history.append(Converting(op, mode, wait_ms, boottime_ns(), words))
        try:
            hold.convert(mode, wait_ms, writes)
        except (LocksLost, Unavailable) as error:
            self._lost(op, hold, error.code)
            raise
        except RingfenceError as error:
            self._history.append(Refused(op, error.code, boottime_ns()))
            return False
        self._granted(op, hold)
        return True

    def _use(self, op: int, hold: Hold) -> None:
        """Raises LocksLost: one may not use it any more, for good.  Nothing is done while it has lapsed."""
        if not hold.held:
            self._lost(op, hold, "told")
            raise LocksLost("told so")
        # The clock before the page, both times: a look that was interrupted errs to the earlier side.
        began_ns = boottime_ns()
        before = state_of(hold.deadline_ns(), began_ns)
        if before is Authority.LOST:
            self._lost(op, hold, "authority")
            raise LocksLost("authority is lost")
        if before is Authority.LAPSED:
            self._rest(REST_MS)
            return
        self._rest(self._rng.choice(USE_MS))
        ended_ns = boottime_ns()
        deadline_ns = hold.deadline_ns()
        after = After(state_of(deadline_ns, ended_ns).value)
        self._history.append(Used(op, hold.mode, began_ns, ended_ns, after, deadline_ns))

    def _release(self, op: int, hold: Hold) -> None:
        self._history.append(Releasing(op, boottime_ns()))
        try:
            hold.release()
        except RingfenceError as error:
            self._lost(op, hold, error.code)
            raise
        self._history.append(Released(op, boottime_ns()))

    def _lost(self, op: int, hold: Hold, why: str) -> None:
        hold.close()
        self._history.append(Lost(op, why, boottime_ns()))


def main(root: str, logs: str, client: str, node: str, seed: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # whose history begins can be asked to end
    locker = Locker(Path(root), Path(logs), client, node, int(seed))

    def stop(number: int, frame: FrameType | None) -> None:
        locker.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    locker.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
