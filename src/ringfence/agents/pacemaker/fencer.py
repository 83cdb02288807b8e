"""Pacemaker's own tools: orders to its fencer, and questions to it and to the CIB."""

import subprocess
from xml.etree.ElementTree import Element

from ringfence.agents.pacemaker import history
from ringfence.agents.process import ENVIRONMENT
from ringfence.config.xml_tree import parse_xml
from ringfence.core.errors import Unavailable

ASK_S = 10
"""For what the fencer and the CIB answer out of their memory."""


def order(word: str, target: str, limit_s: float) -> str:
    """--fence or --unfence, and wait for its end.

    Returns: the fencer's name for who asked.  Raises Unavailable: it did not say done."""
    argv = ["stonith_admin", word, target, "--timeout", str(max(1, int(limit_s)))]
    try:
        asked = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", cwd="/", env=ENVIRONMENT,
        )  # fmt: skip
    except OSError as error:
        raise _missing(argv[0], error) from None
    words, _ = asked.communicate()
    if asked.returncode:
        raise Unavailable(f"Pacemaker: {' '.join(words.split()) or asked.returncode}", next="crm_mon -1")
    return f"stonith_admin.{asked.pid}"


def events(target: str) -> tuple[history.Event, ...]:
    return history.events(_ask("--history", target, "--verbose"), target)


def capable(target: str) -> list[str]:
    """Ids of the devices that the fencer would use for it."""
    answer = _ask("--list", target)
    return [one.text or "" for one in answer.iter("item") if one.get("name") == "device"]


def alive() -> None:
    """Raises Unavailable: the fencer does not answer."""
    _ask("--list-registered")


def configuration() -> Element:
    return parse_xml("the CIB", _output("cibadmin", "--query", "--local"))


def _ask(*words: str) -> Element:
    return parse_xml("stonith_admin's answer", _output("stonith_admin", *words, "--output-as=xml"))


def _output(*words: str) -> bytes:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=ASK_S, cwd="/", env=ENVIRONMENT,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{words[0]} does not answer", next="crm_mon -1") from None
    except OSError as error:
        raise _missing(words[0], error) from None
    if done.returncode:
        said = " ".join((done.stderr or b"").decode(errors="replace").split())
        raise Unavailable(f"Pacemaker does not answer: {said or done.returncode}", next="crm_mon -1")
    return done.stdout


def _missing(tool: str, error: OSError) -> Unavailable:
    return Unavailable(f"{tool}: {error.strerror}", next="apt install pacemaker-cli-utils")
