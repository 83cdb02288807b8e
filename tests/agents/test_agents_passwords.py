"""Passwords: from a script, and nowhere that others can look."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from agent_rig import Write, writer

from ringfence.agents.process import NO_CORE
from ringfence.agents.runner import AgentRunner
from ringfence.core.cluster import Confirms, DeviceConfig
from ringfence.core.evidence import Power
from ringfence.engine.effects import RunAgent
from ringfence.engine.inputs import AgentExited

PASSWORD = "geheim-4711"


@pytest.fixture
def agent(tmp_path: Path) -> Write:
    return writer(tmp_path)


def ask(
    agent: Path | str, parameters: dict[str, str], secrets: dict[str, str], timeout_ms: int = 9000
) -> AgentExited:
    device = DeviceConfig("d", str(agent), Confirms.HOST_OFF, parameters)
    runner = AgentRunner(lambda name: device, lambda name: secrets)
    return asyncio.run(runner.run(RunAgent(1, "d", "status", timeout_ms, "n")))


# -- scripts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("password_script", "password"), ("passwd_script", "passwd"), ("password-script", "password"),
        ("snmp_priv_passwd_script", "snmp_priv_passwd"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("secret", [False, True])
def test_what_the_script_prints_is_the_password(
    agent: Write, tmp_path: Path, key: str, told: str, secret: bool
) -> None:
    script = agent(f'echo "$1 {PASSWORD}"; echo')
    path = agent(f'cat >"{tmp_path}/stdin"; cat "{tmp_path}/stdin" >&2; exit 1')
    given = {key: f"{script} 'of d'"}
    exited = ask(path, {} if secret else given, given if secret else {})
    assert f"{told}=of d {PASSWORD}\n" in (tmp_path / "stdin").read_text()
    assert "script" not in (tmp_path / "stdin").read_text()
    assert PASSWORD not in exited.words
    assert f"{told}=****" in exited.words


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"echo {PASSWORD}; exit 3", "ended with exit code 3; try it by hand"),
        ("true", "prints nothing"),
        ("head -c 100000 /dev/zero", "prints too much for a password"),
        (f"printf '{PASSWORD}\\377'", "prints no UTF-8"),
        (f"echo {PASSWORD}; echo {PASSWORD}", "is not one line"),
        (f"echo {PASSWORD}; echo {PASSWORD} >&2; sleep 60", "no password within 0.4 s: killed"),
    ],
)
def test_a_script_that_fails_is_named_and_never_quoted(
    agent: Write, tmp_path: Path, body: str, expected: str
) -> None:
    path = agent(f'touch "{tmp_path}/started"')
    limit_ms = 400 if "within" in expected else 60_000
    exited = ask(path, {"password_script": str(agent(body))}, {}, timeout_ms=limit_ms)
    assert (exited.power, exited.answered) == (Power.UNKNOWN, False)
    assert expected in exited.words
    assert PASSWORD not in exited.words
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("how", ["relative", "missing", "not executable", "others write", "quote", "shell"])
def test_a_script_that_cannot_be_trusted_is_not_run(agent: Write, tmp_path: Path, how: str) -> None:
    script = agent(f'touch "{tmp_path}/ran"; echo {PASSWORD}')
    wrong = {"relative": "ask", "missing": str(tmp_path / "none"), "quote": f"{script} '"}
    command = wrong.get(how, str(script))
    if how == "not executable":
        script.chmod(0o644)
    if how == "others write":
        script.chmod(0o757)
    if how == "shell":  # to the agents' own library this would be a pipeline
        command = f"{tmp_path / 'none'}; {script}"
    exited = ask(agent("exit 0"), {"password_script": command}, {})
    assert exited.power is Power.UNKNOWN
    assert "password_script" in exited.words
    assert not (tmp_path / "ran").exists()


# -- what tools are told ---------------------------------------------------------------


def tool(path: Path, log: Path, answer: str) -> Path:
    """Stands in for ipmitool or snmpget: writes down what it is told and what it can read."""
    path.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >>"{log}.argv"; env >>"{log}.env"\n'
        'while [ $# -gt 0 ]; do [ "$1" = -f ] && cat "$2" >>"' + str(log) + '.read"; shift; done\n'
        f'[ -z "$SNMPCONFPATH" ] || cat "$SNMPCONFPATH/snmp.conf" >>"{log}.read"\n{answer}\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("old", "password"), [("password", PASSWORD), ("passwd", f'"{PASSWORD}"')])
def test_ipmitool_reads_the_password_from_memory(tmp_path: Path, old: str, password: str) -> None:
    log = tmp_path / "log"
    ipmitool = tool(tmp_path / "ipmitool", log, "echo Chassis Power is on")
    given = {"ip": "127.0.0.1", "username": "a b", "ipmitool_path": str(ipmitool)}
    exited = ask("fence_ipmilan", given, {old: password}, 30_000)
    assert exited.power is Power.ON, exited.words
    told = (tmp_path / "log.argv").read_text().splitlines()
    assert told[:2] == ["-I", "lanplus"]
    assert told[told.index("-U") + 1] == "a b"
    assert "-f" in told
    assert "-P" not in told
    assert PASSWORD not in "".join(told) + (tmp_path / "log.env").read_text()
    assert (tmp_path / "log.read").read_text() == f"{PASSWORD}\n"


def test_snmp_s_tools_read_their_secrets_from_memory(tmp_path: Path) -> None:
    log = tmp_path / "log"
    answer = 'case $* in *.2.1.1.2.0*) echo ".1 .1.3.6.1.4.1.318.1.3.4.5";; *) echo ".1 1";; esac'
    tools = {f"snmp{one}_path": str(tool(tmp_path / one, log, answer)) for one in ("get", "set", "walk")}
    given = {"ip": "127.0.0.1", "plug": "1", "snmp_version": "3", "username": "a", **tools}
    secrets = {"community": "c c", "password": PASSWORD, "snmp_priv_passwd": "p#p"}
    exited = ask("fence_apc_snmp", given, secrets, 30_000)
    assert exited.power is Power.ON, exited.words
    told = (tmp_path / "log.argv").read_text().splitlines()
    assert not {"-c", "-A", "-X", "c c", "p#p", PASSWORD, "hidden"} & set(told)
    assert told[told.index("-u") + 1] == "a"
    assert PASSWORD not in (tmp_path / "log.env").read_text()
    read = set((tmp_path / "log.read").read_text().splitlines())
    assert read == {'defCommunity "c c"', f'defAuthPassphrase "{PASSWORD}"', 'defPrivPassphrase "p#p"'}


def test_snmp_s_tools_are_told_what_is_no_secret(tmp_path: Path) -> None:
    """fence_apc_snmp's own default community, by version 1, of a device that has a password as well."""
    log = tmp_path / "log"
    answer = 'case $* in *.2.1.1.2.0*) echo ".1 .1.3.6.1.4.1.318.1.3.4.5";; *) echo ".1 1";; esac'
    tools = {f"snmp{one}_path": str(tool(tmp_path / one, log, answer)) for one in ("get", "set", "walk")}
    exited = ask("fence_apc_snmp", {"ip": "127.0.0.1", "plug": "1", **tools}, {"password": PASSWORD}, 30_000)
    assert exited.power is Power.ON, exited.words
    told = (tmp_path / "log.argv").read_text().splitlines()
    assert told[told.index("-c") + 1] == "private"


