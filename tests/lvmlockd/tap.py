"""Stands between a host's stock commands and its lock daemon, and writes down what they say."""

import contextlib
import errno
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from stock_rig import LabHost

from ringfence.config import Paths

END = b"\n##\n"
_FIELD = re.compile(r'^(\w+) ?= ?"?([^"\n]*)"?$', re.MULTILINE)
_NAMES = {210: "ENOLS", 211: "ESTARTING", 212: "EARGS", 219: "EREMOVED"}


class Tap:
    """As a value of LVM_LVMLOCKD_SOCKET: `place`."""

    def __init__(self, place: Path, daemon: Path) -> None:
        self.place = place
        self._daemon = daemon
        self._lines: list[str] = []

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.place))
            listener.listen(64)
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                self.place.unlink()

    def taken(self) -> list[str]:
        """A line a request, with its answer, since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._relay, args=(listener.accept()[0],), daemon=True).start()

    def _relay(self, peer: socket.socket) -> None:
        with peer, socket.socket(socket.AF_UNIX) as daemon, contextlib.suppress(OSError):
            daemon.connect(str(self._daemon))
            while (request := _frame(peer)) and not daemon.sendall(request):
                answer = _frame(daemon)
                if (line := _told(request, answer)) is not None:
                    self._lines.append(line)
                peer.sendall(answer)


def taps_of(hosts: Mapping[str, LabHost]) -> dict[str, Tap]:
    """One for each host of a lab, beside its daemon's socket."""
    daemons = {name: Paths(host.lab.root(host.name)).lvmlockd_socket for name, host in hosts.items()}
    return {name: Tap(daemon.with_name("tap"), daemon) for name, daemon in daemons.items()}


def _frame(sock: socket.socket) -> bytes:
    """One request or reply; at any time there is only one on its way.  b"": the other side has ended."""
    text = b""
    while not text.endswith(END) and (part := sock.recv(1 << 16)):
        text += part
    return text


def _told(request: bytes, answer: bytes) -> str | None:
    asked, said = (dict(_FIELD.findall(text.decode())) for text in (request, answer))
    if asked["request"] == "hello":
        return None
    words = [asked["request"]]
    words += [asked[name] for name in ("lv_name", "mode") if name in asked]
    words += [one for one in asked.get("opts", "").split(",") if one not in ("", "none")]
    result, flags = int(said.get("op_result", said.get("result", 0))), said.get("result_flags", "none")
    how = [_name(result)] + ([flags.rstrip(",")] if flags != "none" else [])
    return f"{' '.join(words)}: {' '.join(how)}"


def _name(result: int) -> str:
    if result >= 0:
        return str(result) if result else "ok"
    return _NAMES.get(-result) or errno.errorcode.get(-result, str(result))
