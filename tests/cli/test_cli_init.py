"""ringfence init, as a user types it: what lies there afterwards, who may read it, and what is refused."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from cli_run import Run

from ringfence.config import Paths, differences, load, parse_corosync, read_secrets
from ringfence.core.cluster import Confirms, DeviceConfig, Level, Use
from ringfence.core.errors import EXIT_BAD_COMMAND, EXIT_FAILED

TWO = ("init", "--name", "alteeve", "n1=10.0.0.1", "n2=10.0.0.2")
FENCED = (
    *TWO,
    *("--fence", "n1=fence_ipmilan,ip=10.9.0.1,username=admin,lanplus=1"),
    *(
        "--fence",
        "n1:2=fence_apc_snmp,ip=10.9.1.1,plug=3",
        "--fence",
        "n1:2=fence_apc_snmp,ip=10.9.1.2,plug=3",
    ),
    *("--fence", "n2=fence_ipmilan,ip=10.9.0.2,username=admin,lanplus=1"),
)
PASSWORD = "tr0ub4dor&3"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def password(here: Path) -> Path:
    file = here / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    return file


def modes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): f"{stat.S_IMODE(path.stat().st_mode):03o}"
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_two_names_and_addresses_are_enough(run: Run, here: Path) -> None:
    ran = run(*TWO)
    assert (ran.code, ran.err) == (0, "")
    assert modes(here / "alteeve") == {
        "NEXT.txt": "644",
        "n1/authkey": "600", "n1/corosync.conf": "644", "n1/ringfence.toml": "644",
        "n2/authkey": "600", "n2/corosync.conf": "644", "n2/ringfence.toml": "644",
    }  # fmt: skip
    assert stat.S_IMODE((here / "alteeve").stat().st_mode) == 0o700
    assert "NO FENCE DEVICE: n1, n2. When such a host fails, everything that it held stays blocked" in ran.out
    assert ran.out.splitlines()[-1].endswith("alteeve/NEXT.txt")
    checked = run("config", "check", "alteeve/n1/ringfence.toml")
    assert checked.code == 0, checked.err


def test_both_files_of_every_host_describe_the_same_cluster(run: Run, here: Path) -> None:
    assert run(*FENCED).code == 0
    for host in ("n1", "n2"):
        loaded = load(Paths(), here / "alteeve" / host / "ringfence.toml")
        corosync = parse_corosync((here / "alteeve" / host / "corosync.conf").read_text())
        assert differences(loaded.cluster, corosync) == []
        assert (loaded.cluster.ring, loaded.cluster.two_node, corosync.encrypted) == ("corosync", True, True)


def test_of_two_hosts_that_fence_each_other_one_waits(run: Run, here: Path) -> None:
    """Else one cable less could switch both off."""
    third = ["n3=10.0.0.3", "--fence", "n3=fence_ipmilan,ip=10.9.0.3,username=admin"]
    late = [word + ",delay=5" if word.startswith("n1=fence_") else word for word in FENCED]
    for words, delay_ms in ((FENCED, 5000), ([*FENCED, *third], 0), (late, 0), (TWO, 0)):
        assert run(*words, "--force").code == 0
        loaded = load(Paths(), here / "alteeve/n1/ringfence.toml")
        assert loaded.cluster.timing.priority_delay_ms == delay_ms, words


def test_the_key_is_chance_and_the_same_on_all_hosts(run: Run, here: Path) -> None:
    keys = []
    for name in ("a", "b"):
        assert run("init", "--name", name, "n1=10.0.0.1", "n2=10.0.0.2", "n3=10.0.0.3").code == 0
        found = {path.read_bytes() for path in (here / name).glob("*/authkey")}
        assert len(found) == 1
        keys.append(found.pop())
    assert keys[0] != keys[1]
    assert all(len(key) == 256 and len(set(key)) > 100 for key in keys)


def test_fence_words_become_levels(run: Run, here: Path) -> None:
    ran = run(*FENCED)
    assert ran.code == 0, ran.err
    assert "fence 1: ipmilan-n1, then 2: apc-snmp-n1 + apc-snmp-n1-2" in ran.out
    cluster = load(Paths(), here / "alteeve/n1/ringfence.toml").cluster
    assert [node.levels for node in cluster.nodes] == [
        (Level(("ipmilan-n1",)), Level(("apc-snmp-n1", "apc-snmp-n1-2"))),
        (Level(("ipmilan-n2",)),),
    ]
    assert cluster.device("ipmilan-n1") == DeviceConfig(
        "ipmilan-n1",
        "fence_ipmilan",
        Confirms.HOST_OFF,
        {"ip": "10.9.0.1", "username": "admin", "lanplus": "1"},
    )
    assert cluster.device("apc-snmp-n1-2").confirms is Confirms.OUTLET_OFF
    assert "n2: a management controller alone" in ran.out


ONE_PDU = (
    *("init", "--name", "rack", "n1=10.0.0.1", "n2=10.0.0.2", "n3=10.0.0.3"),
    *("--fence", "n1=fence_apc,ip=10.9.1.1,plug=1", "--fence", "n2=fence_apc,ip=10.9.1.1,plug=2"),
    *("--fence", "n3=fence_apc,ip=10.9.1.9,plug=2"),
)


def test_plugs_of_one_pdu_are_one_device(run: Run, here: Path) -> None:
    """Its calls stand in one queue, and it is quarantined as a whole; its secret is asked for once."""
    ran = run(*ONE_PDU)
    assert ran.code == 0, ran.err
    assert "fence 1: apc[1]" in ran.out
    cluster = load(Paths(), here / "rack/n1/ringfence.toml").cluster
    assert [node.levels for node in cluster.nodes] == [
        (Level((Use("apc", {"plug": "1"}),)),),
        (Level((Use("apc", {"plug": "2"}),)),),
        (Level(("apc-n3",)),),
    ]
    assert [(one.name, one.parameters) for one in cluster.devices] == [
        ("apc", {"ip": "10.9.1.1"}),
        ("apc-n3", {"ip": "10.9.1.9", "plug": "2"}),
    ]
    assert {one.name: one.read_text().splitlines() for one in (here / "rack/secrets").iterdir()} == {
        "apc": ["# fence_apc, plugs of n1, n2: key=value lines, for its owner's eyes alone", "#password="],
        "apc-n3": ["# fence_apc, level 1 of n3: key=value lines, for its owner's eyes alone", "#password="],
    }


def test_a_shared_pdu_has_one_password(run: Run, here: Path, password: Path) -> None:
    (here / "other").write_text("another\n")
    (here / "other").chmod(0o600)
    both = ("--password-file", f"n1={password}", "--password-file")
    ran = run(*ONE_PDU, *both, f"n2={here / 'other'}")
    assert ran.code == EXIT_FAILED
    assert "n1 and n2 share apc, with a password each; give --password-file apc=..." in ran.err
    assert run(*ONE_PDU, *both, f"n2={password}").code == 0
    assert (here / "rack/secrets/apc").read_text().splitlines()[1:] == [f"password={PASSWORD}"]


def test_secrets_are_asked_for_in_files_of_their_own(run: Run, here: Path) -> None:
    assert run(*FENCED).code == 0
    secrets = here / "alteeve/secrets"
    assert {path.name: path.read_text().splitlines()[1] for path in sorted(secrets.iterdir())} == {
        "apc-snmp-n1": "#community=",
        "apc-snmp-n1-2": "#community=",
        "ipmilan-n1": "#password=",
        "ipmilan-n2": "#password=",
    }
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert all(mode == "600" for file, mode in modes(here / "alteeve").items() if "secrets" in file)
    told = (here / "alteeve/NEXT.txt").read_text()
    assert (
        told.index("Fill in the secrets")
        < told.index("editor alteeve/secrets/ipmilan-n1")
        < told.index("scp")
    )


def test_a_password_goes_from_its_file_to_secrets_alone(run: Run, here: Path, password: Path) -> None:
    for words in ((), ("--json", "--force"), ("--dry-run", "--force")):
        ran = run(*FENCED, "--password-file", f"n1={password}", *words)
        assert ran.code == 0, ran.err
        assert PASSWORD not in ran.out + ran.err
    out = here / "alteeve"
    holding = [path for path in out.rglob("*") if path.is_file() and PASSWORD in path.read_text("latin-1")]
    assert {path.name for path in holding} == {"ipmilan-n1"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in holding)
    as_host = Paths(here / "host")
    as_host.etc.mkdir(parents=True)
    (out / "secrets").rename(as_host.secrets)
    assert read_secrets(as_host, "ipmilan-n1") == {"password": PASSWORD}
    assert read_secrets(as_host, "ipmilan-n2") == {}


def test_passwords_go_to_who_asks_for_them(run: Run, here: Path, password: Path) -> None:
    """The narrower word first; a community, which travels in clear, only to the device that is named."""
    for name in ("n2", "apc"):
        (here / name).write_text(f"of {name}\n")
        (here / name).chmod(0o600)
    words = [str(password), "n2=n2", "apc-snmp-n1-2=apc"]
    assert run(*FENCED, *(f"--password-file={word}" for word in words)).code == 0
    assert {path.name: path.read_text().splitlines()[1] for path in (here / "alteeve/secrets").iterdir()} == {
        "ipmilan-n1": f"password={PASSWORD}",
        "ipmilan-n2": "password=of n2",
        "apc-snmp-n1": "#community=",
        "apc-snmp-n1-2": "community=of apc",
    }


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_follow_the_umask(run: Run, here: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        assert run(*FENCED).code == 0
    finally:
        os.umask(before)
    for file, mode in modes(here / "alteeve").items():
        assert mode == ("600" if "authkey" in file or "secrets" in file else "644"), file


def test_nothing_is_overwritten_unasked_and_nothing_filled_in_is_lost(run: Run, here: Path) -> None:
    assert run(*FENCED).code == 0
    secret = here / "alteeve/secrets/ipmilan-n1"
    secret.write_text("password=by hand\n")
    before = {path: path.read_bytes() for path in (here / "alteeve").rglob("*") if path.is_file()}
    refused = run(*FENCED)
    assert (refused.code, refused.out) == (EXIT_FAILED, "")
    assert "alteeve is there already; --force" in refused.err
    assert {path: path.read_bytes() for path in (here / "alteeve").rglob("*") if path.is_file()} == before
    ran = run(*FENCED, "n3=10.0.0.3", "--force")
    assert ran.code == 0, ran.err
    key = before[here / "alteeve/n1/authkey"]
    assert (here / "alteeve/n3/authkey").read_bytes() == key
    assert "password=by hand\n" in secret.read_text()
    assert "ipmilan-n1 " not in (here / "alteeve/NEXT.txt").read_text(), "it needs no filling in any more"
    assert [path.name for path in here.iterdir()] == ["alteeve"], "nothing is left behind"


def test_hosts_that_stay_keep_their_ids(run: Run, here: Path) -> None:
    """What hosts remember of a node is its id: the others must not move up when one is taken out."""

    def ids(*words: str) -> dict[str, int]:
        return {one["name"]: one["id"] for one in run(*words, "--json").json["nodes"]}

    start = ("init", "--name", "a", "--force")
    assert ids(*start, "n1=10.0.0.1", "n2=10.0.0.2", "n3=10.0.0.3") == {"n1": 1, "n2": 2, "n3": 3}
    assert ids(*start, "n4=10.0.0.4", "n3=10.0.0.3", "n2=10.0.0.2") == {"n2": 2, "n3": 3, "n4": 4}
    loaded = load(Paths(), here / "a/n4/ringfence.toml").cluster
    assert [(node.id, node.name) for node in loaded.nodes] == [(2, "n2"), (3, "n3"), (4, "n4")]
    assert differences(loaded, parse_corosync((here / "a/n4/corosync.conf").read_text())) == []
    assert ids(*start, "--out", "b", "n3=10.0.0.3", "n2=10.0.0.2") == {"n3": 1, "n2": 2}


def test_what_is_written_anew_is_a_newer_version(run: Run, here: Path) -> None:
    """Hosts go by the newer one, and one of them may have been edited by hand."""

    def versions() -> set[int]:
        files = (here / "alteeve").glob("*/ringfence.toml")
        return {load(Paths(), file).cluster.version for file in files}

    assert run(*TWO).code == 0
    assert versions() == {1}
    file = here / "alteeve/n2/ringfence.toml"
    file.write_text(file.read_text().replace("version = 1\n", "version = 7\n"))
    assert run(*TWO, "n3=10.0.0.3", "--force").code == 0
    assert versions() == {8}


def test_what_is_something_else_is_never_replaced(run: Run, here: Path) -> None:
    (here / "alteeve").mkdir()
    (here / "alteeve/thesis.tex").write_text("years")
    ran = run(*TWO, "--force")
    assert (ran.code, ran.err) == (EXIT_FAILED, "  alteeve holds something else; choose another --out\n")
    assert (here / "alteeve/thesis.tex").read_text() == "years"
    assert "there is no directory" in run(*TWO, "--out", "no/where").err
    (here / "file").touch()
    assert "is there and no directory" in run(*TWO, "--out", "file", "--force").err


def test_a_place_that_cannot_be_written_is_one_line(run: Run, here: Path) -> None:
    ran = run(*TWO, "--out", "/proc/alteeve")
    assert (ran.code, ran.err.count("\n")) == (EXIT_FAILED, 1)
    assert "cannot write /proc/alteeve" in ran.err


def test_a_dry_run_shows_and_leaves_nothing(run: Run, here: Path) -> None:
    ran = run(*FENCED, "--dry-run")
    assert ran.code == 0
    assert list(here.iterdir()) == []
    assert "--- alteeve/n1/authkey  mode 0600, 256 bytes\n--- alteeve/n1/ringfence.toml  mode 0644" in ran.out
    assert ran.out.count("totem {") == 1, "the same text once"
    assert ran.out.endswith("nothing was written (--dry-run)\n")


def test_for_programs(run: Run, here: Path) -> None:
    answer = run(*FENCED, "--json").json
    assert (answer["cluster"], answer["out"], answer["written"]) == ("alteeve", "alteeve", True)
    assert answer["nodes"][0] == {
        "name": "n1",
        "id": 1,
        "addresses": ["10.0.0.1"],
        "manual": False,
        "levels": [["ipmilan-n1"], ["apc-snmp-n1", "apc-snmp-n1-2"]],
    }
    assert {one["path"]: one["mode"][1:] for one in answer["files"]} == modes(here / "alteeve")
    assert answer["fill_in"][-1] == {"file": "secrets/ipmilan-n2", "keys": ["password"]}
    refused = run(*FENCED, "--json")
    assert refused.json["error"]["code"] == "refused"


WRONG_NODES = {
    "n1": "'n1' gives no address; write NAME=ADDRESS",
    "n1=": "'n1=' gives no address",
    "=10.0.0.1": "'' cannot be a host's name",
    "n/1=10.0.0.1": "'n/1' cannot be a host's name",
    "secrets=10.0.0.1": "a host cannot be called secrets here",
    "n1=10.0.0.1 n1=10.0.0.2": "node n1 is there twice",
    "n1=10.0.0.1 n2=10.0.0.1": "10.0.0.1 is given twice: n1 and n2",
    "n1=fd00::1 n2=fd00:0:0::1": "fd00::1 is given twice",
    "n1=N.example n2=n.Example": "n.example is given twice",
    "n1=10.0.0.300": "n1: '10.0.0.300' is no address",
    "n1=10.0.0.1/24": "'10.0.0.1/24' is no address",
    "n1=10.0.0.1:5405": "'10.0.0.1:5405' is no address",
    "n1=10.0.0.1,": "n1: '' is no address",
    "n1=_x": "'_x' is no address",
    "n1=fe80::1%eth0": "means something else on every host",
    "n1=fe80::1": "fe80::1 means something else on every host",
    "n1=127.0.0.1": "127.0.0.1 is no address at which other hosts reach it",
    "n1=10.0.0.1,fd00::1 n2=10.0.0.2": "n2 and n1 do not have as many addresses: 1, 2",
    "n1=h n2=10.0.0.1 n3=fd00::2": "link 0 has IPv4 and IPv6 addresses (10.0.0.1, fd00::2)",
    "n1=10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5,10.0.0.6,10.0.0.7,10.0.0.8,10.0.0.9": "at most 8 links",
}
WRONG_FENCES = {
    "n1": "--fence 'n1' is not understood; write NODE=AGENT",
    "n3=fence_ipmilan,ip=1": "--fence n3: no such node; one of n1, n2",
    "n1=fence_ipmilan": "fence_ipmilan (management controller) needs ip=...",
    "n1=fence_ipmilan,ip=": "fence_ipmilan (management controller) needs ip=...",
    "n1=fence_apc,ip=1": "fence_apc (switched outlet) needs plug=...",
    "n1=fence_apc,ip=1,plug=5,6": "'6' is not KEY=VALUE; for another plug repeat the word",
    "n1=fence_ipmilan,ip=1,password=x": "password does not belong on a command line",
    "n1=fence_apc_snmp,ip=1,plug=1,community=x": "community does not belong on a command line",
    "n1:2=fence_ipmilan,ip=1": "n1:2: there is no level 1 yet",
    "n1:0=fence_ipmilan,ip=1": "'0' is no level",
    "n1=ipmi,ip=1": "what an off of ipmi proves is not known; did you mean fence_ipmilan? else add confirms=",
    "n1=fence_foo,confirms=yes": "confirms=yes is not known; one of host-off, outlet-off, storage-cut",
    "n1=fence_sbd": "fence_sbd proves nothing",
    "n1=fence_ipmilan,ip=1,ip=2": "ip stands there twice",
    "n1=fence_ipmilan,ip=1,action=on": "parameters may not set 'action'",
}


def test_hosts_that_will_surprise_are_named(run: Run) -> None:
    said = run("init", "--name", "a", "--dry-run", "n1.example.com=10.0.0.1", "n2=10.0.0.2").out
    assert "WARNING: `hostname -s` prints no dot, and n1.example.com has one" in said
    for count in (16, 17):
        nodes = [f"n{id}=10.0.0.{id}" for id in range(1, count + 1)]
        said = run("init", "--name", "a", "--dry-run", *nodes).out
        assert ("hosts: clusters of more than 16 were never tried" in said) is (count > 16)


@pytest.mark.parametrize("words", WRONG_NODES)
def test_what_is_wrong_with_nodes_is_one_line(run: Run, here: Path, words: str) -> None:
    ran = run("init", "--name", "a", *words.split())
    assert (ran.code, ran.out, ran.err.count("\n")) == (EXIT_FAILED, "", 1)
    assert WRONG_NODES[words] in ran.err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("word", WRONG_FENCES)
def test_what_is_wrong_with_fences_is_one_line(run: Run, here: Path, word: str) -> None:
    ran = run(*TWO, "--fence", word)
    assert (ran.code, ran.out, ran.err.count("\n")) == (EXIT_FAILED, "", 1)
    assert WRONG_FENCES[word] in ran.err
    assert list(here.iterdir()) == []


def test_one_thing_is_not_switched_for_two_hosts(run: Run) -> None:
    both = [f"--fence=n{id}=fence_ipmilan,ip=10.9.0.1" for id in (1, 2)]
    assert "of n1 and of n2 would switch the same thing" in run(*TWO, *both).err
    agents = {"n1": "fence_ipmilan", "n2": "fence_idrac"}
    both = [f"--fence={node}={agent},ip=10.9.0.1,username={node}" for node, agent in agents.items()]
    assert "n2: 10.9.0.1 is the management controller of n1 already" in run(*TWO, *both).err
    ports = [f"--fence=n{id}=fence_ipmilan,ip=10.9.0.1,ipport=623{id}" for id in (1, 2)]
    assert run(*TWO, *ports, "--dry-run").code == 0, "a virtual BMC a port"
    twice = [f"--fence=n1={agent},ip=10.9.0.1" for agent in ("fence_ipmilan", "fence_redfish")]
    assert run(*TWO, *twice, "--dry-run").code == 0, "two ways to one BMC"
    assert run(*TWO, *(f"--fence=n{id}=fence_scsi,devices=/dev/x" for id in (1, 2))).code == 0


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        (b"x\n", 0o644, "holds a password and others may use it; chmod 600"),
        (b"", 0o600, "its first line is no password"),
        (b" x\n", 0o600, "its first line is no password"),
        (b"\xff\n", 0o600, "is not UTF-8"),
    ],
)
def test_a_password_file_that_will_not_do(run: Run, here: Path, text: bytes, mode: int, says: str) -> None:
    (here / "p").write_bytes(text)
    (here / "p").chmod(mode)
    assert says in run(*FENCED, "--password-file", "p").err


def test_a_password_that_nobody_asks_for_is_refused(run: Run, password: Path) -> None:
    assert "no fence device asks for a password" in run(*TWO, "--password-file", str(password)).err
    assert "a second one" in run(*FENCED, *("--password-file", str(password)) * 2).err
    assert "cannot read nowhere: No such file" in run(*FENCED, "--password-file", "nowhere").err


def test_bad_command_lines(run: Run) -> None:
    assert run("init", "n1=10.0.0.1").code == EXIT_BAD_COMMAND
    assert run("init", "--name", "a").code == EXIT_BAD_COMMAND
    assert "--disk sda is not absolute" in run(*TWO, "--disk", "sda").err
    assert "'a b' cannot be a name" in run("init", "--name", "a b", "n1=10.0.0.1").err


def test_next_txt_can_be_typed_as_it_stands(run: Run, here: Path) -> None:
    words = ("n1=fd00::1,10.0.0.1", "n2=fd00::2,10.0.0.2", "--disk", "/dev/disk/by-id/wwn-1", "--out", "a b")
    assert run("init", "--name", "v6", *words).code == 0
    told = (here / "a b/NEXT.txt").read_text()
    assert "scp -p 'a b'/n1/corosync.conf 'a b'/n1/authkey root@[fd00::1]:/etc/corosync/" in told
    assert "ssh root@fd00::1 install -d" in told
    assert "udp 5405-5406" in told
    assert "which shared disks" not in told, "they were given"
    assert load(Paths(), here / "a b/n1/ringfence.toml").devices_paths == ("/dev/disk/by-id/wwn-1",)
    commands = [line.strip() for line in told.splitlines() if line.startswith("       ")]
    for number, _ in enumerate(re.findall(r"^\d+\. ", told, re.MULTILINE), 1):
        assert f"\n{number}. " in told
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    units = {path.stem for path in (Path(__file__).parents[2] / "packaging/systemd").glob("*.service")}
    enabled = next(line for line in commands if line.startswith("systemctl enable")).split()[2:]
    assert set(enabled) - {"corosync"} <= units


@pytest.mark.parametrize(
    ("hosts", "says"),
    [
        (1, "One host needs nobody else."),
        (2, "In any order: the first waits for the second."),
        (3, "All within 30 s of each other: once a majority is there for so long, whoever is still"),
    ],
)
def test_next_txt_says_how_to_begin(run: Run, here: Path, hosts: int, says: str) -> None:
    """Of three hosts that are started slowly, one after another, the last would be fenced."""
    assert run("init", "--name", "a", *(f"n{id}=10.0.0.{id}" for id in range(1, hosts + 1))).code == 0
    assert says in " ".join((here / "a/NEXT.txt").read_text().split())


ALONE = """mount --bind "$1" /etc/corosync && hostname "$2" && exec corosync -t"""


def test_corosync_accepts_the_directory_as_it_stands(run: Run, here: Path) -> None:
    assert run("init", "--name", "a", "n1=10.0.0.1,fd00::1", "n2=10.0.0.2,fd00::2").code == 0
    for host in ("n1", "n2"):
        words = ["unshare", "--mount", "--uts", "sh", "-c", ALONE, "sh", str(here / "a" / host), host]
        said = subprocess.run(words, capture_output=True, text=True)
        assert said.returncode == 0, said.stdout + said.stderr
