"""A daemon process whose engine follows a script: `python scripted_daemon.py ROOT NODE`.

It keeps its incarnation as the engine does, gives itself authority for VG vg0, and answers requests:
Why "open" opens an LV, Why "write" writes a block under VG vg0's guard, Leave ends it.  It waits for a block
service as long as a daemon does, or for ANSWER_S."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from ringfence.core.errors import RingfenceError
from ringfence.core.evidence import Power
from ringfence.core.ids import Epoch, Token
from ringfence.daemon import inheritance
from ringfence.daemon.assemble import Current, Makers, run
from ringfence.engine import effects, inputs, orders
from ringfence.engine.effects import Effect
from ringfence.engine.inputs import AgentExited, DiskState, Input
from ringfence.wire import client as calls
from ringfence.wire.block import Extent
from ringfence.wire.client import Reply


class Script:
    def __init__(self) -> None:
        self._asked: dict[int, inputs.Asked] = {}
        self._incarnation = 0
        self._reaped = False
        self._left_open: list[Any] = []
        self._heard: list[str] = []
        self._root = ""

    def step(self, now_ns: int, input: Input) -> list[Effect]:
        match input:
            case inputs.Started():
                self._incarnation = input.disk.incarnation + 1 if input.disk.boot == input.boot else 1
                self._reaped = input.paths_reaped
                self._left_open = [msgspec.to_builtins(one) for one in input.left_open]
                until = now_ns + 3600 * 10**9
                return [
                    effects.Keep(DiskState(Epoch(7, 1), self._incarnation, input.boot)),
                    effects.SetDeadline(self._incarnation, "grant", until),
                    effects.SetDeadline(self._incarnation, "vg/vg0", until),
                    effects.Record("started", "the script starts", {}),
                ]
            case inputs.RingLost():
                self._heard.append("lost")
                return [effects.Record("ring-lost", input.reason, {})]
            case inputs.ViewChanged():
                self._heard.append("view")
                return [effects.Record("view", f"members {input.members}", {})]
            case inputs.Asked():
                return self._ask(now_ns, input)
            case inputs.OrderDone():
                asked = self._asked.pop(input.order)
                result = {"error": input.error} if input.error else {"answer": str(input.answer)}
                return [effects.Answer(asked.client, Reply(asked.request.id, result=result))]
        return []

    def _ask(self, now_ns: int, asked: inputs.Asked) -> list[Effect]:
        call = asked.request.call
        if isinstance(call, calls.Leave):
            return [effects.Ended("left as the script says")]
        target = call.target if isinstance(call, calls.Why) else ""
        if target not in ("open", "write"):
            facts = {"incarnation": self._incarnation, "reaped": self._reaped, "heard": self._heard}
            facts["left_open"] = self._left_open
            return [effects.Answer(asked.client, Reply(asked.request.id, result=facts))]
        self._asked[len(self._asked) + 1] = asked
        body: Any
        if target == "open":
            extent = Extent(f"{sys.argv[1]}/img", 0, 1 << 20)
            body = orders.OpenPath("vg0", "vm1", "u-1", (extent,), False, Token(7, 1, 1))
        else:
            body = orders.WriteBlocks((orders.Write(f"{sys.argv[1]}/img", 0, bytes(4096)),), guard="vg0")
        return [effects.DoOrder(len(self._asked), body)]


class NoAgents:
    def __init__(self, current: Current) -> None:
        self._current = current

    async def run(self, effect: effects.RunAgent) -> AgentExited:
        return AgentExited(effect.run, Power.UNKNOWN, "no agents here", 0, answered=False)

    def cancel(self, run: int) -> None:
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, which may have started the tests, has it ignored
    inheritance.ANSWER_S = float(os.environ.get("ANSWER_S", inheritance.ANSWER_S))
    try:
        sys.exit(run(Path(sys.argv[1]), sys.argv[2], Makers(Script, NoAgents)))
    except RingfenceError as error:
        print(f"ringfence daemon: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
