"""A lab's rack: `python -m ringfence.lab.devices DIR`, the process below which its simulated devices run.

In a lab on corosync it works in the switch's namespace, to which the hosts' management network leads."""

import signal
import sys
import threading
from pathlib import Path

from ringfence.core.errors import RingfenceError, Unavailable
from ringfence.lab.devices.rack import Rack
from ringfence.lab.layout import Layout
from ringfence.lab.line_socket import Json, LineServer
from ringfence.lab.namespaces import enter
from ringfence.lab.trees import become_subreaper


def main(directory: str) -> None:
    places = Layout(Path(directory))
    if places.kept().ring.is_corosync:
        wires = places.wires()
        if wires is None:
            raise Unavailable("the lab's switch does not run", next="ringfence lab down, and up")
        enter(wires.switch)  # before there are threads, which would stay outside
    become_subreaper()
    password = places.password_file.read_text().strip()
    rack = Rack(places.devices(), places.rack, places.power_socket, password)
    rack.start()

    def asked(request: Json) -> Json:
        if request["order"] == "follow":
            rack.follow(request["hosts"])
        return {"devices": rack.conditions()}

    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: over.set())
    server = LineServer(places.rack_socket, asked)
    over.wait()
    server.close()
    rack.close()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RingfenceError as error:
        sys.exit(str(error))
