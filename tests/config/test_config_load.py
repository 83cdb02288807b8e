"""ringfence.toml: what is good loads and renders back equal; what is wrong is one line with a cure."""

import os
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import Loaded, Paths, check_cluster, digest, load, parse, read_secrets, render
from ringfence.core.cluster import (
    ClusterConfig,
    Confirms,
    DeviceConfig,
    Level,
    Lvmlockd,
    NodeConfig,
    Timing,
    Use,
)
from ringfence.core.errors import EXIT_FAILED, ConfigError

GOOD = """
[cluster]
name = "an-a01"
version = 3
two_node = true

[timing]
write_ms = 4000

[devices]
paths = ["/dev/disk/by-id/wwn-*", "/tmp/disk.img"]

[socket]
group = "qemu"

[block]
plane = "auto"

[node.an-a01n02]
id = 2
addresses = ["10.0.0.2"]
fence = "manual"

[node.an-a01n01]
id = 1
[[node.an-a01n01.level]]
devices = ["bmc"]
[[node.an-a01n01.level]]
devices = ["pdu1", "pdu2"]

[device.pdu1]
agent = "fence_apc"
confirms = "outlet-off"
parameters = { plug = 3, ssh = true }

[device.pdu2]
agent = "fence_apc"
confirms = "outlet-off"
own_supply = true

[device.bmc]
agent = "fence_ipmilan"
confirms = "host-off"
timeout_ms = 9000
parameters = { ip = "10.0.0.9", passwd_script = "/root/ask" }
"""


@pytest.mark.parametrize(
    ("root", "socket", "etc"),
    [
        (None, "", "/etc/ringfence"),
        (None, "/run/ringfence/socket", "/etc/ringfence"),
        (None, "/tmp/lab/n1/run/ringfence/socket", "/tmp/lab/n1/etc/ringfence"),
        (None, "/tmp/elsewhere", "/etc/ringfence"),
        ("/tmp/lab/n2", "/tmp/lab/n1/run/ringfence/socket", "/tmp/lab/n2/etc/ringfence"),
    ],
)
def test_the_host_that_is_meant(root: str | None, socket: str, etc: str) -> None:
    """Whoever talks to a lab host's daemon means that host's files, too."""
    assert Paths.meant(Path(root) if root else None, socket).etc == Path(etc)


def test_every_field_arrives() -> None:
    loaded = parse(GOOD)
    assert loaded.devices_paths == ("/dev/disk/by-id/wwn-*", "/tmp/disk.img")
    assert (loaded.socket_group, loaded.lab, loaded.hub_socket) == ("qemu", False, None)
    assert loaded.cluster == ClusterConfig(
        name="an-a01",
        version=3,
        two_node=True,
        timing=Timing(write_ms=4000),
        nodes=(
            NodeConfig(1, "an-a01n01", levels=(Level(("bmc",)), Level(("pdu1", "pdu2")))),
            NodeConfig(2, "an-a01n02", addresses=("10.0.0.2",), manual=True),
        ),
        devices=(
            DeviceConfig(
                "bmc",
                "fence_ipmilan",
                Confirms.HOST_OFF,
                {"ip": "10.0.0.9", "passwd_script": "/root/ask"},
                timeout_ms=9000,
            ),
            DeviceConfig("pdu1", "fence_apc", Confirms.OUTLET_OFF, {"plug": "3", "ssh": "1"}),
            DeviceConfig("pdu2", "fence_apc", Confirms.OUTLET_OFF, own_supply=True),
        ),
    )


def test_what_was_loaded_renders_to_the_same() -> None:
    loaded = parse(GOOD)
    assert parse(render(loaded)) == loaded
    shared = parse(render(loaded.cluster))
    assert shared == Loaded(loaded.cluster), "the shared part alone leaves the host's own part out"


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n"), max_size=12)


@given(
    names,
    st.lists(names, min_size=1, max_size=4, unique=True),
    texts,
    st.booleans(),
    st.lists(texts.map("/".__add__)),
)
def test_any_configuration_renders_back(
    name: str, nodes: list[str], value: str, lab: bool, paths: list[str]
) -> None:
    device = DeviceConfig(name, "agent " + value, Confirms.STORAGE_CUT, {"ip": value, "a b": value})
    cluster = ClusterConfig(
        name,
        nodes=tuple(NodeConfig(id, one, levels=(Level((name,)),)) for id, one in enumerate(nodes, 1)),
        devices=(device,),
        naive=lab,
        fence_action="reboot",
        lvmlockd=Lvmlockd(serve=lab, vg_wait_ms=len(value), lv_wait_ms=len(paths)),
    )
    loaded = Loaded(cluster, tuple(paths), "g", Path("/run/x y"), lab, "/tmp/lab" if lab else "")
    assert parse(render(loaded)) == loaded


