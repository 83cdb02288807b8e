"""ringfence import, on files such as people have: what is carried over, what is said not to be."""

import stat
from pathlib import Path

import pytest
from cli_run import Run

from ringfence.config import Paths, differences, load, parse_corosync
from ringfence.core.cluster import Confirms, Level, NodeConfig, Use
from ringfence.core.errors import EXIT_FAILED

SAMPLES = Path(__file__).parent / "samples"
CMAN = str(SAMPLES / "cluster.conf")
COROSYNC, DLM = str(SAMPLES / "corosync.conf"), str(SAMPLES / "dlm.conf")
SAN = str(SAMPLES / "san.conf")
SECRETS = ("Initial", "s3cret", "s3san", "s3one", "s3two")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(out: str) -> list[str]:
    """What was not carried over, without the file's place."""
    lines = out.splitlines()
    first = lines.index("Not carried over as it stood:") + 1
    return [line.strip().removeprefix(f"{SAMPLES}/") for line in lines[first:] if line.startswith("  ")]


def test_cman_s_cluster_conf(run: Run, here: Path) -> None:
    ran = run("import", CMAN)
    assert (ran.code, ran.err) == (0, "")
    out = here / "an-cluster-07"
    loaded = load(Paths(), out / "an-a07n01/ringfence.toml")
    cluster = loaded.cluster
    assert (cluster.name, cluster.two_node, cluster.fence_action) == ("an-cluster-07", True, "reboot")
    assert (cluster.timing.token_ms, cluster.timing.post_join_delay_ms) == (5000, 30000)
    assert cluster.nodes[0] == NodeConfig(
        1,
        "an-a07n01",
        addresses=("an-a07n01.example.org", "an-a07n01.sn.example.org"),
        levels=(Level(("ipmi_n01",)), Level((Use("pdu1", {"port": "1"}), Use("pdu2", {"port": "1"})))),
    )
    bmc, pdu = cluster.device("ipmi_n01"), cluster.device("pdu2")
    assert (bmc.confirms, bmc.parameters) == (
        Confirms.HOST_OFF,
        {"delay": "15", "ipaddr": "10.20.51.1", "login": "admin"},
    )
    assert (pdu.confirms, pdu.parameters) == (Confirms.OUTLET_OFF, {"ipaddr": "10.20.2.2"})
    assert (out / "secrets/ipmi_n01").read_text().splitlines()[1:] == ["passwd=Initial1 'x'"]
    assert (out / "secrets/pdu2").read_text().splitlines()[1:] == ["community=s3cret"]
    assert not (out / "secrets/pdu1").exists(), "it had none, and worked"
    corosync = parse_corosync((out / "an-a07n02/corosync.conf").read_text())
    assert differences(cluster, corosync) == []
    assert "WARNING: a token of 5000 ms is slow: a host that hears nobody holds its writes" in ran.out
    assert said(ran.out) == [
        "cluster.conf: cman transport=udpu: here it is knet, encrypted",
        "cluster.conf: totem rrp_mode=passive: knet looks after several links by itself",
        "cluster.conf: totem secauth=off: here it is always on",
        "cluster.conf: fence_daemon post_fail_delay=5: a host that fails is fenced at once",
        "cluster.conf: an-a07n02.example.org <unfence>: nothing is switched on at boot: do that yourself",
        "cluster.conf: <quorumd>: a quorum disk's vote is not counted; its heuristics have no counterpart",
        "cluster.conf: <rm>: services are not ringfence's: leave them to Pacemaker, or to libvirt",
        "node 1 is called an-a07n01 here, not an-a07n01.example.org: `hostname -s` there must say so",
        "node 2 is called an-a07n02 here, not an-a07n02.example.org: `hostname -s` there must say so",
        "delay of an-a07n02 (fence_delay): it only waits",
    ]


