"""Hosts on a bench: plain child processes whose power real fence agents switch, through devices that may lie.

A host runs while its chassis and one of its outlets are on; off is SIGKILL.  The bench owns the truth.
Devices (ipmi_sim, snmpd, ours) ask it by way of `ask.py`; each can be told to behave as real ones were seen
to."""

import contextlib
import json
import os
import select
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ringfence.lab.line_socket import Json, LineServer

PASSWORD = "secret"
ASK = Path(__file__).with_name("ask.py")


class Host:
    """Runs as a child process while it has power."""

    def __init__(self, name: str, outlets: tuple[int, ...]) -> None:
        self.name, self.outlets = name, outlets
        self.chassis = True
        self.boots = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def boot(self) -> None:
        if not self.runs:
            self._process = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
            self.boots += 1

    def cut(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Bench:
    """What is true, and what each device says of it.

    Args:
        hosts: name -> the outlets of the one PDU that feed it."""

    def __init__(self, directory: Path, hosts: dict[str, tuple[int, ...]]) -> None:
        self.dir = directory
        self.hosts = {name: Host(name, outlets) for name, outlets in hosts.items()}
        self.outlets = {number: True for outlets in hosts.values() for number in outlets}
        self.stale: set[str] = set()
        """Hosts whose controller says "off", whatever is true."""
        self.deaf: set[str] = set()
        """Hosts whose controller acknowledges orders and does nothing."""
        self.late_s: dict[str | int, float] = {}
        """Host or outlet -> how long after an order it is carried out."""
        self.slow_s: dict[str, float] = {}
        """Host -> how long its controller takes to say whether it is on."""
        self.pending: set[int] = set()
        """Outlets whose order is accepted and not carried out yet."""
        self.wired: dict[int, int] = {}
        """Outlet -> which one its relay really switches."""
        self.orders: list[tuple[str, str]] = []
        """(device, "on" or "off"), as they arrived."""
        self._lock = threading.RLock()
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._cut_all)
        self.socket = directory / "bench"
        server = LineServer(self.socket, self._asked)
        self._closing.callback(server.close)
        self._obey()

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.close()

    def _cut_all(self) -> None:
        for host in self.hosts.values():
            host.cut()

    # -- the truth -----------------------------------------------------------------

    def runs(self, host: str) -> bool:
        with self._lock:
            return self.hosts[host].runs

    def fed(self, host: str) -> bool:
        return any(self.outlets[one] for one in self.hosts[host].outlets)

    def chassis(self, host: str, to: bool) -> None:
        with self._lock:
            self.hosts[host].chassis = to
            self._obey()

    def outlet(self, number: int, to: bool) -> None:
        with self._lock:
            self.pending.discard(number)
            self.outlets[self.wired.get(number, number)] = to
            self._obey()

    def _obey(self) -> None:
        for host in self.hosts.values():
            if host.chassis and self.fed(host.name):
                host.boot()
            else:
                host.cut()

    # -- what devices ask ----------------------------------------------------------------

    def _asked(self, request: Json) -> Json:
        """{"bmc": host} or {"outlet": number}, and "to": bool for an order."""
        if "bmc" in request:
            time.sleep(self.slow_s.get(request["bmc"], 0.0))
            return self.bmc(request["bmc"], request.get("to"))
        return self.pdu(request["outlet"], request.get("to"))

    def bmc(self, name: str, to: bool | None = None) -> Json:
        with self._lock:
            host = self.hosts[name]
            if to is not None:
                self.orders.append((name, "on" if to else "off"))
                if name not in self.deaf:
                    self._after(name, lambda: self.chassis(name, to))
            return {"on": host.runs and name not in self.stale}

    def pdu(self, number: int, to: bool | None = None) -> Json:
        with self._lock:
            if number not in self.outlets:
                return {}
            if to is not None:
                self.orders.append((f"outlet {number}", "on" if to else "off"))
                self.pending.add(number)
                self._after(number, lambda: self.outlet(number, to))
            return {"on": self.outlets[number], "pending": number in self.pending}

    def _after(self, key: str | int, act: Callable[[], None]) -> None:
        late_s = self.late_s.get(key, 0.0)
        if not late_s:
            act()
            return
        timer = threading.Timer(late_s, act)
        timer.start()
        self._closing.callback(timer.join)
        self._closing.callback(timer.cancel)

    # -- devices ----------------------------------------------------------------------------

    def ipmi(self, host: str) -> "Device":
        """A management controller over RMCP+: ipmi_sim."""
        place, port = self.dir / f"ipmi-{host}", free_port(socket.SOCK_DGRAM)
        (place / "state").mkdir(parents=True)
        ask = self._ask(f"bmc {host}")
        (place / "lan.conf").write_text(LAN_CONF.format(port=port, ask=ask, password=PASSWORD))
        (place / "sim.emu").write_text(SIM_EMU)
        words = ["ipmi_sim", "-c", "lan.conf", "-f", "sim.emu", "-s", "state", "-n"]
        return self._start(words, place, port)

    def snmp(self) -> "Device":
        """A switched PDU: snmpd, with what it says of outlets from the bench."""
        place, port = self.dir / "snmp", free_port(socket.SOCK_DGRAM)
        place.mkdir()
        (place / "snmpd.conf").write_text(SNMPD_CONF.format(port=port, ask=self._ask("snmp")))
        words = ["snmpd", "-f", "-C", "-c", "snmpd.conf", "-m", "", "-Lf", "log", "-p", "pid"]
        return self._start(words, place, port)

    def gate(self, port: int) -> "Gate":
        """A way to a UDP device that can be shut."""
        gate = Gate(port)
        self._closing.callback(gate.close)
        return gate

    def _ask(self, words: str) -> str:
        script = self.dir / ("ask-" + words.replace(" ", "-"))
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {ASK} {self.socket} {words} "$@"\n')
        script.chmod(0o755)
        return str(script)

    def _start(self, words: list[str], place: Path, port: int) -> "Device":
        log = self._closing.enter_context((place / "output").open("w"))
        started = subprocess.Popen(
            words, cwd=place, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        device = Device(started, port)
        self._closing.callback(device.end)
        eventually(lambda: bound(port), 10)
        return device

    def telnet(self, say: Callable[["Bench", socket.socket], None]) -> int:
        """A device that is spoken to over TCP; its port."""
        bench = self

        class Session(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    say(bench, self.request)

        return self._serve(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session))

    def redfish(self, answer: Callable[["Bench", str, bytes], Json | bytes | None]) -> int:
        """An HTTPS service: path and body (of a POST) to what it answers; None: 404.  Its port."""
        bench = self

        class Request(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])))

            def _answer(self, body: bytes) -> None:
                said = answer(bench, self.path, body)
                data = said if isinstance(said, bytes) else json.dumps(said or {}).encode()
                self.send_response(404 if said is None else 200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate())
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        return self._serve(server)

    def _certificate(self) -> Path:
        path = self.dir / "cert.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-subj", "/CN=localhost", "-keyout", str(path), "-out", f"{path}.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
        path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
        return path

    def _serve(self, server: socketserver.TCPServer) -> int:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        self._closing.callback(server.server_close)
        self._closing.callback(server.shutdown)
        return int(server.server_address[1])


