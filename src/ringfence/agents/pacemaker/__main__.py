"""FenceAgentAPI on stdin: off, on, status, monitor, metadata.

    python -m ringfence.agents.pacemaker

Keys: nodename, or plug where Pacemaker calls the node otherwise; timeout and lag (seconds); cycle (1: what
Pacemaker has off already may be switched on first).

- `off`: `stonith_admin --fence`, always, whatever is on record: the fencer makes one run of requests that
  ask for the same while it runs, and a success from before says nothing of now.  A reboot that is under way
  is waited for, since it ends with "on".  Looks before and after tell whether a plug has gone from on to
  off; if none has, the answer says "already off", which is believed only where another device agrees.
- `status`: a look at each plug of each device that can fence the node, by that device's own agent, here.
- `on`: `stonith_admin --unfence`."""

import sys
import time
from collections.abc import Callable, Sequence

from ringfence.agents.pacemaker import fencer, history
from ringfence.agents.pacemaker.cib import Plug
from ringfence.agents.pacemaker.judge import Looks, judge, plugs_on, switched
from ringfence.agents.pacemaker.looks import Target
from ringfence.agents.request import read_request
from ringfence.core.errors import BadInput, Refused, RingfenceError, Unavailable
from ringfence.core.evidence import Power

TIMEOUT_S = 57
FIRST_LOOK_S = 5
"""For the look before the off: a device that is slower than that was not seen on."""
LAG_S = 10
"""How long a plug's status may lag behind an off that is done."""
AGAIN_S = 0.5
METADATA = """<?xml version="1.0" ?>
<resource-agent name="ringfence-pacemaker" shortdesc="Fences through Pacemaker, and looks for itself">
<longdesc>Asks Pacemaker's fencer to switch a node off, and its devices for their status.</longdesc>
<vendor-url></vendor-url>
<parameters>
<parameter name="plug" unique="0" required="0"><content type="string"/>
<shortdesc lang="en">The node's name in Pacemaker, if it is another there</shortdesc></parameter>
<parameter name="timeout" unique="0" required="0"><content type="second" default="57"/>
<shortdesc lang="en">How long Pacemaker may take in all</shortdesc></parameter>
<parameter name="cycle" unique="0" required="0"><content type="boolean" default="0"/>
<shortdesc lang="en">May what Pacemaker has off already be switched on, and off again?</shortdesc></parameter>
<parameter name="lag" unique="0" required="0"><content type="second" default="10"/>
<shortdesc lang="en">How long a plug's status may lag behind</shortdesc></parameter>
</parameters>
<actions><action name="on"/><action name="off"/><action name="status"/><action name="monitor"/>
<action name="metadata"/></actions>
</resource-agent>"""


def main() -> int:
    request = read_request(sys.stdin)
    action, keys = request.action, request.keys
    try:
        limit_s = int(keys.get("timeout") or TIMEOUT_S)
        if action == "metadata":
            print(METADATA)
        elif action == "monitor":
            fencer.alive()
        elif action == "off":
            lag_s = int(keys.get("lag") or LAG_S)
            print(_off(request.node, time.monotonic() + limit_s, lag_s, keys.get("cycle") == "1"))
        elif action == "on":
            fencer.order("--unfence", request.node, limit_s)
        elif action == "status":
            target = Target(request.node)
            power, words = judge(target.levels, target.looks(target.plugs, limit_s))
            print(words, file=sys.stderr)
            return {Power.ON: 0, Power.OFF: 2}.get(power, 1)
        else:
            raise BadInput(f"{action!r} is not served", next="off, on, status, monitor, metadata")
    except (RingfenceError, ValueError) as error:
        print(f"Failed: {error}", file=sys.stderr)
        return 1
    return 0


def _off(name: str, until: float, lag_s: int, cycle: bool) -> str:
    """Returns what was done, for people and for `level_run.already_off`."""
    target = Target(name)
    before = target.looks(target.plugs, FIRST_LOOK_S)
    if _waited_for_reboot(name, until):
        before = target.looks(target.plugs, FIRST_LOOK_S)
    if cycle and _is_off(target, before) and history.fenced(fencer.events(name)):
        fencer.order("--unfence", name, until - time.monotonic())
        before = _watch(target, target.plugs, lag_s, lambda looks: not _is_off(target, looks))
    client = fencer.order("--fence", name, until - time.monotonic())
    doubt = history.doubt(fencer.events(name), client)
    if doubt:
        raise Refused(doubt, next="look at the machine; ringfence fence confirm is for a person's word")
    off = ""
    if not _is_off(target, before):
        left_s = min(lag_s, until - time.monotonic())
        after = _watch(
            target, plugs_on(before), left_s, lambda looks: bool(switched(target.levels, before, looks))
        )
        off = switched(target.levels, before, after)
    return f"Pacemaker switched {off} off" if off else "already off: no level of plugs went from on to off"


def _is_off(target: Target, looks: Looks) -> bool:
    return judge(target.levels, looks)[0] is Power.OFF


def _waited_for_reboot(name: str, until: float) -> bool:
    waited = False
    while any(one.action == "reboot" and one.status == "pending" for one in fencer.events(name)):
        if time.monotonic() > until:
            raise Unavailable("a reboot by Pacemaker does not end", next=f"stonith_admin --history {name}")
        time.sleep(AGAIN_S)
        waited = True
    return waited


def _watch(target: Target, plugs: Sequence[Plug], lag_s: float, seen: Callable[[Looks], bool]) -> Looks:
    """Look again and again until it is seen, for `lag_s` at the most."""
    give_up = time.monotonic() + lag_s
    while True:
        looks = target.looks(plugs, FIRST_LOOK_S)
        if not plugs or seen(looks) or time.monotonic() > give_up:
            return looks
        time.sleep(AGAIN_S)


if __name__ == "__main__":
    sys.exit(main())
