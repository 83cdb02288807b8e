"""fence agents, fence describe, and what config check says of devices: without a daemon."""

from pathlib import Path

import pytest
from cli_run import Run

from ringfence.cli import fence_agents
from ringfence.config.agents.stock import NO_PROOF

CLUSTER = """
[cluster]
name = "c"
[node.n1]
id = 1
[[node.n1.level]]
devices = ["bmc", {{ device = "pdu", plug = "{plug}" }}]
[device.bmc]
agent = "fence_idrac"
parameters = {{ ip = "10.0.0.9", {key} = "admin" }}
[device.pdu]
agent = "fence_apc"
settle_ms = 5000
parameters = {{ ipaddr = "10.0.0.8", login = "apc" }}
"""


@pytest.fixture
def some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Three of the installed agents and a broken one; the root of a host that has nothing of ringfence's."""
    broken = tmp_path / "fence_broken"
    broken.write_text("#!/bin/sh\necho '<manpage/>'\n")
    broken.chmod(0o755)
    names = ("fence_apc", "fence_azure_arm", "fence_sbd")
    found = {"fence_broken": str(broken), **{name: f"/usr/sbin/{name}" for name in names}}
    monkeypatch.setattr(fence_agents, "installed_agents", lambda: found)
    return tmp_path / "root"


def test_every_agent_and_what_it_proves(run: Run, some: Path) -> None:
    ran = run("fence", "agents", "--root", str(some))
    assert ran.code == 0
    head, *rows = ran.out.splitlines()
    assert head.split() == ["AGENT", "OFF", "PROVES", "ACTIONS", "PATH"]
    assert [" ".join(row.split()[:2]) for row in rows] == [
        "fence_broken ?", "fence_apc outlet-off", "fence_azure_arm ?", "fence_sbd nothing",
    ]  # fmt: skip
    assert "broken: it prints no metadata" in rows[0]
    assert rows[1].endswith("Fence agent for APC over telnet/ssh")
    assert "on off reboot status" in rows[1]
    assert not some.exists()


def test_the_same_for_programs(run: Run, some: Path) -> None:
    found = run("fence", "agents", "--root", str(some), "--json").json["agents"]
    assert [one["name"] for one in found] == ["fence_broken", "fence_apc", "fence_azure_arm", "fence_sbd"]
    assert found[1]["path"] == "/usr/sbin/fence_apc"
    assert found[1]["proves"] == "outlet-off"
    assert found[3]["why"] == NO_PROOF["fence_sbd"]
    assert found[0]["trouble"]


@pytest.mark.parametrize("name", ["fence_idrac", "idrac", "/usr/sbin/fence_idrac"])
def test_all_that_an_agent_can_be_told(run: Run, tmp_path: Path, name: str) -> None:
    ran = run("fence", "describe", name, "--root", str(tmp_path))
    assert ran.code == 0
    words = " ".join(ran.out.split())
    assert "host-off: management controller" in words
    assert "username login string - Login name" in words
    assert "auth - md5|password|none - IPMI Lan Auth type." in words
    assert "lanplus=1 is set where nothing is said: its own default is IPMI 1.5" in words
    assert "method: an unsafe value is refused (give onoff)" in words
    assert "snmp_version" not in words


def test_an_agent_for_programs(run: Run, tmp_path: Path) -> None:
    found = run("fence", "describe", "apc_snmp", "--root", str(tmp_path), "--json").json["agent"]
    names = {one["name"]: one for one in found["parameters"]}
    assert names["plug"]["required"]
    assert names["plug"]["old_names"] == ["port"]
    assert names["snmp_version"]["options"] == ["1", "2c", "3"]
    assert {"key": "snmp_version", "cure": "checked"}.items() <= found["corrected"][1].items()


def test_one_that_joins_for_itself(run: Run, tmp_path: Path) -> None:
    ran = run("fence", "describe", "scsi", "--root", str(tmp_path))
    assert "each node calls `on` for itself when it joins" in ran.out
    assert "storage-cut" in ran.out