def edit(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


WRONG = {
    "unknown table": (GOOD + "\n[nodes]\n", "unknown table [nodes]; did you mean node?"),
    "unknown key": (
        edit("two_node", "twonode"),
        "[cluster] has an unknown key 'twonode'; did you mean two_node?",
    ),
    "unknown key in a node": (
        edit("id = 2", "id = 2\nvote = 1"),
        "[node.an-a01n02] has an unknown key 'vote'; did",
    ),
    "unknown key in timing": (
        edit("write_ms", "write_sec"),
        "[timing] has an unknown key 'write_sec'; did you",
    ),
    "unknown key in a level": (
        edit('devices = ["bmc"]', 'device = ["bmc"]'),
        "[[node.an-a01n01.level]] has an",
    ),
    "a node twice": (
        GOOD + "[node.an-a01n01]\nid=5\n",
        "line 46: node an-a01n01 is configured twice; remove one",
    ),
    "a device twice": (GOOD + "[device.bmc]\n", "device bmc is configured twice; remove one"),
    "a key twice": (edit("id = 2", "id = 2\nid = 3"), "set a second time: id = 3; remove one"),
    "a table twice": (GOOD + "[timing]\n", "timing"),
    "an id twice": (edit("id = 2", "id = 1"), "id = 1 is an-a01n01's already; give each node its own"),
    "no id": (edit("id = 2\n", ""), "[node.an-a01n02] has no id; add id = NUMBER"),
    "id 0": (edit("id = 2", "id = 0"), "id = 0 cannot be"),
    "id a string": (edit("id = 2", 'id = "2"'), "[node.an-a01n02] id is not a whole number; mend"),
    "id true": (edit("id = 2", "id = true"), "id is not a whole number"),
    "no nodes": ('[cluster]\nname = "x"\n', "no node is configured; add [node.NAME]"),
    "no cluster": ("", "there is no [cluster]; add"),
    "no cluster name": ("[cluster]\n", "[cluster] has no name; add"),
    "bad node name": (GOOD + '[node."a b"]\nid = 3\nfence = "manual"\n', "'a b' cannot be a name; use"),
    "a level without devices": (edit('devices = ["bmc"]', "devices = []"), "number 1 has no devices; add"),
    "a level without a word": (edit('devices = ["bmc"]\n', ""), "number 1 has no devices; add"),
    "an unknown device": (
        edit('devices = ["bmc"]', 'devices = ["bmx"]'),
        "'bmx', which is not configured; add",
    ),
    "a device twice in a level": (edit('"pdu1", "pdu2"', '"pdu1", "pdu1"'), "names device 'pdu1' twice"),
    "level no table": (edit("id = 2", "id = 2\nlevel = 3"), "level is not a list of tables; write"),
    "no levels": (
        edit('fence = "manual"\n', ""),
        "[node.an-a01n02] has no fence level: it could never be given up",
    ),
    "manual and levels": (
        edit("id = 1", 'id = 1\nfence = "manual"'),
        'has fence = "manual" and fence levels',
    ),
    "plane other": (edit('"auto"', '"scsi"'), '[block] plane = "scsi" is not known; give "nbd", "dm" or'),
    "fence = other": (edit('"manual"', '"none"'), 'fence = "none" is not known'),
    "two_node with three": (
        GOOD + '[node.c]\nid = 3\nfence = "manual"\n',
        "two_node needs exactly two nodes",
    ),
    "two_node with votes": (
        edit("id = 2", "id = 2\nvotes = 2"),
        "two_node needs exactly two nodes with one vote",
    ),
    "votes below 0": (edit("id = 2", "id = 2\nvotes = -1"), "votes = -1 cannot be"),
    "no votes at all": (
        edit("two_node = true", "")
        .replace("id = 1", "id = 1\nvotes = 0")
        .replace("id = 2", "id = 2\nvotes = 0"),
        "no node has a vote",
    ),
    "grant >= detection": (
        edit("write_ms = 4000", "grant_ms = 2200"),
        "below the ring's detection time, 2.2 x",
    ),
    "write < grant": (
        edit("write_ms = 4000", "write_ms = 1000"),
        "write_ms = 1000 must not be below grant_ms",
    ),
    "heartbeat too slow": (edit("write_ms = 4000", "heartbeat_ms = 900"), "at least two heartbeats of 900"),
    "silent too short": (edit("write_ms = 4000", "silent_ms = 400"), "silent_ms = 400 must be above two"),
    "time 0": (edit("write_ms = 4000", "token_ms = 0"), "[timing] token_ms = 0 cannot be"),
    "time negative": (edit("write_ms = 4000", "grace_ms = -1"), "[timing] grace_ms = -1 cannot be"),
    "held too long": (edit("write_ms = 4000", "min_hold_ms = 1001"), "min_hold_ms = 1001 lets other"),
    "stock LVM2 waits for less than nothing": (
        GOOD + "[lvmlockd]\nlv_wait_ms = -1\n",
        "[lvmlockd] lv_wait_ms = -1 cannot be",
    ),
    "stock LVM2 served by a word": (
        GOOD + '[lvmlockd]\nserve = "no"\n',
        "[lvmlockd] serve is not true or false",
    ),
    "stock LVM2's key": (GOOD + "[lvmlockd]\nwait_ms = 1\n", "[lvmlockd]"),
    "time a float": (edit("write_ms = 4000", "grace_ms = 1.5"), "grace_ms is not a whole number"),
    "secret inline": (
        edit("plug = 3", 'password = "x"'),
        "hold a secret (password); move it to secrets/pdu1",
    ),
    "secret inline, old name": (edit("plug = 3", 'passwd = "x"'), "hold a secret (passwd)"),
    "secret inline, snmp": (edit("plug = 3", 'community = "x"'), "hold a secret (community)"),
    "action set": (edit("plug = 3", 'action = "on"'), "parameters may not set 'action'"),
    "old option= set": (edit("plug = 3", 'option = "on"'), "parameters may not set 'option'"),
    "parameter a list": (edit("plug = 3", "plug = [3]"), "plug is neither string nor number"),
    "parameter of two lines": (edit("plug = 3", r'plug = "3\naction=on"'), "cannot be handed to an agent"),
    "no agent": (edit('agent = "fence_ipmilan"\n', ""), "[device.bmc] has no agent"),
    "no confirms": (
        edit('confirms = "host-off"\n', "").replace("fence_ipmilan", "fence_own"),
        '[device.bmc] has no confirms; add confirms = "host-off" or',
    ),
    "confirms other": (edit('"host-off"', '"off"'), 'confirms = "off" is not known; give "host-off" or'),
    "naive outside a lab": (
        edit("version = 3", "naive = true"),
        "naive = true switches every protection off",
    ),
    "ring not served": (edit("version = 3", 'ring = "totem"'), 'ring = "totem" is not served by this'),
    "naive over corosync": (
        edit("version = 3", 'naive = true\nring = "corosync"') + "\n[lab]\n",
        'naive needs ring = "hub"',
    ),
    "fence_action other": (edit("version = 3", 'fence_action = "on"'), 'fence_action = "on" is not known'),
    "version 0": (edit("version = 3", "version = 0"), "version = 0 cannot be"),
    "paths not a list": (
        edit('paths = ["/dev/disk/by-id/wwn-*", "/tmp/disk.img"]', 'paths = "/x"'),
        "paths is not a",
    ),
    "paths relative": (edit('"/tmp/disk.img"', '"disk.img"'), "[devices] paths: 'disk.img' is not absolute"),
    "hub relative": (GOOD + '[hub]\nsocket = "x"\n', "[hub] socket = 'x' is not absolute"),
    "no TOML": ("[cluster\n", "line 1: "),
    "a table that is none": ("cluster = 3\n", "[cluster] is not a table"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line_with_a_cure(case: str) -> None:
    text, expected = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        parse(text, "/etc/ringfence/ringfence.toml")
    line = str(caught.value)
    assert expected in line
    assert line.startswith("/etc/ringfence/ringfence.toml"), "the file is named"
    assert "\n" not in line
    assert caught.value.next
    assert caught.value.exit_code == EXIT_FAILED


def test_naive_only_in_a_lab_on_the_hub() -> None:
    text = edit("version = 3", "naive = true") + '[lab]\ndir = "/tmp/lab"\n'
    loaded = parse(text)
    assert (loaded.cluster.naive, loaded.lab, loaded.lab_dir) == (True, True, "/tmp/lab")
    with pytest.raises(ConfigError, match="for labs only"):
        check_cluster(loaded.cluster, lab=False)


def test_the_digest_knows_every_difference_and_no_order() -> None:
    cluster = parse(GOOD).cluster
    turned = parse(edit("plug = 3, ssh = true", "ssh = true, plug = 3")).cluster
    assert digest(turned) == digest(cluster)
    assert digest(msgspec.structs.replace(cluster, version=4)) != digest(cluster)
    assert digest(parse(edit("plug = 3", "plug = 4")).cluster) != digest(cluster)


# -- files --------------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path)
    found.secrets.mkdir(parents=True)
    found.file.write_text(GOOD)
    return found


def test_one_root_moves_everything(tmp_path: Path) -> None:
    for root in (Path("/"), tmp_path):
        paths = Paths(root)
        places = [getattr(paths, name) for name, one in vars(Paths).items() if isinstance(one, property)]
        assert all(place.is_relative_to(root) for place in places)
        assert len(places) == len(set(places)) > 10
    assert str(Paths().socket) == "/run/ringfence/socket"
    assert str(Paths().file) == "/etc/ringfence/ringfence.toml"


def test_load(paths: Paths) -> None:
    loaded = load(paths)
    assert loaded == parse(GOOD)
    assert loaded.hub(paths) == paths.hub_socket


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*/etc/ringfence/ringfence.toml; write it"):
        load(Paths(tmp_path))


def test_a_file_that_is_no_text(paths: Paths) -> None:
    paths.file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(paths)


def test_a_directory_instead_of_a_file(paths: Paths) -> None:
    paths.file.unlink()
    paths.file.mkdir()
    with pytest.raises(ConfigError, match=r"cannot read .*Is a directory"):
        load(paths)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_secret_that_others_may_use_is_refused(paths: Paths, mode: int) -> None:
    secret = paths.secrets / "bmc"
    secret.write_text("password=x\n")
    secret.chmod(mode)
    with pytest.raises(ConfigError, match=rf"may use it \(mode 0{mode:o}\); chmod 600 {secret}"):
        load(paths)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secrets(paths, "bmc")


def test_secrets_are_read(paths: Paths) -> None:
    secret = paths.secrets / "bmc"
    secret.write_text("# the BMC's\n\npassword = a=b # c\nsnmp_priv_password=\n")
    secret.chmod(0o600)
    load(paths)
    assert read_secrets(paths, "bmc") == {"password": "a=b # c", "snmp_priv_password": ""}
    assert read_secrets(paths, "pdu1") == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hunter2\n", "line 1 is not key=value"),
        ("a=1\na=hunter2\n", "line 2: a stands there twice"),
        ("a b=hunter2", "line 1 is not"),
    ],
)
def test_a_wrong_secret_file_is_refused_without_quoting_it(paths: Paths, text: str, expected: str) -> None:
    secret = paths.secrets / "bmc"
    secret.write_text(text)
    secret.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read_secrets(paths, "bmc")
    assert expected in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_secret_that_is_a_directory(paths: Paths) -> None:
    os.mkdir(paths.secrets / "bmc", 0o700)
    with pytest.raises(ConfigError, match="is not a file"):
        read_secrets(paths, "bmc")


def test_the_manual_page_s_example_is_good() -> None:
    page = (Path(__file__).parents[2] / "packaging/man/ringfence.toml.5").read_text()
    example = page.split(".nf\n")[1].split(".fi\n")[0]
    assert parse(example).cluster.two_node
    for name in Timing.__struct_fields__:
        assert f"{name} ({getattr(Timing(), name)})" in page.replace("\n", " "), "its defaults are the code's"


def test_a_level_names_plugs_and_what_is_written_loads_back() -> None:
    text = FENCED
    cluster = parse(text).cluster
    first, second = cluster.node_named("n1").levels
    assert (first.names, first.parallel) == (("ipmi-n1",), False)
    assert second.uses == (Use("apc", {"plug": "5"}), Use("apc", {"plug": "6"}))
    assert [use.label for use in second.uses] == ["apc[5]", "apc[6]"]
    assert second.parallel
    assert (cluster.node_named("n1").fence_delay_ms, cluster.fencing) == (5000, "pacemaker")
    assert cluster.evidence == ("power", "operator")
    apc = cluster.device("apc")
    assert (apc.sessions, apc.settle_ms, apc.looks, apc.look_every_ms) == (2, 1000, 5, 4000)
    assert parse(render(cluster)).cluster == cluster


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ('plug = "6"', 'plug = "5"', "names device 'apc[5]' twice"),
        ('device = "apc", plug = "6"', 'plug = "6"', "has no device"),
        ('plug = "6"', 'password = "6"', "hold a secret"),
        ('plug = "6"', 'action = "on"', "may not set 'action'"),
        ("fence_delay_ms = 5000", "fence_delay_ms = -1", "cannot be"),
        ('evidence = ["power", "operator"]', 'evidence = ["hope"]', '"hope" is no kind of proof'),
        ('fencing = "pacemaker"', 'fencing = "cman"', "is not known"),
        ("looks = 5", "looks = 0", "give 1 to 100"),
    ],
)
def test_what_cannot_be_meant_of_levels_is_refused(good: str, bad: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse(FENCED.replace(good, bad))


FENCED = """
[cluster]
name = "c"
fencing = "pacemaker"
evidence = ["power", "operator"]
[node.n1]
id = 1
fence_delay_ms = 5000
[[node.n1.level]]
devices = ["ipmi-n1"]
[[node.n1.level]]
devices = [{device = "apc", plug = "5"}, {device = "apc", plug = "6"}]
parallel = true
[device.ipmi-n1]
agent = "fence_ipmilan"
confirms = "host-off"
[device.apc]
agent = "fence_apc_snmp"
confirms = "outlet-off"
sessions = 2
settle_ms = 1000
looks = 5
look_every_ms = 4000
"""


def test_pacemaker_stands_for_the_levels_that_nodes_do_not_have() -> None:
    text = """
[cluster]
name = "c"
fencing = "pacemaker"
[node.a]
id = 1
[node.b]
id = 2
fence = "manual"
[node.c]
id = 3
[[node.c.level]]
devices = [{device = "pacemaker", plug = "c.example"}]
[[node.c.level]]
devices = ["bmc"]
[device.bmc]
agent = "fence_ipmilan"
confirms = "host-off"
"""
    loaded = parse(text)
    a, b, c = (loaded.cluster.levels_of(id) for id in (1, 2, 3))
    assert (a, b) == ((Level(("pacemaker",)),), ())
    assert [use.label for level in c for use in level.uses] == ["pacemaker[c.example]", "bmc"]
    own = loaded.cluster.device("pacemaker")
    assert (own.agent, own.confirms) == ("ringfence-pacemaker", Confirms.HOST_OFF)
    assert int(own.parameters["timeout"]) * 1000 < own.timeout_ms, "Pacemaker gives up before it is ended"
    assert parse(render(loaded)) == loaded
    with pytest.raises(ConfigError, match="not how Pacemaker is asked"):
        parse(text.replace("device.bmc", "device.pacemaker").replace('"bmc"', '"pacemaker"'))


SBD = """
[cluster]
name = "c"
evidence = ["power", "new-boot", "operator", "self-fence"]
[node.a]
id = 1
[[node.a.level]]
devices = ["sbd"]
[device.sbd]
agent = "fence_sbd"
confirms = "self-fence"
timeout_ms = 40000
parameters = { devices = "/dev/sbd" }
"""


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('"operator", "self-fence"', '"operator"', "rests on the watchdog"),
        ('confirms = "self-fence"', 'confirms = "host-off"', "whether or not the host obeyed"),
        ('confirms = "self-fence"\n', "", "whether or not the host obeyed"),
        ("fence_sbd", "fence_ipmilan", "is of fence_sbd alone"),
        ("timeout_ms = 40000\n", "", "or its time"),
        ('devices = "/dev/sbd"', 'plug = "a"', "lacks the devices"),
    ],
)
def test_a_host_ends_itself_only_where_the_cluster_takes_that_for_proof(
    old: str, new: str, what: str
) -> None:
    loaded = parse(SBD)
    assert loaded.cluster.device("sbd").confirms is Confirms.SELF_FENCE
    assert parse(render(loaded)) == loaded
    with pytest.raises(ConfigError, match=what):
        parse(SBD.replace(old, new))


def with_evidence(*words: str) -> str:
    listed = ", ".join(f'"{word}"' for word in words)
    return GOOD.replace("two_node = true", f"two_node = true\nevidence = [{listed}]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "evidence is empty: no lost host could ever be given up"),
        (("storage", "operator"), "count nothing that [node.an-a01n01] can show (host-off or outlets-off)"),
        (("power", "new-boot"), 'can show (operator): its locks could never move; add "operator"'),
    ],
)
def test_a_policy_that_no_device_can_satisfy_is_named(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        parse(with_evidence(*words))


def test_a_policy_that_each_node_can_satisfy_is_good() -> None:
    assert parse(with_evidence("power", "operator")).cluster.evidence == ("power", "operator")
