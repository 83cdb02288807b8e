"""What a simulated device asks the power switch; and as a program ipmi_sim's chassis_control:

    python -I -S ask.py SOCKET NODE get power | set power 0|1 | set reset 1 | set shutdown 1

Nothing but the standard library, so that it starts in a moment.  Source: ipmi_lan(5); what ipmi_sim calls."""

import json
import socket
import sys

IPMI_SIM = {("power", "0"): "off", ("power", "1"): "on", ("reset", "1"): "cycle", ("shutdown", "1"): "off"}


def ask(power: str, node: str, device: str, action: str) -> "dict[str, object] | None":
    """{"power": "on" or "off", "pending": bool}; None: the device has no power, or there is no power switch.

    Args:
        action: status, on, off, or cycle."""
    request = {"order": "device", "node": node, "device": device, "action": action}
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(power)
            sock.sendall(json.dumps(request).encode() + b"\n")
            answer = json.loads(sock.makefile().readline() or "{}")
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) and "power" in answer else None


def main(power: str, node: str, verb: str, what: str, value: str = "") -> int:
    if verb == "get":
        answer = ask(power, node, "bmc", "status")
        if answer is None or what != "power":
            return 1
        print("power:1" if answer["power"] == "on" else "power:0")
        return 0
    action = IPMI_SIM.get((what, value))
    return 1 if action is None or ask(power, node, "bmc", action) is None else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
