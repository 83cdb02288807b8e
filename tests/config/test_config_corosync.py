"""corosync.conf: what is rendered reads back equal, and corosync itself accepts it."""

import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import differences, parse, parse_corosync, render_corosync
from ringfence.config.corosync_conf import CorosyncConf, CorosyncNode, Options, parse_sections
from ringfence.core.cluster import ClusterConfig, NodeConfig, Timing
from ringfence.core.errors import ConfigError

TWO = ClusterConfig(
    "an-a01",
    ring="corosync",
    two_node=True,
    nodes=(
        NodeConfig(1, "an-a01n01", addresses=("10.0.0.1", "10.1.0.1"), manual=True),
        NodeConfig(2, "an-a01n02", addresses=("10.0.0.2", "10.1.0.2"), manual=True),
    ),
)
RENDERED = """\
totem {
    version: 2
    cluster_name: an-a01
    transport: knet
    secauth: on
    crypto_cipher: aes256
    crypto_hash: sha256
    token: 1000
    token_coefficient: 0
    interface {
        linknumber: 0
        knet_ping_interval: 100
        knet_ping_timeout: 200
    }
    interface {
        linknumber: 1
        knet_ping_interval: 100
        knet_ping_timeout: 200
    }
}

nodelist {
    node {
        ring0_addr: 10.0.0.1
        ring1_addr: 10.1.0.1
        name: an-a01n01
        nodeid: 1
    }
    node {
        ring0_addr: 10.0.0.2
        ring1_addr: 10.1.0.2
        name: an-a01n02
        nodeid: 2
    }
}

quorum {
    provider: corosync_votequorum
    two_node: 1
    wait_for_all: 1
}

logging {
    to_stderr: no
    to_syslog: yes
    timestamp: on
}
"""


def configs() -> st.SearchStrategy[ClusterConfig]:
    def config(count: int, links: int, token_ms: int, votes: int) -> ClusterConfig:
        nodes = tuple(
            NodeConfig(
                id,
                f"n{id}",
                votes=votes,
                addresses=tuple(f"10.{link}.0.{id}" for link in range(links)),
                manual=True,
            )
            for id in range(1, count + 1)
        )
        timing = Timing(token_ms=token_ms, grant_ms=400, heartbeat_ms=100)
        return ClusterConfig("a", two_node=count == 2 and votes == 1, nodes=nodes, timing=timing)

    return st.builds(config, st.integers(1, 16), st.integers(1, 8), st.integers(200, 9000), st.integers(1, 3))


def test_two_nodes_as_a_person_would_write_them() -> None:
    assert render_corosync(TWO) == RENDERED


@given(configs())
def test_what_is_rendered_reads_back_and_agrees(config: ClusterConfig) -> None:
    conf = parse_corosync(render_corosync(config))
    assert differences(config, conf) == []
    assert (conf.encrypted, conf.wait_for_all) == (True, config.two_node)
    assert [node.addresses for node in conf.nodes] == [node.addresses for node in config.nodes]


def test_a_lab_gets_its_own_places_and_quick_pings() -> None:
    timing = Timing(token_ms=300, grant_ms=500)
    lab = msgspec.structs.replace(TWO, timing=timing)
    tree = parse_sections(render_corosync(lab, Options(state_dir="/x/state", logfile="/x/log")))
    totem, system = next(tree.inner("totem")), next(tree.inner("system"))
    assert [one.get("linknumber") for one in totem.inner("interface")] == ["0", "1"]
    assert (system.get("state_dir"), next(tree.inner("logging")).get("logfile")) == ("/x/state", "/x/log")
    one_link = tuple(msgspec.structs.replace(node, addresses=node.addresses[:1]) for node in lab.nodes)
    plain = render_corosync(msgspec.structs.replace(lab, nodes=one_link), Options(transport="udpu"))
    assert "crypto" not in plain
    assert "interface" not in plain


@pytest.mark.parametrize(
    ("addresses", "options", "says"),
    [
        (((), ("a",)), Options(), "[node.n1] has no addresses"),
        ((("a",), ("b", "c")), Options(), "[node.n2] has 2 addresses, n1 1"),
        ((("a", "b"), ("c", "d")), Options(transport="udpu"), "udpu has 1 link, not 2"),
        ((tuple("abcdefghi"),), Options(), "knet has 8 links, not 9"),
        ((("a",),), Options(transport="udp"), "transport udp is not known"),
    ],
)
def test_what_corosync_could_not_run_is_refused(
    addresses: tuple[tuple[str, ...], ...], options: Options, says: str
) -> None:
    nodes = tuple(NodeConfig(id, f"n{id}", addresses=one) for id, one in enumerate(addresses, 1))
    with pytest.raises(ConfigError) as caught:
        render_corosync(ClusterConfig("a", nodes=nodes), options)
    assert says in caught.value.message
    assert caught.value.next


# -- in -------------------------------------------------------------------------

