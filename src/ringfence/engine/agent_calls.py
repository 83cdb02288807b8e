"""Every run of a fence agent that this node starts, admitted when its device has a session free.

A device may serve one call at a time (`DeviceConfig.sessions`): a second one is refused by it, or queued
inside it and switched long after we have stopped to wait.  So calls of one device stand in a queue here,
whichever victim, test or drill they are for: first come, first served, but what fences goes before what
can wait.  A cancelled call keeps its session until its process is gone.

A call that has waited is not started after a gap in this node's clock: what it rests on is old.

Source: controllers that serve one session (linux-cluster 2011-March/019775: a PDU queued two nodes'
commands, and both died); pcmk_action_limit in Pacemaker."""

from collections.abc import Callable

import msgspec

from ringfence.core.cluster import Use
from ringfence.core.evidence import Power
from ringfence.engine.context import Context
from ringfence.engine.effects import CancelAgent, RunAgent
from ringfence.engine.inputs import AgentExited

Told = Callable[[AgentExited], None]


class Call(msgspec.Struct, frozen=True):
    """One run of one device's agent for one plug."""

    use: Use
    action: str
    """off | on | status."""
    node: int
    """Whose plug it is."""
    purpose: str
    """For people who wait behind it: "the fencing of n3"."""
    timeout_ms: int = 0
    """Wall-clock limit from its start; 0 = the cluster's."""
    patient: bool = False
    """Whatever fences goes first."""


class _Admitted(msgspec.Struct):
    run: int
    call: Call
    told: Told | None
    """None: cancelled."""
    admitted: Callable[[], None] | None = None
    started: bool = False


class AgentCalls:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._calls: dict[int, _Admitted] = {}
        """By run, in the order of their coming."""
        self._last = 0

    def start(self, call: Call, told: Told, admitted: Callable[[], None] | None = None) -> int:
        """Run it as soon as its device has a session free.

        Args:
            told: called once, in a later step, with how it went; never after `cancel`.
            admitted: called once, when it gets its session: now, or in a later step.

        Returns: its number, for `cancel`, `running` and `queued`."""
        self._last += 1
        self._calls[self._last] = _Admitted(self._last, call, told, admitted)
        self._admit(call.use.device)
        return self._last

    def cancel(self, run: int) -> None:
        """Nobody needs it any more: what runs is killed, what waits never starts."""
        one = self._calls.get(run)
        if one is None:
            return
        one.told = None
        if one.started:
            self._context.out(CancelAgent(run))
        else:
            del self._calls[run]

    def exited(self, exit: AgentExited) -> None:
        """A run ended: whoever asked is told, and the device's next call starts."""
        one = self._calls.pop(exit.run, None)
        if one is None:
            return
        self._admit(one.call.use.device, waited=True)
        if one.told is not None:
            one.told(exit)

    # -- reading -------------------------------------------------------------------

    def running(self, run: int) -> bool:
        """It has its session."""
        return run in self._calls and self._calls[run].started

    def busy_for(self, node: int, action: str) -> bool:
        """Whether an agent still runs that was told so for this node, be it cancelled."""
        return any(one.started and one.call.node == node and one.call.action == action for one in self._all())

    def queued(self, run: int) -> str:
        """What a call that waits for a session waits for, for people; "" = it does not wait."""
        one = self._calls.get(run)
        if one is None or one.started:
            return ""
        ahead = [other for other in self._of(one.call.use.device) if other.started]
        whose = ", ".join(dict.fromkeys(other.call.purpose for other in ahead))
        return f"waits for {one.call.use.device}, which serves {whose}"

    def _all(self) -> list[_Admitted]:
        return list(self._calls.values())

    def _of(self, device: str) -> list[_Admitted]:
        return [one for one in self._all() if one.call.use.device == device]

    # -- admission -------------------------------------------------------------------

    def _admit(self, device: str, *, waited: bool = False) -> None:
        """Start what may start: what came first, but fencing before the patient."""
        while (one := self._next(device)) is not None:
            if waited and one.call.action != "status" and not self._context.calm:
                del self._calls[one.run]
                words = "not started: this host's clock had a gap while it waited for the device"
                assert one.told is not None, "a cancelled call does not wait"
                one.told(AgentExited(one.run, Power.UNKNOWN, words, 0, answered=False))
            else:
                self._start(one)

    def _next(self, device: str) -> _Admitted | None:
        calls = self._of(device)
        known = next((one for one in self._context.config.devices if one.name == device), None)
        if sum(one.started for one in calls) >= (known.sessions if known is not None else 1):
            return None
        waiting = [one for one in calls if not one.started]
        return min(waiting, key=lambda one: one.call.patient, default=None)

    def _start(self, one: _Admitted) -> None:
        context, call = self._context, one.call
        one.started = True
        if one.admitted is not None:
            one.admitted()
        limit_ms = call.timeout_ms or context.config.timing.agent_timeout_ms
        name = context.name(call.node)
        parameters = call.use.parameters
        context.out(RunAgent(one.run, call.use.device, call.action, limit_ms, name, parameters))
