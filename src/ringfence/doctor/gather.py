"""Looks: asks this host's daemon, through it all hosts, then the fence devices, then all hosts again.

Where no daemon answers, this host is looked at without one.  Every question has its time limit; what was
not answered is said, never guessed."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from ringfence.client import Connection, connect
from ringfence.config import Loaded, Paths, parse
from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import RingfenceError
from ringfence.core.locknames import GLOBAL_SPACE, VG_SPACE
from ringfence.daemon.checkup import look_at_host
from ringfence.doctor.devices import ask_devices, told_wrong
from ringfence.doctor.facts import ClusterFacts, DaemonFacts, PartialVg, SlotsFacts
from ringfence.doctor.mapper import mapped_volumes
from ringfence.host.clock import boottime_ns, wall_ms
from ringfence.wire import client as calls
from ringfence.wire.checkup import Checkup

ANSWER_MS = 5_000
"""For what a daemon answers from its own state."""
CHECKUP_MS = 15_000
"""Longer than the engine waits for hosts (engine.checkups)."""
STRETCH_S = 2.0
"""At least so far apart are the two rounds: clocks' rates are told the better, the longer it is."""

Progress = Callable[[str], None]


def gather(paths: Paths, socket_path: str, progress: Progress = lambda line: None) -> ClusterFacts:
    """Everything that can be found out from this host, in some seconds.  Changes nothing."""
    unseen: list[str] = []
    try:
        with connect(socket_path, retry_ms=0) as connection:
            facts = _through(_Asked(connection, unseen, progress), paths, unseen, progress)
    except RingfenceError as error:
        unseen.append(f"the daemon and other hosts: {error.message}")
        facts = _without(paths, unseen, progress)
        if _may_ask(socket_path):
            facts = msgspec.structs.replace(facts, daemon_trouble=error.message)
    for host in facts.rounds[-1].hosts if facts.rounds else ():
        unseen += [f"{host.name}: {line}" for line in host.facts.unseen]
    if not facts.rounds:
        unseen += [f"{facts.me}: {line}" for line in facts.own.unseen]
        if facts.own.user != 0:
            unseen.append(f"{facts.me}: run as root to see what only root may (secrets, who holds what)")
    return msgspec.structs.replace(
        facts,
        wall_at_boot_ms=wall_ms() - boottime_ns() / 1e6,
        mapped=mapped_volumes() if not facts.own.lab else (),
        unseen=tuple(dict.fromkeys(unseen)),
    )


def _through(asked: "_Asked", paths: Paths, unseen: list[str], progress: Progress) -> ClusterFacts:
    """With what the daemon says, and all hosts through it.  Raises RingfenceError if it goes silent."""
    status, cluster = asked.status(), asked.config()
    daemon, me = asked.daemon(status), str(status["node"])
    rounds = [asked.checkup("comparing hosts")]
    began_s = time.monotonic()
    devices = ask_devices(paths, cluster, unseen, progress)
    troubles = told_wrong(paths, cluster)
    if rounds[0] is not None and rounds[0].alone:
        unseen.append("other hosts: this one is no ready member, and cannot ask them")
    elif rounds[0] is not None:
        time.sleep(max(0.0, began_s + STRETCH_S - time.monotonic()))
        rounds.append(asked.checkup("comparing hosts again"))
    told = tuple(one for one in rounds if one is not None)
    own = next((one.facts for one in told[-1].hosts if one.name == me), None) if told else None
    return ClusterFacts(
        me, own or look_at_host(paths, me), cluster, daemon, rounds=told, devices=devices,
        troubles=troubles,
    )


def _without(paths: Paths, unseen: list[str], progress: Progress) -> ClusterFacts:
    """This host alone, and the fence devices that its file names."""
    loaded = _file(paths)
    cluster = loaded.cluster if loaded is not None else None
    me = _my_name(paths, loaded)
    devices = ask_devices(paths, cluster, unseen, progress) if cluster is not None else ()
    troubles = told_wrong(paths, cluster) if cluster is not None else ()
    return ClusterFacts(me, look_at_host(paths, me), cluster, devices=devices, troubles=troubles)


