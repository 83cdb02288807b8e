"""fence_ringfence: ringfence as a fence device of Pacemaker's, or of anybody's who speaks FenceAgentAPI.

Options come on stdin as name=value lines, or as arguments.  `off` and `reboot` order the node fenced, and
answer 0 only when the cluster has proof of it; nothing here switches anything, and no agent's bare word is
passed on.  An order stands when this program is ended: to ask again joins the same fencing.  Exit codes are
0 and 1, and 2 for a status of off alone; whatever goes wrong is 1.

Where ringfence itself asks Pacemaker (fencing = "pacemaker") every order is refused: it would go round and
round.  Source: FenceAgentAPI (ClusterLabs fence-agents, doc/FenceAgentAPI.md)."""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from ringfence.agents.request import read_request
from ringfence.client import Connection, connect
from ringfence.client.fencing import follow, order_fence
from ringfence.core.errors import BadInput, ConfigError, Refused, RingfenceError, Unavailable
from ringfence.core.evidence import EvidenceKind
from ringfence.wire import client as calls

ON, OFF, FAILED = 0, 2, 1
TIMEOUT_S = 50
"""Below Pacemaker's stonith-timeout of 60 s, so that what is missing is said before nobody listens."""
RETRY_MS = 2000
POWER = (EvidenceKind.HOST_OFF.value, EvidenceKind.OUTLETS_OFF.value)
# As Pacemaker and the agents' schema want it, tabs and all.
METADATA = """<?xml version="1.0" ?>
<resource-agent name="fence_ringfence" shortdesc="Fence agent for nodes of a ringfence cluster" >
<longdesc>fence_ringfence asks the ringfence daemon of this host to fence a node by the levels that \
ringfence has for it. It succeeds only when the cluster has proof that the node is fenced.</longdesc>
<vendor-url></vendor-url>
<parameters>
	<parameter name="action" unique="0" required="1">
		<getopt mixed="-o, --action=[action]" />
		<content type="string" default="reboot"  />
		<shortdesc lang="en">Fencing action</shortdesc>
	</parameter>
	<parameter name="plug" unique="0" required="1" obsoletes="port">
		<getopt mixed="-n, --plug=[node]" />
		<content type="string"  />
		<shortdesc lang="en">The node's name in ringfence</shortdesc>
	</parameter>
	<parameter name="port" unique="0" required="1" deprecated="1">
		<getopt mixed="-n, --plug=[node]" />
		<content type="string"  />
		<shortdesc lang="en">The node's name in ringfence</shortdesc>
	</parameter>
	<parameter name="socket" unique="0" required="0">
		<getopt mixed="--socket=[path]" />
		<content type="string" default="/run/ringfence/socket"  />
		<shortdesc lang="en">The daemon's socket</shortdesc>
	</parameter>
	<parameter name="timeout" unique="0" required="0">
		<getopt mixed="--timeout=[seconds]" />
		<content type="second" default="50"  />
		<shortdesc lang="en">How long to wait for proof; the order stands</shortdesc>
	</parameter>
</parameters>
<actions>
	<action name="off" />
	<action name="reboot" />
	<action name="status" />
	<action name="monitor" />
	<action name="list" />
	<action name="metadata" />
	<action name="validate-all" />
</actions>
</resource-agent>"""


def main() -> NoReturn:
    try:
        sys.exit(answer(options(sys.argv[1:])))
    except RingfenceError as error:
        print(f"Failed: {error}", file=sys.stderr)
        sys.exit(FAILED)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Never argparse's own exit code 2, which means off."""
        raise BadInput(message, next="fence_ringfence --help")


def options(arguments: Sequence[str]) -> dict[str, str]:
    """By the new names.  With any argument stdin is not read."""
    if not arguments:
        given = read_request(sys.stdin).keys
        return {"plug": given.get("port") or given.get("nodename", ""), **given}
    parser = _Parser("fence_ringfence", description="Fences a node of a ringfence cluster.")
    parser.add_argument("-o", "--action", required=True)
    parser.add_argument("-n", "--plug", default="")
    parser.add_argument("--socket", default="")
    parser.add_argument("--timeout", default="")
    return {name: value for name, value in vars(parser.parse_args(arguments)).items() if value}


def answer(given: dict[str, str]) -> int:
    """The exit code.  Raises RingfenceError: 1."""
    action, node = given.get("action", ""), given.get("plug", "")
    if action == "metadata":
        print(METADATA)
        return 0
    limit_s = given.get("timeout") or str(TIMEOUT_S)
    if not limit_s.isdecimal():
        raise BadInput(f"timeout = {limit_s} is no number of seconds", next="give seconds")
    if action == "validate-all":
        return 0
    with connect(given.get("socket") or None, retry_ms=RETRY_MS) as daemon:
        match action:
            case "monitor":
                _check(daemon)
            case "list":
                for one in daemon.call(calls.FenceStatus())["nodes"]:
                    print(f"{one['name']},")
            case "off" | "reboot":
                _check(daemon)
                _fence(daemon, _named(node), action, int(limit_s))
            case "status":
                return _status(daemon.call(calls.FenceStatus(_named(node))))
            case _:
                raise BadInput(f'action "{action}" is not served', next="off, reboot, status or monitor")
    return 0


def _named(node: str) -> str:
    if not node:
        raise BadInput("which node?", next="give plug, or pcmk_host_map in Pacemaker")
    return node


def _check(daemon: Connection) -> None:
    """Raises RingfenceError: nobody could be fenced this way."""
    if daemon.call(calls.ConfigShow())["config"].get("fencing") == "pacemaker":
        raise ConfigError(
            'ringfence asks Pacemaker to fence (fencing = "pacemaker"), and Pacemaker would ask ringfence',
            next="remove fence_ringfence from Pacemaker, or `fencing` from ringfence.toml",
        )
    found = daemon.call(calls.FenceStatus())
    if found["disarmed"]:
        raise Refused(f"{found['disarmed']['who']} disarmed fencing", next="ringfence fence arm")
    if not found["current"]:
        raise Unavailable(f"{found['node']} cannot act now", next="ringfence why")


def _fence(daemon: Connection, node: str, action: str, limit_s: int) -> None:
    """Order it, and wait for the proof."""
    give_up = time.monotonic() + limit_s
    order = order_fence(daemon, node, who="fence_ringfence", why=f"asked to {action} it", action=action)
    last: tuple[str, ...] = ()
    for progress in follow(daemon, order, give_up - time.monotonic()):
        last = progress.lines or last
        if progress.fenced:
            print(f"Success: {node} is proven fenced: {'; '.join(progress.evidence)}")
            return
    why = last[-1] if last else "nothing was tried yet"
    what = f"{node} is not proven fenced yet ({why}); the order stands"
    raise Unavailable(what, next=f"ringfence why {node}")


def _status(found: dict[str, Any]) -> int:
    """On: it is a member.  Off: its last life was ended by power, and it was not to be switched on again.

    Raises Unavailable: this node may not know what has become of it since."""
    if not found["current"]:
        raise Unavailable(f"{found['node']} does not know what has happened of late", next="ringfence why")
    (node,) = found["nodes"]
    if node["state"] == "ready":
        return ON
    kept_off = [record for record in found["fenced"] if record["action"] == "off"]
    kinds = [proof["kind"] for record in kept_off for proof in record["evidence"]]
    if node["state"] == "absent" and any(kind in POWER for kind in kinds):
        return OFF
    print(f"{node['name']} is {node['state']}: whether it is on is not known", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    main()
