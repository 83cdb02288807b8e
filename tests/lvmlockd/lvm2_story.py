"""What stock LVM2's commands ask of the lock daemon, what they are told, and what becomes of them.

A file holds steps, with a blank line between them: lines of a host's name ("one", "two") and a command typed
there.  A step with a line of four dashes is recorded: a line a request with its answer, then the command's
exit code and what it said on stderr.  A step without it must only succeed.  Lines with `#` are for people.
DISK is the hosts' disk, PLAIN what makes an LV without activating it.  REWRITE=1 records anew; read the
difference before you commit it."""

import contextlib
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from stock_rig import PLAIN, Host, done
from tap import Tap

_NOISE = ("Activation disabled",)
_HOLDER = re.compile(r" \(host_id \d+\)$")
_REQUEST = re.compile(r"[a-z_]+( \S+)*: (ok|2|E[A-Z]+)( |$)")


class BadCommand(Exception):
    """The file's fault."""


def replay(path: Path, hosts: Mapping[str, Host], taps: Mapping[str, Tap], disk: str) -> tuple[str, str]:
    """The file's text, and as it would be recorded now."""
    text = path.read_text()
    with contextlib.ExitStack() as open_ones:
        for tap in taps.values():
            open_ones.enter_context(tap.listening())
        steps = [_step(step, hosts, taps, disk) for step in text.strip().split("\n\n")]
    return text, "\n\n".join(steps) + "\n"


def outcome(text: str) -> list[str]:
    """Of a story: commands, exit codes and words; not the requests in between, nor (2.03.39) whose it is."""
    return [_HOLDER.sub("", line) for line in text.splitlines() if not _REQUEST.match(line)]


def _step(step: str, hosts: Mapping[str, Host], taps: Mapping[str, Tap], disk: str) -> str:
    head, recorded, _ = step.partition("\n----")
    told: list[str] = []
    for line in head.splitlines():
        if line.startswith("#"):
            continue
        name, *words = shlex.split(line.replace("PLAIN", " ".join(PLAIN)).replace("DISK", disk))
        if name not in hosts or not words:
            raise BadCommand(line)
        started = hosts[name].start("env", f"LVM_LVMLOCKD_SOCKET={taps[name].place}", *words)
        if not recorded:
            done(started)
            taps[name].taken()
            continue
        ran = started.wait()
        told += taps[name].taken()
        told.append(f"exit {ran.code}")
        told += [one.strip() for one in ran.err.splitlines() if not any(noise in one for noise in _NOISE)]
    return "\n".join([head, "----", *told]) if recorded else head