def test_one_that_is_not_here(run: Run, tmp_path: Path) -> None:
    ran = run("fence", "describe", "ipmi_lan", "--root", str(tmp_path))
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.endswith("fence agent ipmi_lan is not installed here; did you mean fence_ipmilan?\n")


def test_one_that_is_broken(run: Run, some: Path) -> None:
    ran = run("fence", "describe", str(some.parent / "fence_broken"), "--root", str(some))
    assert ran.code == 5
    assert "does not describe itself: it prints no metadata" in ran.err


def configured(root: Path, **words: str) -> Path:
    file = root / "etc/ringfence/ringfence.toml"
    (file.parent / "secrets").mkdir(parents=True)
    file.write_text(CLUSTER.format(**{"plug": "5", "key": "username", **words}))
    for device in ("bmc", "pdu"):
        secret = file.parent / "secrets" / device
        secret.write_text("password=geheim\n")
        secret.chmod(0o600)
    return file


def test_a_good_configuration(run: Run, tmp_path: Path) -> None:
    configured(tmp_path)
    ran = run("config", "check", "--root", str(tmp_path))
    assert ran.code == 0, ran.out
    assert "note: device bmc: lanplus=1 is set" in ran.out
    assert "pdu" not in ran.out


def test_what_is_wrong_is_named_and_is_the_exit_code(run: Run, tmp_path: Path) -> None:
    file = configured(tmp_path, plug="5,6", key="user")
    ran = run("config", "check", "--root", str(tmp_path))
    assert ran.code == 5
    assert ran.out.splitlines()[0].startswith(f"{file}: 2 wrong; cluster c")
    assert "  wrong: device bmc: fence_idrac has no parameter user; did you mean" in ran.out
    assert "  wrong: device pdu[5,6]: plug=5,6 is refused" in ran.out
    assert "geheim" not in ran.out
    as_json = run("config", "check", "--root", str(tmp_path), "--json")
    assert as_json.code == 5
    assert len(as_json.json["wrong"]) == 2


def test_an_agent_that_is_not_here_is_no_fault_of_the_file(run: Run, tmp_path: Path) -> None:
    file = configured(tmp_path)
    file.write_text(file.read_text().replace('"fence_apc"', '"fence_of_ours"\nconfirms = "outlet-off"'))
    ran = run("config", "check", "--root", str(tmp_path))
    assert ran.code == 0
    assert "note: device pdu: fence agent fence_of_ours is not installed on this host; install it" in ran.out


def test_an_agent_that_is_called_nearly_so_is_named(run: Run, tmp_path: Path) -> None:
    file = configured(tmp_path)
    file.write_text(file.read_text().replace('"fence_idrac"', '"fence_ipmi_lan"\nconfirms = "host-off"'))
    ran = run("config", "check", "--root", str(tmp_path))
    assert "fence agent fence_ipmi_lan is not installed on this host; did you mean fence_ipmilan?" in ran.out


def test_one_plug_of_two_nodes_is_said(run: Run, tmp_path: Path) -> None:
    file = configured(tmp_path)
    first = file.read_text()
    other = '[node.n2]\nid = 2\n[[node.n2.level]]\ndevices = [{device="pdu", plug="%s"}]\n'
    file.write_text(first + other % 6)
    assert "same plug" not in run("config", "check", "--root", str(tmp_path)).out
    file.write_text(first + other % 5)
    ran = run("config", "check", "--root", str(tmp_path))
    assert "note: pdu[5] has the same plug for n1 and n2: to fence one cuts the other, too" in ran.out


def test_what_proves_nothing_must_be_said_to(run: Run, tmp_path: Path) -> None:
    file = configured(tmp_path)
    file.write_text(file.read_text().replace("fence_apc", "fence_kdump"))
    ran = run("config", "check", "--root", str(tmp_path))
    assert ran.code == 5
    assert "[device.pdu]: fence_kdump proves nothing: the host has crashed" in ran.err