LOOK = """
import os, sys
word, mine, seen, old = bytes.fromhex(sys.argv[1]), int(sys.argv[2]), [], set(os.listdir("/proc"))
print("looking", flush=True)
while os.getppid() == mine and not os.path.exists(sys.argv[3]):
    for pid in os.listdir("/proc"):
        if pid.isdigit() and pid not in old:
            for name in ("cmdline", "environ"):
                try:
                    with open(f"/proc/{pid}/{name}", "rb") as file:
                        text = file.read()
                except OSError:
                    continue
                if word in text:
                    seen.append(text)
print(seen, flush=True)
"""


def test_nobody_sees_a_password_of_a_real_agent(tmp_path: Path) -> None:
    """fence_ipmilan against nobody, for as long as its tool tries; somebody looks at all processes meanwhile.

    Without the stand-in for ipmitool it is seen within the first call."""
    word, done = f"word-{os.getpid()}", tmp_path / "done"
    words = [sys.executable, "-c", LOOK, word.encode().hex(), str(os.getpid()), str(done)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as looker:
        assert looker.stdout is not None
        assert looker.stdout.readline() == "looking\n"
        given = {"ip": "127.0.0.1", "ipport": "9", "username": "admin", "ipmitool_timeout": "1"}
        for _ in range(3):
            assert ask("fence_ipmilan", given, {"password": word}, 1000).power is Power.UNKNOWN
        done.touch()
        assert looker.stdout.read() == "[]\n"


def test_where_nothing_can_be_hidden_the_agent_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    ipmitool = tool(tmp_path / "ipmitool", tmp_path / "log", "echo Chassis Power is on")
    exited = ask("fence_ipmilan", {"ip": "1", "ipmitool_path": str(ipmitool)}, {"password": PASSWORD}, 30_000)
    assert exited.power is Power.ON
    assert PASSWORD in (tmp_path / "log.argv").read_text()


# -- cores ------------------------------------------------------------------------------


def test_no_core_holds_a_password(agent: Write, tmp_path: Path) -> None:
    limits = f'cat >/dev/null; grep core /proc/self/limits >"{tmp_path}/limits"'
    path = agent(f'{limits}; cd "{tmp_path}"; kill -ABRT $$')
    assert ask(path, {}, {"password": PASSWORD}).power is Power.UNKNOWN
    assert (tmp_path / "limits").read_text().split()[4:6] == [str(one) for one in NO_CORE]
    assert not list(tmp_path.glob("core*"))
