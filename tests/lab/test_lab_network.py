"""The lab's network: what a cut lets through and what not, and that nothing of it is left.

Hosts ping one another by UDP from within this process."""

import os
import signal
import socket as sockets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_watch import eventually

from ringfence.core.cluster import ClusterConfig, NodeConfig, Timing
from ringfence.core.errors import Unavailable
from ringfence.lab.corosync import SHARED, CorosyncFiles, LoneCorosync, new_key
from ringfence.lab.namespaces import Namespace
from ringfence.lab.network import Cables, Network, Way, address, cuts_between

HOSTS, LINKS = (1, 2, 3), 2


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Whose cables carry: the first packet over a new one may wait a second for the other's address."""
    made = Network(len(HOSTS), LINKS)
    try:
        for link in range(LINKS):
            eventually(lambda link=link: heard(made, link) == ALL)
        yield made
    finally:
        made.close()


@pytest.fixture
def cables(network: Network) -> Iterator[Cables]:
    found = Cables(network.switch.path)
    yield found
    found.heal()


def heard(network: Network, link: int = 0) -> set[tuple[int, int]]:
    """(sender, receiver) of all packets that arrive."""
    ends = {}
    for number in HOSTS:
        with network.hosts[number].inside():
            ends[number] = sockets.socket(sockets.AF_INET, sockets.SOCK_DGRAM)
            ends[number].bind((address(number, link), 5000))
            ends[number].settimeout(0.1)
    found = set()
    for one in HOSTS:
        for other in HOSTS:
            if one != other:
                ends[one].sendto(b"%d" % one, (address(other, link), 5000))
    for other, end in ends.items():
        try:
            while True:
                found.add((int(end.recv(16)), other))
        except TimeoutError:
            end.close()
    return found


ALL = {(one, other) for one in HOSTS for other in HOSTS if one != other}


@pytest.mark.parametrize(
    ("others", "way", "lost"),
    [
        ((2, 3), Way.BOTH, {(1, 2), (1, 3), (2, 1), (3, 1)}),
        ((2, 3), Way.OUTBOUND, {(1, 2), (1, 3)}),
        ((2, 3), Way.INBOUND, {(2, 1), (3, 1)}),
        ((2,), Way.BOTH, {(1, 2), (2, 1)}),
        ((3,), Way.INBOUND, {(3, 1)}),
    ],
)
def test_a_cut_stops_what_it_names_and_nothing_else(
    network: Network, cables: Cables, others: tuple[int, ...], way: Way, lost: set[tuple[int, int]]
) -> None:
    cuts = cuts_between([1], others, range(LINKS), way)
    assert {cut[:2] for cut in cuts} == lost
    assert heard(network) == ALL
    cables.cut(cuts)
    cables.cut(cuts)  # what is cut is cut
    assert cables.cuts() == frozenset(cuts)
    assert heard(network) == heard(network, 1) == ALL - lost
    cables.heal()
    assert cables.cuts() == frozenset()
    assert heard(network) == ALL


def test_one_link_of_two(network: Network, cables: Cables) -> None:
    cables.cut(cuts_between([1], [2, 3], [0]))
    assert heard(network) == {(2, 3), (3, 2)}
    assert heard(network, 1) == ALL


def test_networks_do_not_meet_and_nothing_stands_outside(network: Network) -> None:
    before = links()
    other = Network(2)
    try:
        Cables(other.switch.path).cut([(1, 2, 0)])
        assert heard(network) == ALL
        assert links() == before
    finally:
        other.close()


def links() -> list[str]:
    return os.listdir("/sys/class/net")


def test_what_cannot_be_done_is_said_in_one_line() -> None:
    made = Namespace()
    try:
        with pytest.raises(Unavailable, match=r"ip link show nowhere failed: .*nowhere"):
            made.run(["ip", "link", "show", "nowhere"])
    finally:
        made.close()


def test_without_root_it_is_refused() -> None:
    script = (
        "from ringfence.lab.network import Network\n"
        "from ringfence.core.errors import Refused\n"
        "try: Network(2)\nexcept Refused as error: print(error)\n"
    )
    plain = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.getuid() == 0 else []
    ran = subprocess.run(
        [*plain, sys.executable, "-c", script], text=True, capture_output=True, timeout=60, check=False
    )
    assert "become root" in ran.stdout, ran


def test_corosyncs_meet_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    network = Network(2)
    nodes = tuple(NodeConfig(number, f"n{number}", addresses=(address(number),)) for number in (1, 2))
    config = ClusterConfig("bare", ring="corosync", two_node=True, timing=Timing(token_ms=300), nodes=nodes)
    ring, key = [], new_key()
    try:
        for number, host in network.hosts.items():
            files = CorosyncFiles(tmp_path / f"n{number}")
            files.write(config, "udpu", key)
            assert files.key.stat().st_mode & 0o777 == 0o600
            ring.append(LoneCorosync(files, host.path, tmp_path / f"run{number}"))
            ring[-1].start()

        def members(number: int) -> int:
            try:
                told = network.hosts[number].run(["corosync-quorumtool", "-l"])
            except Unavailable:
                return 0
            return sum(f"n{one}" in told for one in (1, 2))

        eventually(lambda: members(1) == members(2) == 2)
        pid = ring[0].pid
        assert list(SHARED.glob(f"qb-*{pid}-*"))
        ring[0].stop(signal.SIGKILL)
        eventually(lambda: members(2) == 1)
        assert not list(SHARED.glob(f"qb-*{pid}-*"))
        assert list(SHARED.glob(f"qb-*{ring[1].pid}-*")), "its neighbour's are left alone"
        assert not Path("/run/corosync.pid").exists()
    finally:
        for one in ring:
            one.stop()
        network.close()