class _Asked:
    """This host's daemon, with a limit to each question."""

    def __init__(self, connection: Connection, unseen: list[str], progress: Progress) -> None:
        self._connection = connection
        self._unseen = unseen
        self._progress = progress

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self._connection.call(calls.Status(), timeout_ms=ANSWER_MS)
        return answer

    def config(self) -> ClusterConfig:
        answer = self._connection.call(calls.ConfigShow(), timeout_ms=ANSWER_MS)
        return msgspec.convert(answer["config"], ClusterConfig)

    def daemon(self, status: dict[str, Any]) -> DaemonFacts:
        ready = [int(one["node"]) for one in status["members"] if one["state"] == "ready"]
        spaces = [str(one["name"]) for one in status["lockspaces"]]
        of_vgs = [name for name in spaces if name.startswith(VG_SPACE) and name != GLOBAL_SPACE]
        shared = tuple(name.removeprefix(VG_SPACE) for name in of_vgs)
        vgs = self._vgs() if shared else None
        return DaemonFacts(
            ready=bool(status["ready"]),
            why=str(status["why"]),
            members=tuple(ready),
            blocked_by=tuple(status["blocked_by"]),
            quarantined=tuple(status["quarantined"]),
            disarmed=_disarmed(status.get("disarmed")),
            shared_vgs=shared,
            gone_vgs=() if vgs is None else tuple(vg for vg in shared if vg not in vgs),
            partial_vgs=tuple(
                PartialVg(name, int(row["vg_missing_pv_count"]), int(row["pv_count"]))
                for name, row in (vgs or {}).items()
                if name in shared and row["vg_missing_pv_count"]
            ),
            slots=tuple(
                SlotsFacts(str(one["vg"]), bool(one["nodes"]), str(one["trouble"]))
                for one in status.get("slots") or ()
            ),
            locked=self._locked(str(status["node"])),
        )

    def _vgs(self) -> dict[str, dict[str, Any]] | None:
        """By name; None: not known."""
        try:
            rows = self._connection.call(calls.Vgs(), timeout_ms=ANSWER_MS)["rows"]
        except RingfenceError as error:
            self._unseen.append(f"which VGs there are: {error.message}")
            return None
        return {str(row["vg_name"]): row for row in rows}

    def _locked(self, me: str) -> tuple[str, ...] | None:
        try:
            answer = self._connection.call(calls.Locks(), timeout_ms=ANSWER_MS)
        except RingfenceError as error:
            self._unseen.append(f"locks of LVs: {error.message}")
            return None
        return tuple(str(one["resource"]) for one in answer["locks"] if one["name"] == me)

    def checkup(self, words: str) -> Checkup | None:
        """None: hosts cannot be compared now; `unseen` says why."""
        self._progress(words)
        try:
            answer = self._connection.call(calls.Checkup(), timeout_ms=CHECKUP_MS)
            return msgspec.convert(answer, Checkup)
        except (RingfenceError, msgspec.ValidationError) as error:
            self._unseen.append(f"other hosts: {getattr(error, 'message', None) or error}")
            return None


def _disarmed(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    return f"{found['who']} disarmed fencing" + (f": {found['why']}" if found["why"] else "")


def _file(paths: Paths) -> Loaded | None:
    """None: it cannot be used, which the look at this host tells."""
    try:
        return parse(paths.file.read_text(encoding="utf-8"), str(paths.file))
    except (OSError, UnicodeDecodeError, RingfenceError):
        return None


def _may_ask(socket_path: str) -> bool:
    """False: this user may not use the daemon's socket, which says nothing about the daemon."""
    return not os.path.lexists(socket_path) or os.access(socket_path, os.R_OK | os.W_OK)


def _my_name(paths: Paths, loaded: Loaded | None) -> str:
    """As the unit file gives it: the host's short name; of a lab's host, its directory's."""
    return paths.root.name if loaded is not None and loaded.lab else socket.gethostname().partition(".")[0]