def test_storage_fencing_a_manual_host_and_two_plugs_in_one_call(run: Run, here: Path) -> None:
    ran = run("import", SAN)
    assert ran.code == 0, ran.err
    cluster = load(Paths(), here / "san/s1/ringfence.toml").cluster
    assert [(node.id, node.votes, node.manual) for node in cluster.nodes] == [
        (1, 2, False),
        (2, 1, False),
        (7, 1, True),
    ]
    plugs = (Use("pdu", {"port": "5"}), Use("pdu", {"port": "6"}))
    assert cluster.nodes[1].levels == (Level(("fc",)), Level(plugs))
    assert cluster.device("fc").parameters["login"] == "fence", "the device's own go before the node's"
    assert cluster.device("scsi").confirms is Confirms.STORAGE_CUT
    assert "port" not in cluster.device("pdu").parameters
    assert cluster.fence_action == "off", "one of its methods left the host off"
    assert "human of s3 (fence_manual): it is a person's word; that is `ringfence fence confirm`" in said(
        ran.out
    )
    assert "NO FENCE DEVICE: s3." in ran.out


def test_corosync_and_dlm_together(run: Run, here: Path) -> None:
    ran = run("import", DLM, COROSYNC)
    assert ran.code == 0, ran.err
    cluster = load(Paths(), here / "web/web1/ringfence.toml").cluster
    assert (cluster.two_node, cluster.fence_action) == (False, "reboot")
    assert cluster.timing.token_ms == 3650, "the coefficient of the third node is in it"
    assert cluster.timing.post_join_delay_ms == 20000
    assert [node.levels for node in cluster.nodes] == [
        (Level(("bmc1",)), Level((Use("pdu-1", {"port": "1"}), Use("pdu-2", {"port": "1"})))),
        (Level(("bmc2",)), Level((Use("pdu-1", {"port": "2"}), Use("pdu-2", {"port": "2"})))),
        (),
    ]
    assert (here / "web/secrets/bmc2").read_text().splitlines()[1:] == ["passwd=s3two"]
    assert said(ran.out) == [
        "corosync.conf: totem consensus 4000: ringfence counts on corosync's default, 1.2 x token",
        "corosync.conf: totem interface: links come from the nodes' addresses, one each, on port 5405 and up",
        "corosync.conf: quorum last_man_standing 1: votes are counted as they are configured",
        "corosync.conf: quorum device: its vote is not counted: only nodes have votes",
        "corosync.conf: logging: it says nothing of the cluster",
        "corosync.conf: service: ringfence has no word for it",
        "corosync.conf: transport udpu, not encrypted; here knet, encrypted: all hosts change at once",
        "node 2 is called web2 here, not web2.example.org: `hostname -s` there must say so",
        "node 3 is called node3 here, not 192.168.7.3: `hostname -s` there must say so",
        "dlm.conf line 2: log_debug=1: it is about the kernel's DLM, which ringfence does not use",
        "dlm.conf line 18: unfence: nothing is switched on at boot: do that yourself",
        "dlm.conf line 20: lockspace: every member knows every lock: there is no master to choose",
        "dlm.conf line 21: master: every member knows every lock: there is no master to choose",
        "dlm.conf: device pdu:2 is connected to node 9, which corosync.conf has not",
    ]  # fmt: skip


@pytest.mark.parametrize("files", [(CMAN,), (SAN,), (COROSYNC,), (COROSYNC, DLM)])
def test_whatever_is_written_is_good_and_keeps_its_secrets(
    run: Run, here: Path, files: tuple[str, ...]
) -> None:
    for words in ((), ("--json", "--force"), ("--dry-run",)):
        ran = run("import", *files, "--out", "o", *words)
        assert ran.code == 0, ran.err
        shown = ran.out + ran.err
        assert not any(secret in shown for secret in SECRETS)
    checked = run("config", "check", str(next((here / "o").glob("*/ringfence.toml"))))
    assert checked.code == 0, checked.err
    for file in (here / "o").rglob("*"):
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            text = file.read_text()
            assert not any(secret in text for secret in SECRETS)
    told = (here / "o/NEXT.txt").read_text()
    assert "stop the old cluster software" in told


def test_what_init_writes_comes_back(run: Run, here: Path) -> None:
    assert run("init", "--name", "a", "n1=10.0.0.1,fd00::1", "n2=10.0.0.2,fd00::2").code == 0
    ran = run("import", "a/n1/corosync.conf", "--name", "b")
    assert ran.code == 0, ran.err
    assert said(ran.out) == ["a/n1/corosync.conf: logging: it says nothing of the cluster"]
    one, other = (load(Paths(), here / name / "n1/ringfence.toml").cluster for name in "ab")
    assert (one.nodes, one.two_node, one.timing) == (other.nodes, other.two_node, other.timing)