class Device:
    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self._process = process
        self.port = port

    def stop(self) -> None:
        """It neither hears nor answers; orders wait in its socket until it goes on."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Gate:
    """Forwards datagrams to a device.

    `sessions` is how many callers it still lets in, each for good (each ipmitool has a port of its own): with
    1 an agent may ask for the status, and its "off" stands at the door, and knocks, until there are more."""

    def __init__(self, port: int, sessions: int = 1 << 30) -> None:
        self.sessions = sessions
        self._inner = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._outer.bind(("127.0.0.1", 0))
        self._inner.connect(("127.0.0.1", port))
        self.port = int(self._outer.getsockname()[1])
        self._callers: list[Any] = []
        """One for each session, in order; answers go to the latest."""
        self.held = threading.Event()
        """Somebody stands at the door."""
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over:
            for ready in select.select([self._inner, self._outer], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    self._forward(ready)

    def _forward(self, ready: socket.socket) -> None:
        data, caller = ready.recvfrom(4096)
        if ready is self._inner:
            self._outer.sendto(data, self._callers[-1])
            return
        if caller not in self._callers:
            if self.sessions <= 0:
                self.held.set()
                return
            self.sessions -= 1
            self._callers.append(caller)
        self._inner.send(data)

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self._inner.close()
        self._outer.close()


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def bound(port: int) -> bool:
    """Whether somebody has this UDP port."""
    return any(
        int(line.split()[1].split(":")[1], 16) == port
        for line in Path("/proc/net/udp").read_text().splitlines()[1:]
    )


def eventually(true: Callable[[], bool], limit_s: float = 10) -> None:
    give_up = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)


LAN_CONF = """name "bmc"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{ask}"
  user 2 true "admin" "{password}" admin 10 none md2 md5 straight
"""
SIM_EMU = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
mc_enable 0x20
"""
SNMPD_CONF = """agentaddress udp:127.0.0.1:{port}
rwcommunity private 127.0.0.1
sysobjectid .1.3.6.1.4.1.318.1.3.4.5
pass_persist .1.3.6.1.4.1.318 {ask}
"""
