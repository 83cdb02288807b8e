"""A cabling drill, driven by lines of text: hosts, outlets and cables that obey, and a cluster that is told
what happens.

Scenario files hold commands, a line of four dashes, and what happened.  `REWRITE=1 pytest` records; a
person reads the diff.  Every call of an agent and every change of what the controllers see is a line."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Use
from ringfence.core.evidence import Evidence, Power
from ringfence.engine.commands.drills import Steps, Verdict, cabling
from ringfence.engine.inputs import AgentExited
from ringfence.engine.orders import CallAgent, Pause, ReadSupplies
from ringfence.fencing.drills import controllers
from ringfence.wire.proving import Current, Reading, Supply

RULE = "----"
AGENT_MS = 500
READ_MS = 100
LIMIT_MS = 600_000
NAMES = ("n1", "n2", "n3")
PDUS = ("pdu-a", "pdu-b")


class BadCommand(Exception):
    """The scenario says something that the harness does not know."""


def cluster() -> ClusterConfig:
    """n1 to n3: a controller each, and outlet N of both PDUs."""
    nodes = tuple(
        NodeConfig(
            id, name,
            levels=(
                Level((f"ipmi-{name}",)),
                Level(tuple(Use(pdu, {"plug": str(id)}) for pdu in ("pdu-a", "pdu-b"))),
            ),
        )
        for id, name in enumerate(NAMES, 1)
    )  # fmt: skip
    pdus = [
        DeviceConfig(pdu, "fence_apc_snmp", Confirms.OUTLET_OFF, {"ip": pdu}) for pdu in ("pdu-a", "pdu-b")
    ]
    bmcs = [DeviceConfig(f"ipmi-{name}", "fence_ipmilan", Confirms.HOST_OFF, {"ip": name}) for name in NAMES]
    return ClusterConfig("c", nodes=nodes, devices=(*bmcs, *pdus))


class Story:
    """Also what the drill sees of the cluster (`commands.World`)."""

    def __init__(self) -> None:
        self.config = cluster()
        self.cables = {
            (name, psu): f"{pdu}[{id}]"
            for id, name in enumerate(NAMES, 1)
            for psu, pdu in (("PSU1", "pdu-a"), ("PSU2", "pdu-b"))
        }
        self.off: list[str] = []
        self.fails: list[str] = []
        self.silent: list[str] = []
        self.lag_ms = 0
        self._switched: list[tuple[int, list[str]]] = [(0, [])]
        """When outlets were switched, and which were off from then on."""
        self._seen = ""
        self._now_ms = 0
        self._lost = self._stays_off = False
        self._needs: dict[str, str] = {}
        self._steps: Steps | None = None
        self._answer: Any = None
        self._order: Any = None
        self.lines: list[str] = []

    # -- commands --------------------------------------------------------------------

    def do(self, line: str) -> list[str]:
        """Returns what happened.  Raises BadCommand."""
        self.lines = []
        word, *rest = shlex.split(line)
        command = getattr(self, f"_do_{word}", None)
        if command is None:
            raise BadCommand(line)
        try:
            command(*rest)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise BadCommand(f"{line}: {error}") from None
        return self.lines

    def _do_plug(self, host: str, psu: str, outlet: str) -> None:
        if (host, psu) not in self.cables:
            raise BadCommand(f"{host} has no {psu}")
        self.cables[host, psu] = outlet

    def _do_fails(self, use: str, action: str) -> None:
        self.fails.append(f"{use} {action}")

    def _do_mended(self) -> None:
        self.fails = []

    def _do_silent(self, host: str) -> None:
        self.silent.append(host)

    def _do_lag(self, lag_ms: str) -> None:
        self.lag_ms = int(lag_ms)

    def _do_switch(self, use: str, action: str) -> None:
        self._switch(use, action)

    def _do_lost(self, host: str) -> None:
        self._lost = True

    def _do_fenced(self, host: str) -> None:
        self._lost, self._stays_off = False, True

    def _do_back(self, host: str) -> None:
        self._lost = False

    def _do_needed(self, device: str, host: str) -> None:
        self._needs[device] = host

    def _do_free(self, device: str) -> None:
        del self._needs[device]

    def _do_drill(self, host: str, *until: str) -> None:
        node = NAMES.index(host) + 1
        uses = self.config.levels_of(node)[1].uses
        self._steps = cabling(self.config, node, uses, controllers(self.config), self)
        self._answer = None
        self._do_go(*until)

    def _do_go(self, *until: str) -> None:
        """Go on to the end; "go until USE ACTION": until that was done; "go MS": for so long."""
        assert self._steps is not None, "nothing is drilled"
        call = " ".join(until[1:]) if until[:1] == ("until",) else ""
        limit_ms = self._now_ms + (int(until[0]) if until and not call else LIMIT_MS)
        while self._now_ms < limit_ms:
            try:
                order = self._steps.send(self._answer)
            except StopIteration as end:
                verdict: Verdict = end.value
                self.lines.append(f"{'passed' if verdict.passed else 'FAILED'}: {verdict.verdict}")
                self._steps = None
                return
            self._answer = self._carry_out(order)
            if isinstance(order, CallAgent) and call == f"{order.use.label} {order.action}":
                return

    # -- the outlets, and what the controllers see of them ---------------------------------

    def _carry_out(self, order: Any) -> Any:
        match order:
            case Pause():
                self._now_ms += order.time_ms
                return None
            case ReadSupplies():
                self._now_ms += READ_MS
                return self._read(order)
            case CallAgent():
                self._now_ms += AGENT_MS
                return self._call(order.use.label, order.action)
        raise BadCommand(f"{order} is no order of a drill")

    def _call(self, use: str, action: str) -> AgentExited:
        if f"{use} {action}" in self.fails:
            self.lines.append(f"{use} {action} -> no answer")
            return AgentExited(0, Power.UNKNOWN, "timed out", AGENT_MS, answered=False)
        if action != "status":
            self._switch(use, action)
        power = Power.OFF if use in self.off else Power.ON
        self.lines.append(f"{use} {action} -> {power.value}")
        return AgentExited(0, power, "done", AGENT_MS)

    def _switch(self, use: str, action: str) -> None:
        self.off = [one for one in self.off if one != use] + ([use] if action == "off" else [])
        self._switched.append((self._now_ms, self.off))

    def _read(self, order: ReadSupplies) -> tuple[Reading, ...]:
        then = [off for at_ms, off in self._switched if at_ms <= max(0, self._now_ms - self.lag_ms)][-1]
        found = []
        for node, _ in order.controllers:
            name = NAMES[node - 1]
            if name in self.silent:
                found.append(Reading(node, trouble="no answer"))
                continue
            supplies = [
                Supply(psu, Current.LOST if outlet in then else Current.FED)
                for (host, psu), outlet in self.cables.items()
                if host == name
            ]
            found.append(Reading(node, tuple(supplies)))
        self._tell_seen(found)
        return tuple(found)

    def _tell_seen(self, found: Sequence[Reading]) -> None:
        lost = [
            f"{one.name} of {NAMES[reading.node - 1]}"
            for reading in found
            for one in reading.supplies
            if one.current is Current.LOST
        ]
        seen = f"without mains: {', '.join(lost)}" if lost else "all supplies are fed"
        if seen != self._seen:
            self._seen = seen
            self.lines.append(seen)

    # -- commands.World ----------------------------------------------------------------------

    def tell(self, line: str) -> None:
        if line.endswith((": off", ": on again")):
            return  # the calls themselves are lines
        if not self.lines or self.lines[-1] != line:
            self.lines.append(line)

    def acts(self) -> bool:
        return True

    def lost(self) -> bool:
        return self._lost

    def needed(self, device: str) -> str:
        return self._needs.get(device, "")

    def stays_off(self) -> bool:
        return self._stays_off

    def others_lost(self) -> list[str]:
        return []

    def attempted(self, evidence: Evidence | None) -> None:
        raise AssertionError("a cabling drill fences nobody")

    def returned(self) -> bool:
        return False

    def now_ms(self) -> int:
        return self._now_ms


def replay(path: Path) -> tuple[str, str]:
    """(the file's text, what it says when it is played now)."""
    text = path.read_text()
    story, out = Story(), []
    for block in text.strip().split("\n\n"):
        command = block.split(f"\n{RULE}\n")[0].removesuffix(f"\n{RULE}")
        comments = [line for line in command.splitlines() if line.startswith("#")]
        happened: list[str] = []
        words = [line for line in command.splitlines() if not line.startswith("#")]
        for line in words:
            happened += story.do(line)
        out.append("\n".join([*comments, *words, *([RULE, *happened] if words else [])]))
    return text, "\n\n".join(out) + "\n"
