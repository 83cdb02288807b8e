"""Liveness: when all is mended, everything must come about in bounded time.

Every host gets ready, every client is answered, and every host gets every lock and every volume once.
Other hosts may still be on the way back meanwhile, so what is refused is asked again until the bound.
The first thing that does not come about ends the demands: the rest would wait for the same."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ringfence.client import connect
from ringfence.core.errors import RingfenceError, Unavailable
from ringfence.lab.cluster import Lab
from ringfence.lab.torture.dlm import dlm
from ringfence.lab.torture.hands import Hands
from ringfence.lab.torture.names import COUNTER, LVS, RESOURCES, SPACES, VG
from ringfence.wire import client as calls

BOUND_S = 60.0
ASK_MS = 10_000

Say = Callable[[str], None]


class Recovery:
    """Args: hands: have mended everything, and go on to do so."""

    def __init__(self, lab: Lab, hands: Hands, say: Say) -> None:
        self._lab = lab
        self._hands = hands
        self._say = say
        self.late: list[str] = []
        """What did not come about."""
        self.well_ms = 0
        """Until all hosts were ready."""

    def demand(self) -> None:
        began_s = time.monotonic()
        for node in self._lab.nodes:
            self._in_time(f"{node} is ready", partial(_check_ready, self._lab, node))
        self.well_ms = round((time.monotonic() - began_s) * 1000)
        self.end_clients(BOUND_S)
        for node in self._lab.nodes:
            for space in SPACES:
                for resource in (*RESOURCES, COUNTER):
                    take = partial(_take, self._lab.root(node), space, resource)
                    self._in_time(f"{node} gets {space}/{resource}", take)
            for lv in LVS:
                self._in_time(f"{node} gets {VG}/{lv}", partial(_open, self._lab.socket(node), lv))

    def end_clients(self, bound_s: float) -> None:
        """Each ends when what it asked for is answered."""
        if not self._hands.keep_until(lambda: not self._hands.end_clients(), bound_s):
            self._late(*(f"{name} is answered" for name in self._hands.end_clients()))

    def _in_time(self, what: str, act: Callable[[], None]) -> None:
        def done() -> bool:
            try:
                act()
            except RingfenceError:
                return False
            return True

        if not self.late and not self._hands.keep_until(done, BOUND_S):
            self._late(what)

    def _late(self, *what: str) -> None:
        for node in self._lab.nodes:  # for whoever looks into it: what the cluster says while it is so
            self._why(node)
        self.late += [f"not within {BOUND_S:.0f} s: {one}" for one in what]

    def _why(self, node: str) -> None:
        with contextlib.suppress(RingfenceError), connect(self._lab.socket(node), retry_ms=0) as daemon:
            for line in daemon.call(calls.Why(), timeout_ms=ASK_MS)["lines"]:
                self._say(f"{node}: {line}")


def _check_ready(lab: Lab, node: str) -> None:
    """Raises RingfenceError unless it and all others are ready, and nothing is blocked."""
    with connect(lab.socket(node), retry_ms=0) as daemon:
        status = daemon.call(calls.Status(), timeout_ms=ASK_MS)
    ready = [one for one in status["members"] if one["state"] == "ready"]
    if not status["ready"] or len(ready) != len(lab.nodes) or status["blocked"]:
        raise Unavailable(f"{node} is not ready, or blocked")


def _take(root: Path, space: str, resource: str) -> None:
    """Raises RingfenceError."""
    with dlm(root) as opened:
        opened.join(space)
        opened.lock(space, resource, "EX", ASK_MS).release()


def _open(socket: Path, lv: str) -> None:
    """Raises RingfenceError."""
    with connect(socket, retry_ms=0) as daemon:
        for activate in ("ey", "n"):
            daemon.call(calls.LvChange(VG, lv, activate, ASK_MS), timeout_ms=2 * ASK_MS)
