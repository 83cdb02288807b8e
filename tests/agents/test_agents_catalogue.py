"""The installed agents, all of them; and agents that say something else than what they are asked."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from agent_rig import Write, stock, writer

from ringfence.agents import catalogue as module
from ringfence.agents.catalogue import Catalogue, Known
from ringfence.agents.find import NOT_AGENTS, find_agent, installed_agents
from ringfence.config.agents.stock import NO_PROOF, STOCK
from ringfence.core.errors import Unavailable

GOOD = """cat <<'E'
<resource-agent name="x" shortdesc="For x"><actions><action name="off"/></actions></resource-agent>
E"""


@pytest.fixture
def agent(tmp_path: Path) -> Write:
    return writer(tmp_path)


def look(*agents: Path, file: Path = Path("/nowhere/agents.json")) -> list[Known]:
    return asyncio.run(Catalogue(file).look([str(one) for one in agents]))


# -- stock agents ---------------------------------------------------------------


def test_every_stock_agent_is_understood() -> None:
    assert len(stock()) >= 80, "install packages.txt"
    broken = {name: one.trouble for name, one in stock().items() if one.metadata is None}
    assert set(broken) <= {"fence_ack_manual"}, "a person's word: a script without metadata"
    for name, one in stock().items():
        if one.metadata is None:
            continue
        # fence_legacy of Pacemaker says that it is fence_pcmk.
        assert one.metadata.name == {"fence_legacy": "fence_pcmk"}.get(name, name)
        assert one.metadata.short
        names = [parameter.name for parameter in one.metadata.parameters]
        assert len(set(names)) == len(names)
        old = [name for parameter in one.metadata.parameters for name in parameter.old_names]
        assert not set(old) & set(names), "an old name stands beside its new one"


def test_old_names_are_known_to_those_that_have_them() -> None:
    olds = {"ip": "ipaddr", "username": "login", "password": "passwd", "plug": "port"}
    for one in stock().values():
        if one.metadata is None or one.path.endswith(("fence_legacy", "fence_kdump", "fence_watchdog")):
            continue
        for parameter in one.metadata.parameters:
            if parameter.name in olds:
                assert olds[parameter.name] in parameter.old_names, one.path


def test_the_table_of_stock_agents_is_true_of_them() -> None:
    """What it says an agent needs, and where its secret is, the agent has a parameter for."""
    for name, row in STOCK.items():
        metadata = stock()[name].metadata if name in stock() else None
        if metadata is None:
            continue
        missing = [key for key in (*row.needs, *row.secrets) if metadata.parameter(key) is None]
        assert not missing, f"{name} has no {missing}"
        assert metadata.can("off"), name
        assert metadata.can("status"), name
    assert not STOCK.keys() & NO_PROOF.keys()


def test_what_joins_for_itself() -> None:
    own = [name for name, one in stock().items() if one.metadata is not None and one.metadata.unfences_itself]
    assert own == ["fence_mpath", "fence_scsi"]


# -- agents that say something else ------------------------------------------------

ODD = {
    "silence": ("true", "no metadata"),
    "failure": ("echo no >&2; exit 3", "it prints no metadata (exit code 3)"),
    "noise": ("head -c 100000 /dev/urandom", "metadata"),
    "10 MB": ("head -c 10000000 /dev/zero", "more than 1 MiB"),
    "10 MB and then metadata": (f"head -c 10000000 /dev/zero; {GOOD}", "more than 1 MiB"),
    "an entity": ('echo \'<!DOCTYPE x [<!ENTITY a "b">]><resource-agent name="&a;"/>\'', "declares"),
    "a daemon's child": (f"setsid sleep 5 & {GOOD}", ""),
    "complains first": (f"echo warning; echo warning >&2; {GOOD}\nexit 1", ""),
}


def test_what_is_odd_is_remembered_and_named(agent: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_S", 60.0)
    found = look(*(agent(body) for body, _ in ODD.values()))
    for (name, (_, expected)), one in zip(ODD.items(), found, strict=True):
        assert (expected in one.trouble) if expected else not one.trouble, (name, one.trouble)
        assert (one.metadata is None) is bool(expected), name
        assert one.trouble.isprintable()


def test_one_that_hangs_is_not_waited_for(agent: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT_S", 0.5)
    began = time.monotonic()
    (found,) = look(agent("sleep 60 & sleep 60"))
    assert time.monotonic() - began < 30
    assert (found.metadata, found.trouble) == (None, "it says nothing within 0.5 s: killed")


def test_it_is_told_on_stdin_and_nowhere_else(agent: Write, tmp_path: Path) -> None:
    path = agent(f'cat >"{tmp_path}/stdin"; echo "$#" >"{tmp_path}/argc"; env >"{tmp_path}/env"; {GOOD}')
    assert look(path)[0].metadata is not None
    assert (tmp_path / "stdin").read_text() == "action=metadata\n"
    assert (tmp_path / "argc").read_text() == "0\n"
    assert "PCMK_service" not in (tmp_path / "env").read_text()


# -- what is kept ------------------------------------------------------------------


def test_each_is_asked_once_until_it_changes(agent: Write, tmp_path: Path) -> None:
    file = tmp_path / "agents.json"
    good = agent(f'echo x >>"{tmp_path}/good"; {GOOD}')
    bad = agent(f'echo x >>"{tmp_path}/bad"; exit 1')
    first = look(good, bad, file=file)
    assert look(good, bad, file=file) == first
    assert (tmp_path / "good").read_text() == (tmp_path / "bad").read_text() == "x\n"
    bad.write_text(good.read_text())
    os.utime(bad, ns=(1, 1))
    assert look(bad, file=file)[0].metadata == first[0].metadata
    assert (tmp_path / "good").read_text() == "x\nx\n"


def test_what_was_late_is_asked_again(agent: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "agents.json"
    path = agent(f'test -e "{tmp_path}/quick" || exec sleep 60; {GOOD}')
    monkeypatch.setattr(module, "LIMIT_S", 0.2)
    assert look(path, file=file)[0].metadata is None
    (tmp_path / "quick").touch()
    monkeypatch.setattr(module, "LIMIT_S", 60.0)
    assert look(path, file=file)[0].metadata is not None


SPOILT = [b"", b"\xff", b"[]", b'{"format":99,"known":[]}', b'{"known":[{"path":3}]}']


@pytest.mark.parametrize("data", SPOILT)
def test_a_spoilt_file_is_as_none(agent: Write, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "agents.json"
    file.write_bytes(data)
    assert look(agent(GOOD), file=file)[0].metadata is not None
    assert file.stat().st_size > 20, "and is written anew"


def test_nothing_is_made_where_nothing_is(agent: Write, tmp_path: Path) -> None:
    look(agent(GOOD), file=tmp_path / "var/agents.json")
    assert not (tmp_path / "var").exists()


# -- where they are ------------------------------------------------------------------


def test_path_is_looked_at_after_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, open_ = tmp_path / "ours", tmp_path / "open"
    for directory in (ours, open_):
        directory.mkdir()
        for name in ("fence_ours", "fence_apc", "fence_virtd", "other"):
            (directory / name).write_text("#!/bin/sh\n")
            (directory / name).chmod(0o755)
    (ours / "fence_text").write_text("no program")
    open_.chmod(0o777)
    monkeypatch.setenv("PATH", f"{open_}:relative:{ours}:/usr/bin")
    assert find_agent("fence_ours") == str(ours / "fence_ours"), "not from where others may write"
    assert find_agent("fence_apc") in ("/usr/sbin/fence_apc", "/sbin/fence_apc")
    found = installed_agents()
    assert found["fence_ours"] == str(ours / "fence_ours")
    assert not found.keys() & {"fence_text", "other", *NOT_AGENTS}
    assert list(found) == sorted(found)
    with pytest.raises(Unavailable, match="is not installed on this host"):
        find_agent("fence_text")
