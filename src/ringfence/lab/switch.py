"""The switch of a lab on corosync: `python -m ringfence.lab.switch DIR`, whose life is the network's.

It holds the namespaces of all hosts and does nothing else; cuts are made by whoever makes them."""

import os
import signal
import sys
from pathlib import Path

from ringfence.lab.layout import Layout, Wires
from ringfence.lab.network import Network


def main(directory: str) -> None:
    places = Layout(Path(directory))
    kept = places.kept()
    network = Network(len(kept.nodes), kept.ring.links, management=bool(kept.devices))
    hosts = {node: network.hosts[number].path for number, node in enumerate(kept.nodes, 1)}
    inodes = tuple(os.stat(path).st_ino for path in (network.switch.path, *hosts.values()))
    places.keep_wires(Wires(network.switch.path, hosts, inodes))
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
