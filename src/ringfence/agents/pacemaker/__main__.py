"""FenceAgentAPI on stdin: off, on, status, monitor, metadata.

    python -m ringfence.agents.pacemaker

Keys: nodename, or plug where Pacemaker calls the node otherwise; timeout (seconds).

- `off`: `stonith_admin --fence`, always, whatever is on record: the fencer makes one run of requests that ask
  for the same while one runs, and a success from before says nothing of now.
- `status`: a look at each plug of each device that can fence the node, by that device's own agent, here.
- `on`: `stonith_admin --unfence`."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree.ElementTree import Element

from ringfence.agents.commands import find_agent
from ringfence.agents.pacemaker import cib, history
from ringfence.agents.pacemaker.cib import Plug
from ringfence.agents.pacemaker.judge import Look, judge
from ringfence.agents.process import AGENT_PATH
from ringfence.agents.runner import WORDS_CHARS
from ringfence.config.checks import is_secret
from ringfence.config.imports.xml_tree import parse_xml
from ringfence.core.errors import BadInput, ConfigError, Refused, RingfenceError, Unavailable
from ringfence.core.evidence import Power

TIMEOUT_S = 57
ASK_S = 10
"""For what the fencer and the CIB answer out of their memory."""
SECRETS = Path("/var/lib/pacemaker/lrm/secrets")
"""Where `crm_resource --secret`, as pcs does it, keeps what the CIB calls "lrm://"."""
ENVIRONMENT = {"PATH": AGENT_PATH, "LC_ALL": "C.UTF-8"}
"""Never with PCMK_service: stock agents drop their time limits where they find it."""
MISSING = "apt install pacemaker-cli-utils"
OURS = "fence_ringfence"
METADATA = """<?xml version="1.0" ?>
<resource-agent name="ringfence-pacemaker" shortdesc="Fences through Pacemaker, and looks for itself">
<longdesc>Asks Pacemaker's fencer to switch a node off, and its devices for their status.</longdesc>
<vendor-url></vendor-url>
<parameters>
<parameter name="plug" unique="0" required="0"><content type="string"/>
<shortdesc lang="en">The node's name in Pacemaker, if it is another there</shortdesc></parameter>
<parameter name="timeout" unique="0" required="0"><content type="second" default="57"/>
<shortdesc lang="en">How long Pacemaker may take in all</shortdesc></parameter>
</parameters>
<actions><action name="on"/><action name="off"/><action name="status"/><action name="monitor"/>
<action name="metadata"/></actions>
</resource-agent>"""


def main() -> int:
    keys = dict(line.rstrip("\n").partition("=")[::2] for line in sys.stdin if "=" in line)
    action, target = keys.get("action", ""), keys.get("plug") or keys.get("nodename", "")
    try:
        limit_s = int(keys.get("timeout") or TIMEOUT_S)
        if action == "metadata":
            print(METADATA)
        elif action == "monitor":
            _ask("stonith_admin", "--list-registered")
        elif not target or target.startswith("-"):
            raise BadInput(f"{target!r} is no node", next="give nodename or plug")
        elif action == "off":
            _off(target, limit_s)
        elif action == "on":
            _admin("--unfence", target, limit_s)
        elif action == "status":
            return _status(target, time.monotonic() + limit_s)
        else:
            raise BadInput(f"{action!r} is not served", next="off, on, status, monitor, metadata")
    except (RingfenceError, ValueError) as error:
        print(f"Failed: {error}", file=sys.stderr)
        return 1
    return 0


def _off(target: str, limit_s: int) -> None:
    config = _cib()
    for device in _capable(target):
        for plug in _plugs(config, device, target):
            if plug.agent == OURS:
                raise Refused(f"Pacemaker's {device} asks ringfence: a loop", next=f"remove {device}")
    client = _admin("--fence", target, limit_s)
    answer = _ask("stonith_admin", "--history", target, "--verbose")
    doubt = history.doubt(history.events(answer, target), client)
    if doubt:
        raise Refused(doubt, next="look at the machine; ringfence fence confirm is for a person's word")
    print(f"Pacemaker says that {target} is off", file=sys.stderr)


def _status(target: str, until: float) -> int:
    """The exit code: 0 on, 2 off, 1 unknown."""
    config, capable = _cib(), _capable(target)
    levels = cib.levels(config, target, capable)
    wanted = dict.fromkeys((*capable, *(device for level in levels for device in level)))
    plugs = [plug for device in wanted for plug in _plugs(config, device, target)]
    sessions: dict[str, list[Plug]] = {}
    for plug in plugs:
        sessions.setdefault(plug.session, []).append(plug)
    with ThreadPoolExecutor(max(1, len(sessions))) as pool:
        found = list(pool.map(lambda some: [_look(one, target, until) for one in some], sessions.values()))
    looks: dict[str, list[Look]] = {}
    for look in (look for some in found for look in some):
        looks.setdefault(look.plug.device, []).append(look)
    power, words = judge(levels, looks)
    print(words, file=sys.stderr)
    return {Power.ON: 0, Power.OFF: 2}.get(power, 1)


def _look(plug: Plug, target: str, until: float) -> Look:
    """One status, by the device's own agent."""
    try:
        given = {name: _value(plug.device, name, value) for name, value in plug.parameters.items()}
        lines = {**given, "nodename": target, "action": "status"}
        stdin = "".join(f"{name}={value}\n" for name, value in lines.items())
        left_s = until - time.monotonic()
        done = subprocess.run(
            [find_agent(plug.agent)], input=stdin, text=True, errors="replace", capture_output=True,
            timeout=max(left_s, 0), cwd="/", env=ENVIRONMENT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Look(plug, Power.UNKNOWN, "no answer in time")
    except RingfenceError as error:
        return Look(plug, Power.UNKNOWN, str(error))
    power = {0: Power.ON, 2: Power.OFF}.get(done.returncode, Power.UNKNOWN)
    if power is not Power.UNKNOWN:
        return Look(plug, power)
    # What an agent prints may hold what it was given: of one that was told a secret, the exit code must do.
    secret = any(is_secret(name) or plug.parameters[name] != given[name] for name in given)
    said = "" if secret else " ".join((done.stderr or done.stdout).split())[-WORDS_CHARS // 3 :]
    return Look(plug, power, said or f"exit code {done.returncode}")


def _value(device: str, name: str, value: str) -> str:
    if value != "lrm://":
        return value
    try:
        return (SECRETS / device / name).read_text().rstrip("\n")
    except OSError as error:
        raise ConfigError(
            f"{device}: the secret {name} cannot be read: {error.strerror}", next="pcs stonith config"
        ) from None


def _plugs(config: Element, device: str, target: str) -> Sequence[Plug]:
    try:
        return cib.plugs(config, device, target)
    except ConfigError as error:
        print(f"{error}", file=sys.stderr)
        return ()


def _capable(target: str) -> list[str]:
    """Which devices the fencer would use for it."""
    answer = _ask("stonith_admin", "--list", target)
    return [one.text or "" for one in answer.iter("item") if one.get("name") == "device"]


def _admin(order: str, target: str, limit_s: int) -> str:
    """The fencer's name for who asked.  Raises Unavailable: it did not say done."""
    argv = ["stonith_admin", order, target, "--timeout", str(limit_s)]
    try:
        asked = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", cwd="/", env=ENVIRONMENT,
        )  # fmt: skip
    except OSError as error:
        raise Unavailable(f"stonith_admin: {error.strerror}", next=MISSING) from None
    words, _ = asked.communicate()
    if asked.returncode:
        raise Unavailable(f"Pacemaker: {' '.join(words.split()) or asked.returncode}", next="crm_mon -1")
    return f"stonith_admin.{asked.pid}"


def _cib() -> Element:
    return parse_xml("the CIB", _output("cibadmin", "--query", "--local"))


def _ask(*words: str) -> Element:
    return parse_xml("stonith_admin's answer", _output(*words, "--output-as=xml"))


def _output(*words: str) -> bytes:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S, cwd="/", env=ENVIRONMENT,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{words[0]} does not answer", next="crm_mon -1") from None
    except OSError as error:
        raise Unavailable(f"{words[0]}: {error.strerror}", next=MISSING) from None
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise Unavailable(f"Pacemaker does not answer: {said or done.returncode}", next="crm_mon -1")
    return done.stdout


if __name__ == "__main__":
    os.chdir("/")
    sys.exit(main())