FOREIGN = """
# Please read the manual
totem {
\tversion: 2
\ttransport:udpu
\tsecauth: off
\tinterface {
\t\tlinknumber: 0
\t}
}
nodelist {
  node {
    ring0_addr: b.example.com
    nodeid: 7
    quorum_votes: 2
  }
  node {
    nodeid: 3
    name: a
    ring1_addr: 10.1.0.1
    ring0_addr: 10.0.0.1
  }
  node {
    nodeid: 4
    ring0_addr: 10.0.0.4
  }
}
quorum {
  two_node: 0
}
quorum {
  provider: corosync_votequorum
}
"""


def test_another_s_file_is_understood_as_corosync_does() -> None:
    assert parse_corosync(FOREIGN) == CorosyncConf(
        transport="udpu",
        token_ms=3650,
        provider="corosync_votequorum",
        nodes=(
            CorosyncNode(3, "a", addresses=("10.0.0.1", "10.1.0.1")),
            CorosyncNode(4, "10.0.0.4", addresses=("10.0.0.4",)),
            CorosyncNode(7, "b.example.com", votes=2, addresses=("b.example.com",)),
        ),
    )


BROKEN = {
    "totem {": "section totem is not closed",
    "totem {\n}\n}": "line 3: a } too many",
    "totem { version: 2 }": "line 1: a section is NAME { and nothing else",
    "totem {\nversion 2\n}": "line 2 is neither key: value nor a section's begin or end",
    "totem {\ntoken: soon\n}": "totem token = 'soon' is no number",
    "{\n}": "line 1: a section is NAME {",
}


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_broken_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_corosync(text, "c.conf")
    assert BROKEN[text] in caught.value.message
    assert caught.value.message.startswith("c.conf")


@given(st.text(alphabet="totem{}: \n\t#0nodelist\x00\x85é", max_size=200))
def test_noise_is_read_or_refused(text: str) -> None:
    try:
        parse_corosync(text)
    except ConfigError as error:
        refused = str(error)
        assert "\n" not in refused


# -- both -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("nodeid: 2", "nodeid: 3", "node 2 (an-a01n02) is in ringfence.toml and not in corosync.conf"),
        ("nodeid: 2", "nodeid: 3", "node 3 (an-a01n02) is in corosync.conf and not in ringfence.toml"),
        ("name: an-a01n02", "name: other", "node 2 is called other in corosync.conf and an-a01n02 in ring"),
        ("10.1.0.2", "10.1.0.9", "node 2 has addresses 10.0.0.2 10.1.0.9 in corosync.conf and 10.0.0.2 10."),
        ("nodeid: 2", "nodeid: 2\nquorum_votes: 2", "node 2 has votes 2 in corosync.conf and 1 in ringfence"),
        (
            "token: 1000",
            "token: 3000",
            "corosync's token is 3000 ms (with token_coefficient), ringfence.toml",
        ),
        ("token: 1000", "token: 1000\nconsensus: 1500", "corosync's consensus is 1500 ms; ringfence counts"),
        ("two_node: 1", "two_node: 0", "two_node is off in corosync.conf and on in ringfence.toml"),
        ("provider: corosync_votequorum", "", "corosync.conf has no quorum provider"),
    ],
)
def test_each_difference_is_said(old: str, new: str, says: str) -> None:
    assert old in RENDERED
    found = differences(TWO, parse_corosync(RENDERED.replace(old, new)))
    assert any(line.startswith(says) for line in found), found


def test_addresses_need_not_stand_in_both() -> None:
    bare = tuple(msgspec.structs.replace(node, addresses=()) for node in TWO.nodes)
    assert differences(msgspec.structs.replace(TWO, nodes=bare), parse_corosync(RENDERED)) == []


def test_ringfence_toml_takes_the_ring() -> None:
    assert parse('[cluster]\nname = "a"\nring = "corosync"\n[node.n1]\nid = 1\nfence = "manual"\n').cluster


# -- corosync itself ---------------------------------------------------------------

ALONE = """mount --bind "$1" /etc/corosync && hostname "$2" && exec corosync -t"""
"""In a mount and a UTS namespace of its own, so that the files are where corosync looks for them."""


def corosync_says(directory: Path, host: str) -> subprocess.CompletedProcess[str]:
    words = ["unshare", "--mount", "--uts", "sh", "-c", ALONE, "sh", str(directory), host]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.mark.parametrize("count", [1, 2, 16])
@pytest.mark.parametrize("links", [1, 2])
def test_corosync_accepts_what_is_rendered(tmp_path: Path, count: int, links: int) -> None:
    nodes = tuple(
        NodeConfig(id, f"n{id}", addresses=(f"10.0.0.{id}", f"fd00::{id}")[:links], manual=True)
        for id in range(1, count + 1)
    )
    config = ClusterConfig("a", two_node=count == 2, nodes=nodes)
    (tmp_path / "authkey").write_bytes(bytes(256))
    (tmp_path / "corosync.conf").write_text(render_corosync(config))
    for node in (nodes[0], nodes[-1]):
        said = corosync_says(tmp_path, node.name)
        assert said.returncode == 0, said.stdout + said.stderr
    (tmp_path / "authkey").unlink()
    assert corosync_says(tmp_path, "n1").returncode != 0, "it does look: the key is read, for it is encrypted"
