"""A lab host's init: `python -m ringfence.lab.init DIR NODE`, the root of all processes of that host.

It holds the host's own link to the hub (as long as it answers, the host lives), starts the block
service and the daemon, starts further programs when asked, and buries orphans.  It starts nothing
again by itself: what ends stays ended until the host is booted."""

import os
import sys
import time
from pathlib import Path

from ringfence.config import load
from ringfence.lab.layout import Layout
from ringfence.lab.line_socket import Json, LineServer
from ringfence.lab.trees import become_subreaper, spawn
from ringfence.ring.hostlink import HostLink


def main(directory: str, node: str) -> None:
    places = Layout(Path(directory))
    become_subreaper()
    loaded = load(places.paths(node))
    HostLink(loaded.hub(places.paths(node)), loaded.cluster.node_named(node).id).start()
    root, python = str(places.root(node)), sys.executable
    log = places.root(node)
    spawn([python, "-m", "ringfence.block", "--root", root], log / "block.log")
    spawn([python, "-m", "ringfence", "daemon", "--node", node, "--root", root], log / "daemon.log")
    LineServer(places.init_socket(node), _asked)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.05)


def _asked(request: Json) -> Json:
    out = Path(request["out"]) if request.get("out") else Path(os.devnull)
    return {"pid": spawn(list(request["argv"]), out, dict(request.get("env") or {}))}


if __name__ == "__main__":
    main(*sys.argv[1:])
