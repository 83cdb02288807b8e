"""What devices of the bench start to ask it:  ask.py SOCKET bmc HOST ...  |  ask.py SOCKET snmp

bmc: ipmi_sim's chassis_control words (`get power`, `set power 0`).  snmp: net-snmp's pass_persist on stdin,
the outlets of an APC rack PDU.  Nothing but the standard library, so that it starts in a moment."""

import json
import socket
import sys

STATUS, CONTROL = ".1.3.6.1.4.1.318.1.1.12.3.5.1.1.4.", ".1.3.6.1.4.1.318.1.1.12.3.3.1.1.4."


def ask(path: str, **request: object) -> dict[str, bool]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, bool] = json.loads(sock.makefile().readline())
    return answer


def bmc(path: str, host: str, words: list[str]) -> None:
    if words[0] == "get":
        print(f"power:{int(ask(path, bmc=host)['on'])}")
        return
    orders = dict(zip(words[1::2], words[2::2], strict=True))
    if "power" in orders:
        ask(path, bmc=host, to=orders["power"] == "1")


def snmp(path: str) -> None:
    for line in sys.stdin:
        order = line.strip()
        if order == "PING":
            print("PONG", flush=True)
        elif order in ("get", "getnext"):
            _get(path, sys.stdin.readline().strip(), order)
        elif order == "set":
            oid, value = sys.stdin.readline().strip(), sys.stdin.readline().split()[-1]
            if oid.startswith(CONTROL) and ask(path, outlet=int(oid.rpartition(".")[2]), to=value == "1"):
                print("DONE", flush=True)
            else:
                print("not-writable", flush=True)


def _get(path: str, oid: str, order: str) -> None:
    known = order == "get" and oid.startswith((STATUS, CONTROL))
    answer = ask(path, outlet=int(oid.rpartition(".")[2])) if known else {}
    print(f"{oid}\ninteger\n{1 if answer['on'] else 2}" if answer else "NONE", flush=True)


if __name__ == "__main__":
    socket_path, kind, *rest = sys.argv[1:]
    if kind == "bmc":
        bmc(socket_path, rest[0], rest[1:])
    else:
        snmp(socket_path)