def test_an_agent_that_nobody_knows_must_be_vouched_for(run: Run, here: Path) -> None:
    text = Path(CMAN).read_text().replace("fence_ipmilan", "fence_own")
    (here / "own.conf").write_text(text)
    ran = run("import", "own.conf")
    assert ran.code == EXIT_FAILED
    assert "what an off of fence_own proves is not known; " in ran.err
    assert "say it: --confirms fence_own=host-off|outlet-off|storage-cut" in ran.err
    assert run("import", "own.conf", "--confirms", "fence_own=yes").code == EXIT_FAILED
    assert run("import", "own.conf", "--confirms", "fence_own=host-off").code == 0


def test_a_device_without_an_address_is_named(run: Run, here: Path) -> None:
    devices = '<fencedevices><fencedevice name="x" agent="fence_ilo"/></fencedevices>'
    (here / "f").write_bytes(cluster(one_node(METHOD.replace(" delay='30'", "")) + devices))
    ran = run("import", "f")
    assert ran.code == 0
    assert "  x of n (fence_ilo) has no ip: it cannot know what to switch off; add it to" in ran.out


def test_one_controller_for_two_hosts_is_warned_of(run: Run, here: Path) -> None:
    nodes = "".join(
        f'<clusternode name="n{id}" nodeid="{id}"><fence><method name="m"><device name="d{id}"/>'
        f"</method></fence></clusternode>"
        for id in (1, 2)
    )
    devices = "".join(
        f'<fencedevice name="d{id}" agent="fence_ilo" ipaddr="10.9.0.1" login="u{id}" passwd="p"/>'
        for id in (1, 2)
    )
    text = f"<clusternodes>{nodes}</clusternodes><fencedevices>{devices}</fencedevices>"
    (here / "f").write_bytes(cluster(text))
    assert "WARNING: 10.9.0.1 is the management controller of n1 and of n2: it" in run("import", "f").out
    (here / "f").write_bytes(cluster(text.replace("10.9.0.1", "10.9.0.2", 1)))
    assert "is the management controller of" not in run("import", "f", "--force").out


# -- broken and hostile -----------------------------------------------------------


def cluster(inside: str, root: str = '<cluster name="a">') -> bytes:
    return f"{root}{inside}</cluster>".encode()


def one_node(inside: str = "", attributes: str = 'name="n" nodeid="1"') -> str:
    return f"<clusternodes><clusternode {attributes}>{inside}</clusternode></clusternodes>"


