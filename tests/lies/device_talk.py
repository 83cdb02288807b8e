"""What devices on the bench say over TCP: an APC PDU's old menus, a Redfish service, and nonsense."""

import json
import re
import socket
from collections.abc import Iterator

from power_bench import PASSWORD, Bench

from ringfence.lab.line_socket import Json

_TELNET = re.compile(rb"\xff[\xfb-\xfe].|\xff[\xf0-\xfa]", re.DOTALL)
_CHARACTERS = b"\xff\xfb\x01\xff\xfb\x03"
"""WILL ECHO, WILL SUPPRESS-GO-AHEAD: the client sends what is typed as it is (RFC 857, 858)."""
_LINE = re.compile(rb"([^\r\n\x03]*)(\r\n|\r\x00|\r|\n|\x03)")
MAIN = "\r\n------- Control Console -----\r\n\r\n 1- Device Manager\r\n 4- Logout\r\n\r\n> "
DEVICE = "\r\n------- Device Manager -----\r\n\r\n 1- Phase Management\r\n 2- Outlet Control\r\n\r\n> "
OUTLET = "\r\n------- Outlet {} -----\r\n\r\n 1- Immediate On\r\n 2- Immediate Off\r\n\r\n> "
SURE = "\r\nEnter 'YES' to continue or <ENTER> to cancel : "


def apc_menus(bench: Bench, sock: socket.socket) -> None:
    """An APC PDU of the AOS 3 kind.  An order that is not carried out yet shows as `OFF*`."""

    def say(text: str) -> None:
        sock.sendall(text.encode())

    lines = _lines(sock)
    sock.sendall(_CHARACTERS)
    say("\r\nAmerican Power Conversion   AOS v3.7.0\r\n\r\nUser Name : ")
    next(lines)
    say("\r\nPassword  : ")
    if next(lines) != PASSWORD:
        say("\r\nUser Name : ")
        return
    page, plug, order = "main", 0, ""
    say(MAIN)
    for line in lines:
        if line == "\x03":
            page = "main"
        elif page == "main" and line == "1":
            page = "device"
        elif page == "device" and line == "2":
            page = "outlets"
        elif page == "outlets" and line.isdigit():
            page, plug = "outlet", int(line)
        elif page == "outlet":
            page, order = "sure", line
        elif page == "sure":
            if line == "YES":
                bench.pdu(plug, order == "1")
            say("\r\nCommand successfully issued.\r\n\r\nPress <ENTER> to continue...")
            page = "done"
            continue
        elif page == "done":
            page = "outlet"
        pages = {"main": MAIN, "device": DEVICE, "outlet": OUTLET.format(plug), "sure": SURE}
        say(_outlets(bench) if page == "outlets" else pages[page])


def _outlets(bench: Bench) -> str:
    rows = []
    for number in sorted(bench.outlets):
        said = bench.pdu(number)
        # The order is shown at once, with a star for as long as the relay has not moved.
        on = said["on"] != said["pending"]
        shown = ("ON" if on else "OFF") + ("*" if said["pending"] else "")
        rows.append(f"     {number}- Outlet {number}                 {shown}\r\n")
    return "\r\n------- Outlet Control -----\r\n\r\n" + "".join(rows) + "\r\n> "


def _lines(sock: socket.socket) -> Iterator[str]:
    """What was typed, a line each, without telnet's own words; "\\x03" for Ctrl-C."""
    data = b""
    while more := sock.recv(4096):
        data = _TELNET.sub(b"", data + more)
        while match := _LINE.match(data):
            data = data[match.end() :]
            if match[1] or match[2] != b"\x03":
                yield match[1].decode(errors="replace").strip()
            if match[2] == b"\x03":
                yield "\x03"


def redfish(bench: Bench, path: str, body: bytes) -> Json | None:
    """One service for all hosts of the bench: an enclosure with a System for each."""
    root = "/redfish/v1"
    if path.rstrip("/") == root:
        return {"Systems": {"@odata.id": f"{root}/Systems"}}
    if path == f"{root}/Systems":
        return {"Members": [{"@odata.id": f"{root}/Systems/{name}"} for name in bench.hosts]}
    name, _, action = path.removeprefix(f"{root}/Systems/").partition("/")
    if name not in bench.hosts:
        return None
    if action:
        bench.bmc(name, json.loads(body)["ResetType"] == "On")
        return {}
    target = {"target": f"{root}/Systems/{name}/Actions/ComputerSystem.Reset"}
    power = "On" if bench.bmc(name)["on"] else "Off"
    return {"PowerState": power, "Actions": {"#ComputerSystem.Reset": target}}


def garbage(bench: Bench, sock: socket.socket) -> None:
    """Ten megabytes of nothing that anybody understands, whatever is asked."""
    for _ in range(10):
        sock.sendall(bytes(range(128, 255)) * 8 * 1024)
    while sock.recv(4096):
        pass
