"""A switched rack PDU of APC's over telnet, one session at a time:

    python -m ringfence.lab.devices.apc_cli FIRMWARE PASSWORD_FILE ADDRESS PORT POWER PDU HOST…

FIRMWARE 6 is its command line ("olOff 2"), 3 its old menu.  Who connects while somebody is logged in is hung
up on, as by the real ones.  Source: what fence_apc types and waits for; APC's manuals of both firmwares."""

import socket
import sys
import threading
from collections.abc import Iterator

from ringfence.lab.devices.ask import ask
from ringfence.lab.devices.model import USER

IDLE_S = 180.0
"""After which the real ones log out whoever says nothing."""
BANNER = """
American Power Conversion               Network Management Card AOS      v{0}
(c) Copyright 2010 All Rights Reserved  Rack PDU APP                     v{0}
-------------------------------------------------------------------------------
"""
VERSIONS = {"3": "3.7.3", "6": "6.4.0"}
CONTROL_C = "\3"
IAC, INTERRUPT = 0xFF, 0xF4
NEGOTIATIONS = b"\xfb\xfc\xfd\xfe"
DO_TIMING_MARK, WILL_TIMING_MARK = b"\xff\xfd\x06", b"\xff\xfb\x06"
MAIN = "\n------- Control Console -------\n\n     1- Device Manager\n     2- Network\n     4- Logout\n"
DEVICE = "\n------- Device Manager -------\n\n     1- Phase Management\n     2- Outlet Management\n"
OUTLETS = "\n------- Outlet Management -------\n\n     1- Outlet Control\n     2- Outlet Configuration\n"
ORDERS = {"1": "on", "2": "off", "3": "cycle"}


class HungUp(Exception):
    pass


class Pdu:
    def __init__(self, power: str, pdu: str, hosts: list[str]) -> None:
        self._power, self._pdu, self.hosts = power, pdu, hosts

    def state(self, host: str, on: str, off: str) -> str:
        """`on` or `off`, with a star while an order is still to be carried out."""
        says = ask(self._power, host, self._pdu, "status")
        if says is None:
            raise HungUp
        return (on if says["power"] == "on" else off) + ("*" if says["pending"] else "")

    def order(self, outlet: str, action: str) -> bool:
        """Whether there is such an outlet."""
        if not outlet.isdigit() or not 1 <= int(outlet) <= len(self.hosts):
            return False
        return ask(self._power, self.hosts[int(outlet) - 1], self._pdu, action) is not None


class Session:
    def __init__(self, sock: socket.socket, pdu: Pdu, firmware: str, password: str) -> None:
        self._sock, self._pdu, self._firmware, self._password = sock, pdu, firmware, password
        self._typed = self._lines()

    def _lines(self) -> Iterator[str]:
        """What was typed, a line at a time; Control-C, which telnet sends as a command, is one (RFC 854)."""
        line, last, command = "", 0, b""
        while True:
            data = self._sock.recv(4096)
            if not data:
                raise HungUp
            if DO_TIMING_MARK in data:  # telnet throws away what it hears until it hears this
                self._sock.sendall(WILL_TIMING_MARK)
            for byte in data:
                if command or byte == IAC:
                    command += bytes([byte])
                    if len(command) == 1 or (len(command) == 2 and byte in NEGOTIATIONS):
                        continue
                    if byte == INTERRUPT:
                        yield CONTROL_C
                    command = b""
                elif byte in b"\r\n":
                    if not (byte == 10 and last == 13):
                        yield line
                        line = ""
                elif byte:
                    line += chr(byte)
                last = byte or last  # CR NUL is one end of a line, too

    def say(self, text: str) -> None:
        self._sock.sendall(text.replace("\n", "\r\n").encode())

    def run(self) -> None:
        while True:
            self.say("\nUser Name : ")
            user = next(self._typed)
            self.say("Password  : ")
            if next(self._typed) == self._password and user == USER:
                break
        self.say(BANNER.format(VERSIONS[self._firmware]))
        if self._firmware == "3":
            self._menu()
        else:
            self._command_line()

    def _command_line(self) -> None:
        while True:
            self.say("\napc>")
            verb, _, argument = next(self._typed).strip().partition(" ")
            if verb in ("quit", "exit", "bye"):
                return
            if verb == "olStatus":
                for number, host in enumerate(self._pdu.hosts, 1):
                    self.say(f"{number:2}: {host}: {self._pdu.state(host, 'On', 'Off')}\n")
                self.say("E000: Success\n")
            elif verb in ("olOn", "olOff", "olReboot"):
                action = {"olOn": "on", "olOff": "off", "olReboot": "cycle"}[verb]
                done = self._pdu.order(argument.strip(), action)
                self.say("E000: Success\n" if done else "E102: Parameter Error\n")
            elif verb:
                self.say("E101: Command Not Found\n")

    def _menu(self) -> None:
        """Main menu, 1 device, 2 outlets, 1 control, an outlet, an order, YES; Control-C: the main menu."""
        path: list[str] = []
        while True:
            self._show(path)
            typed = next(self._typed).strip(" ")
            if typed == CONTROL_C:
                path = []
            elif not path and typed == "4":
                return
            elif len(path) == 4 and typed in ORDERS:
                self.say("\n     Enter 'YES' to continue or <ENTER> to cancel : ")
                if next(self._typed).strip() == "YES":
                    self._pdu.order(path[3], ORDERS[typed])
                    self.say("\n     Command successfully issued.\n\n     Press <ENTER> to continue...")
                    next(self._typed)
            elif self._leads_on(path, typed):
                path.append(typed)

    def _leads_on(self, path: list[str], typed: str) -> bool:
        if len(path) < 3:
            return typed == ("1", "2", "1")[len(path)]
        return len(path) == 3 and typed.isdigit() and 1 <= int(typed) <= len(self._pdu.hosts)

    def _show(self, path: list[str]) -> None:
        if len(path) == 3:
            self.say("\n------- Outlet Control -------\n\n")
            for number, host in enumerate(self._pdu.hosts, 1):
                self.say(f"     {number}- {host:<24} {self._pdu.state(host, 'ON', 'OFF')}\n")
        elif len(path) == 4:
            host = self._pdu.hosts[int(path[3]) - 1]
            self.say(f"\n------- {host} -------\n\n     State: {self._pdu.state(host, 'ON', 'OFF')}\n\n")
            self.say("     1- Immediate On\n     2- Immediate Off\n     3- Immediate Reboot\n")
        else:
            self.say((MAIN, DEVICE, OUTLETS)[len(path)])
        self.say("\n> ")


def main(
    firmware: str, password_file: str, address: str, port: str, power: str, pdu: str, *hosts: str
) -> None:
    with open(password_file) as file:
        password = file.read().strip()
    busy = threading.Lock()

    def serve(sock: socket.socket) -> None:
        with sock:
            try:
                sock.settimeout(IDLE_S)
                Session(sock, Pdu(power, pdu, list(hosts)), firmware, password).run()
            except (HungUp, OSError):
                pass
            finally:
                busy.release()

    with socket.create_server((address, int(port))) as server:
        while True:
            sock, _ = server.accept()
            if busy.acquire(blocking=False):
                threading.Thread(target=serve, args=(sock,), daemon=True).start()
            else:
                sock.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