METHOD = "<fence><method name='m'><device name='x' delay='30'/></method></fence>"
LAUGHS = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
BROKEN = {
    "empty": (b"", "f is empty"),
    "blank": (b" \n\n", "f is empty"),
    "bytes": (b"\x7fELF\x01\x00\x00", "f line 1 holds control characters"),
    "escapes": (b"totem {\n cluster_name: \x1b[2J\n}", "f line 2 holds control characters"),
    "line break in a name": (cluster(one_node("", 'name="n.x&#10;y" nodeid="1"')), "f line 1 holds control"),
    "blank in an address": (
        cluster(one_node("", 'name="n.x y" nodeid="1"')),
        "  f: n: 'n.x y' is no address; mend a copy of it, and import that",
    ),
    "a path for a name": (cluster(one_node("", 'name="../n" nodeid="1"')), "f: ../n: '../n' is no address"),
    "not utf-8": (b"totem {\n name: \xff\n}", "f is not UTF-8; save it as UTF-8"),
    "prose": (b"Dear admin,\nplease.\n", "f is neither cluster.conf, corosync.conf nor dlm.conf"),
    "huge": (b"<" + b" " * (1 << 20), "f is larger than any configuration"),
    "billion laughs": (
        f'<?xml version="1.0"?><!DOCTYPE c [<!ENTITY l0 "ha">{LAUGHS}]><cluster name="&l9;"/>'.encode(),
        "f line 1 declares a document type or an entity: not read; remove the declaration",
    ),
    "file entity": (
        b'<!DOCTYPE c [<!ENTITY x SYSTEM "file:///etc/shadow">]><cluster name="&x;"/>',
        "declares a document type or an entity",
    ),
    "other entity": (b'<cluster name="&x;"/>', "f line 1: undefined entity"),
    "deep": (b"<cluster>" + b"<a>" * 5000, "is nested too deep"),
    "cut off": (b'<cluster name="a">\n<clusternodes>', "f line 2: no element found"),
    "twice": (b'<cluster name="a" name="b"/>', "f line 1: duplicate attribute"),
    "wrong encoding": (b'<?xml version="1.0" encoding="utf-8"?><cluster name="\xff"/>', "f line 1: not "),
    "unknown encoding": (b'<?xml version="1.0" encoding="klingon"?><cluster/>', "f has an encoding that is"),
    "odd encoding": (b'<?xml version="1.0" encoding="idna"?><cluster/>', "f "),
    "html": (b"<html></html>", "f begins with <html>, not <cluster>"),
    "no nodes": (b'<cluster name="a"/>', "f has no <clusternode>"),
    "no name": (cluster(one_node(), "<cluster>"), "the files give the cluster no name; --name NAME"),
    "no node id": (cluster(one_node("", 'name="n1"')), 'f: clusternode n1 has no nodeid; add nodeid='),
    "node id -1": (cluster(one_node("", 'name="n" nodeid="-1"')), "f: clusternode nodeid='-1' is no number"),
    "no device": (cluster(one_node(METHOD)), "f: n: method m names 'x', which no fencedevice defines"),
    "delay too long": (
        cluster(one_node(METHOD) + '<fencedevices><fencedevice name="x" agent="fence_ilo"/></fencedevices>'),
        "[device.x] delay = 30 s leaves no time: a call is ended after 30000 ms",
    ),
    "no nodelist": (b"totem {\n version: 2\n}\n", "f has no nodelist with nodes"),
    "no nodeid": (b"nodelist {\n node {\n ring0_addr: a\n }\n}\n", "f: node a has no nodeid"),
    "no address": (b"nodelist {\n node {\n nodeid: 1\n name: a\n }\n}\n", "f: node 1 has no ring0_addr"),
    "open": (b"totem {\n version: 2\n", "f: section totem is not closed"),
    "dlm alone": (b"device a fence_ilo\nconnect a node=1\n", "f names no hosts; give the corosync.conf"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_and_hostile_files_are_one_line(run: Run, here: Path, case: str) -> None:
    data, says = BROKEN[case]
    (here / "f").write_bytes(data)
    ran = run("import", "f")
    assert (ran.code, ran.out, ran.err.count("\n")) == (EXIT_FAILED, "", 1)
    assert says in ran.err
    assert [path.name for path in here.iterdir()] == ["f"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("device a", "line 1: device needs a name and an agent"),
        ("connect a node=1", "line 1: connect names no device that was defined above"),
        ("device a fence_ilo\nconnect a port=1", "line 2: connect a has no node=ID"),
        ("device a fence_ilo\nconnect a node=x", "line 2: node=x is no number"),
        ("device a fence_ilo passwd=not one", "line 1: argument 2 is not key=value"),
        ("device a fence_ilo\ndevice a fence_ilo", "line 2: device a is there twice"),
        ("post_join_delay=soon", "line 1: post_join_delay=soon is no number"),
        ("device a fence_ilo\nwhatever", "line 2: 'whatever' is not understood"),
    ],
)
def test_a_broken_dlm_conf_is_one_line(run: Run, here: Path, line: str, says: str) -> None:
    (here / "dlm.conf").write_text(line)
    ran = run("import", COROSYNC, "dlm.conf")
    assert (ran.code, ran.err.count("\n")) == (EXIT_FAILED, 1)
    assert f"dlm.conf {says}" in ran.err


def test_files_that_do_not_go_together(run: Run, here: Path) -> None:
    assert "describes a whole cluster; give it alone" in run("import", CMAN, DLM).err
    assert "are both a cluster.conf; give one" in run("import", CMAN, SAN).err
    assert "one file is given twice" in run("import", CMAN, CMAN).err
    nowhere = "  cannot read nowhere: No such file or directory; check its name and mode\n"
    assert run("import", "nowhere").err == nowhere


def test_utf_16_is_read(run: Run, here: Path) -> None:
    text = '<?xml version="1.0" encoding="utf-16"?>' + cluster(one_node()).decode()
    (here / "f").write_bytes(text.encode("utf-16"))
    assert run("import", "f").code == 0
