"""The lab's fence agents: FenceAgentAPI on stdin, a question to the lab's power switch, an exit code.

    python -I -S fence_agent.py bmc|pdu

Keys: action (there is no default), ip (the power switch's socket), plug (NODE, for the PDU
NODE:a or NODE:b), password.  Nothing but the standard library, so that it starts in a moment."""

import json
import socket
import sys

METADATA = """<?xml version="1.0" ?>
<resource-agent name="fence_lab_{0}" shortdesc="Fence agent for the {0} of a ringfence lab">
<parameters>
<parameter name="action" required="1"><content type="string"/><shortdesc lang="en">Fencing action</shortdesc></parameter>
<parameter name="ip" required="1"><content type="string"/><shortdesc lang="en">Socket of the power switch</shortdesc></parameter>
<parameter name="plug" required="1"><content type="string"/><shortdesc lang="en">Node, with :a or :b for an outlet</shortdesc></parameter>
<parameter name="password" required="1"><content type="string"/><shortdesc lang="en">Password</shortdesc></parameter>
</parameters>
<actions><action name="on"/><action name="off"/><action name="status"/><action name="monitor"/><action name="metadata"/></actions>
</resource-agent>"""  # noqa: E501


def main(kind: str) -> int:
    keys = dict(line.rstrip("\n").partition("=")[::2] for line in sys.stdin if "=" in line)
    action = keys.get("action", "")
    if action == "metadata":
        print(METADATA.format(kind))
        return 0
    if action not in ("on", "off", "status", "monitor"):
        return failed(f"action {action!r} is not served")
    plug, _, outlet = keys.get("plug", "").partition(":")
    device = f"pdu-{outlet}" if kind == "pdu" else "bmc"
    request = {"node": plug, "device": device, "action": "status" if action == "monitor" else action}
    request["password"] = keys.get("password", "")
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(keys.get("ip", ""))
            sock.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(sock.makefile().readline() or "{}")
    except (OSError, ValueError) as error:
        return failed(f"Unable to connect/login to fencing device: {error}")
    if not answer:
        return failed("Unable to connect/login to fencing device: connection lost")
    if "error" in answer:
        return failed(str(answer["error"].get("message", "failed")))
    if action == "status":
        print(f"Status: {answer['power'].upper()}")
        return 0 if answer["power"] == "on" else 2
    print(f"Success: Powered {action.upper()}" if action in ("on", "off") else "Success")
    return 0


def failed(words: str) -> int:
    print(f"Failed: {words}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "bmc"))
