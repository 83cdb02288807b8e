"""A fence domain and the acting members' level runs, driven by lines of text.

Scenario files hold commands, a line of four dashes, and what happened.  `REWRITE=1 pytest` records;
a person reads the diff.  After every command the domain's invariants are checked."""

import shlex
from pathlib import Path

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Timing, Use
from ringfence.core.evidence import Evidence, EvidenceKind, Power
from ringfence.core.ids import Epoch, Life
from ringfence.engine import powering
from ringfence.engine.facts import Fact, Noted
from ringfence.engine.state import ClusterState
from ringfence.fencing.actor import backoff_ms
from ringfence.fencing.delays import favours_lost
from ringfence.fencing.domain import Domain, Victim
from ringfence.fencing.explain import explain_victim
from ringfence.fencing.level_run import LevelRun, Outcome, Run
from ringfence.fencing.power_on import PowerOn, actor_for, uses_of
from ringfence.fencing.power_on import explain as explain_power_on
from ringfence.wire import FENCING
from ringfence.wire.entries import PowerOnBegan, PowerOnEnded

RULE = "----"


class BadCommand(Exception):
    """The scenario says something that the harness does not know."""


def cluster(nodes: int = 3, own_supply: str = "", naive: bool = False, manual: int = 0) -> ClusterConfig:
    """Hosts n1.. with two levels each: a controller (ipmi_n1), then two outlets (pdu_a_n1, pdu_b_n1)."""
    hosts, devices = [], []
    for id in range(1, nodes + 1):
        ipmi, *outlets = f"ipmi_n{id}", f"pdu_a_n{id}", f"pdu_b_n{id}"
        levels = () if id == manual else (Level((ipmi,)), Level(tuple(outlets)))
        hosts.append(NodeConfig(id, f"n{id}", levels=levels, manual=id == manual))
        devices.append(DeviceConfig(ipmi, "fence_bmc", Confirms.HOST_OFF, own_supply=ipmi == own_supply))
        devices += [DeviceConfig(outlet, "fence_pdu", Confirms.OUTLET_OFF) for outlet in outlets]
    return ClusterConfig(
        "lab",
        two_node=nodes == 2,
        naive=naive,
        nodes=tuple(hosts),
        devices=tuple(sorted(devices, key=lambda device: device.name)),
    )


def life_named(text: str) -> Life:
    """"3/b1.1" or "3/unknown"."""
    node, _, rest = text.partition("/")
    if rest == "unknown":
        return Life(int(node))
    boot, _, incarnation = rest.partition(".")
    machine = "" if boot.startswith("absent") else f"m{node}"  # an order about a node that is no member
    return Life(int(node), machine, boot, int(incarnation))


class Story:
    """What the ordered state and the acting members' engines do, without either."""

    def __init__(self) -> None:
        self.state = ClusterState(cluster(), protocol=FENCING)
        self.ready = (1, 2, 3)
        self.wall_ms = 12 * 3_600_000
        self.epoch = 1
        self.runs: dict[Life, tuple[int, LevelRun]] = {}
        self.lost: list[Life] = []
        """Every life that was lost and not purged since: the domain must know exactly these."""
        self.next_run = 1

    @property
    def config(self) -> ClusterConfig:
        return self.state.config

    @config.setter
    def config(self, config: ClusterConfig) -> None:
        self.state.config = config

    @property
    def domain(self) -> Domain:
        return self.state.domain

    @property
    def ready(self) -> tuple[int, ...]:
        return self.state.ready

    @ready.setter
    def ready(self, nodes: tuple[int, ...]) -> None:
        self.state.lives = {node: Life(node, f"m{node}", f"up{node}", 1) for node in nodes}

    # -- running a file ------------------------------------------------------------

    def do(self, line: str) -> list[str]:
        """Carry out one command; return what there is to say about it."""
        self.wall_ms += 1000
        word, *rest = shlex.split(line)
        plain = [one for one in rest if "=" not in one]
        options = dict(one.split("=", 1) for one in rest if "=" in one)
        handler = getattr(self, f"_do_{word}", None)
        if handler is None:
            raise BadCommand(line)
        said: list[str] = handler(plain, options)
        if options:
            raise BadCommand(f"{line}: {options}")
        for life in list(self.runs):  # the engine cancels what has no attempt any more
            victim = self.domain.victim(life)
            if victim is None or victim.current is None:
                del self.runs[life]
        self.check()
        return said or ["nothing happens"]

    def check(self) -> None:
        lives = [victim.life for victim in self.domain.victims]
        assert lives == sorted(self.lost), "a victim was forgotten, or made up"
        for victim in self.domain.victims:
            assert victim.current is None or victim.current.actor in self.ready
            assert len(victim.attempts) <= 20
            for evidence in victim.evidence:
                assert evidence.life == victim.life
        data = msgspec.msgpack.encode(self.domain, order="deterministic")
        again = msgspec.msgpack.decode(data, type=Domain)
        assert msgspec.msgpack.encode(again, order="deterministic") == data

    # -- commands --------------------------------------------------------------------

    def _do_config(self, plain: list[str], options: dict[str, str]) -> list[str]:
        nodes = int(options.pop("nodes", "3"))
        self.config = cluster(
            nodes,
            options.pop("own_supply", ""),
            options.pop("naive", "no") == "yes",
            int(options.pop("manual", "0")),
        )
        self.config = msgspec.structs.replace(
            self.config,
            fence_action=options.pop("fence_action", "off"),
            timing=Timing(priority_delay_ms=int(options.pop("priority_delay_ms", "0"))),
        )
        self.ready = tuple(node.id for node in self.config.nodes)
        lines = []
        for node in self.config.nodes:
            levels = " | ".join(_level(level) for level in node.levels) or "manual"
            lines.append(f"{node.name}: {levels}")
        return lines

    def _do_ready(self, plain: list[str], options: dict[str, str]) -> list[str]:
        self.ready = tuple(int(node) for node in plain)
        before = {victim.life: victim.current for victim in self.domain.victims}
        self.domain.actor_gone(self.ready)
        lines = []
        for victim in self.domain.victims:
            was = before[victim.life]
            if was is not None and victim.current is None:
                lines.append(f"attempt {was.number} on {victim.life}: {was.verdict}")
            lines.append(self._turn(victim))
        return lines

    def _do_lose(self, plain: list[str], options: dict[str, str]) -> list[str]:
        life = life_named(plain[0])
        self.epoch += 1
        self.ready = tuple(node for node in self.ready if node != life.node)
        victim = self.domain.add(
            life,
            Epoch(self.epoch, 1),
            options.pop("why", f"lost from view {self.epoch}.1"),
            options.pop("grace", "no") == "no",
            options.pop("in", "").split(",") if "in" in options else [],
            self.wall_ms,
        )
        if victim is None:
            return [f"{life} is fenced already"]
        if life not in self.lost:
            self.lost.append(life)
        self.domain.actor_gone(self.ready)
        return [self._turn(victim) if victim.due else f"{life} has a grace period"]

    def _do_begin(self, plain: list[str], options: dict[str, str]) -> list[str]:
        life = life_named(plain[0])
        victim = self._victim(life)
        actor = int(options.pop("by", str(self.domain.actor_for(victim, self.ready) or 0)))
        number = int(options.pop("number", str(victim.number + 1)))
        levels = len(self.config.node(life.node).levels)
        level = victim.level % levels
        if not self.domain.began(life, actor, level, number, self.wall_ms):
            return ["ignored: not the next attempt"]
        run = LevelRun(
            self.config,
            life,
            level,
            self.next_run,
            seen_by=actor,
            wall_ms=self.wall_ms,
            quarantined=self.domain.quarantined,
            switched=self.domain.switched_off(victim),
            listen_ms=int(options.pop("listen_ms", "0")),
        )
        self.runs[life] = (actor, run)
        orders = self._orders(run.start(self.wall_ms))
        return [f"n{actor} begins attempt {number} on {life}: level {level + 1}", *orders]

    def _do_device(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """device NAME [confirms=] [settle_ms=] [looks=] [look_every_ms=] [own_supply=]: make or change it."""
        known = {device.name: device for device in self.config.devices}
        old = known.get(plain[0], DeviceConfig(plain[0], "fence_pdu", Confirms.OUTLET_OFF))
        known[plain[0]] = msgspec.structs.replace(
            old,
            confirms=Confirms(options.pop("confirms", old.confirms.value)),
            own_supply=options.pop("own_supply", "yes" if old.own_supply else "no") == "yes",
            settle_ms=int(options.pop("settle_ms", old.settle_ms)),
            looks=int(options.pop("looks", old.looks)),
            look_every_ms=int(options.pop("look_every_ms", old.look_every_ms)),
        )
        devices = tuple(known[name] for name in sorted(known))
        self.config = msgspec.structs.replace(self.config, devices=devices)
        return [f"device {plain[0]}: {known[plain[0]].confirms.value}"]

    def _do_levels(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """levels NODE USE+USE ... [parallel=LEVEL]: its levels anew; a use is DEVICE or DEVICE[PLUG]."""
        node, *levels = plain
        parallel = int(options.pop("parallel", "0"))
        made = tuple(
            Level(tuple(_use(use) for use in level.split("+")), number == parallel)
            for number, level in enumerate(levels, 1)
        )
        nodes = tuple(
            msgspec.structs.replace(one, levels=made) if one.id == int(node) else one
            for one in self.config.nodes
        )
        self.config = msgspec.structs.replace(self.config, nodes=nodes)
        return [f"n{node}: {' | '.join(_level(level) for level in made)}"]

    def _do_delay(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """delay NODE MS: its fence_delay_ms."""
        node, delay_ms = int(plain[0]), int(plain[1])
        nodes = tuple(
            msgspec.structs.replace(one, fence_delay_ms=delay_ms) if one.id == node else one
            for one in self.config.nodes
        )
        self.config = msgspec.structs.replace(self.config, nodes=nodes)
        return [f"n{node}: fence_delay_ms = {delay_ms}"]

    def _do_stakes(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """stakes LIFE n1=3 n2=0: what each had in use when LIFE was lost; says whether it is favoured."""
        life = life_named(plain[0])
        nodes = [node for node in self.config.nodes if node.name in options]
        stakes = {node.id: int(options.pop(node.name)) for node in nodes}
        if favours_lost(self.config, stakes, [life.node], self.ready):
            self.state.favoured.append(life)
            return [f"{life} is fenced later"]
        return [f"{life} is not favoured"]

    def _do_say(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """say USE POWER: the oldest run of this use (or of any plug of this device) has exited."""
        named, power = plain[0], Power(plain[1])
        words = options.pop("words", "")
        answered = options.pop("answered", "no" if power is Power.UNKNOWN else "yes") == "yes"
        for life, (_, level) in self.runs.items():
            run = next((one for one in level.live if named in (one.device, one.use.label)), None)
            if run is not None:
                more = level.exited(run.run, power, words, 100, answered, self.wall_ms)
                current = self._victim(life).current
                if level.finished is None and current is not None:
                    self.domain.said(life, current.actor, current.number, level.words[-1])
                return self._orders(more) + self._waits(level) + self._concluded(life)
        raise BadCommand(f"no run of {named}")

    def _do_pass(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """pass SECONDS: time passes; what was waited for begins."""
        self.wall_ms += int(float(plain[0]) * 1000) - 1000
        lines = []
        for level in [level for _, level in self.runs.values()]:
            lines += self._orders(level.time_passes(self.wall_ms)) + self._waits(level)
        for life in list(self.runs):
            lines += self._concluded(life)
        return lines

    def _do_hear(self, plain: list[str], options: dict[str, str]) -> list[str]:
        life = life_named(plain[0])
        lines = []
        entry = self.runs.get(life)
        if entry is not None:
            entry[1].heard_victim()
            lines += self._concluded(life)
        self.epoch += 1
        lie = self.domain.spoke(life, self.wall_ms, Epoch(self.epoch, 1))
        if lie is None:
            return lines
        powering.leave_off(self.state, life.node)
        self.lost = sorted({*self.lost, *(victim.life for victim in self.domain.victims)})
        lines.append(f"LIE: {lie.what}")
        lines.append(f"quarantined: {', '.join(lie.devices) or 'nobody'}")
        lines.append("its locks had moved" if lie.moved else "its locks had not moved")
        return [*lines, self._turn(self._victim(lie.life))]

    def _do_evidence(self, plain: list[str], options: dict[str, str]) -> list[str]:
        by = int(options.pop("by", "1"))
        devices = tuple(options.pop("devices").split(",")) if "devices" in options else ()
        evidence = Evidence(life_named(plain[0]), EvidenceKind(plain[1]), by, "as told", devices)
        return [self._witness(evidence)]

    def _do_confirm(self, plain: list[str], options: dict[str, str]) -> list[str]:
        who = options.pop("who", "root")
        return [
            self._witness(Evidence(victim.life, EvidenceKind.OPERATOR, 1, f"{who} signs that it is off"))
            for victim in self.domain.of_node(int(plain[0]))
        ]

    def _do_bound(self, plain: list[str], options: dict[str, str]) -> list[str]:
        life = life_named(plain[0])
        for node in plain[1:]:
            self.domain.bound_passed(life, int(node))
        waiting = [f"n{node}" for node in self.ready if node not in self._victim(life).bound]
        return [f"bound of {life} waits for: {', '.join(waiting) or 'nobody'}"]

    def _do_purge(self, plain: list[str], options: dict[str, str]) -> list[str]:
        lines = []
        for life in self.domain.purgeable(self.ready):
            victim = self._victim(life)
            closed = any(one.kind is EvidenceKind.VOLUMES_CLOSED for one in victim.evidence)
            assert closed or all(node in victim.bound for node in self.ready), "purged before the bound"
            record = self.domain.purged(life)
            powering.after_purge(self.state, victim, record.evidence)
            self.lost.remove(life)
            kinds = ", ".join(evidence.kind.value for evidence in record.evidence)
            lines.append(f"purged {life} on {kinds}; lockspaces: {', '.join(record.lockspaces) or 'none'}")
        return lines or ["nothing may be purged"]

    def _do_release(self, plain: list[str], options: dict[str, str]) -> list[str]:
        self.domain.release_quarantine(plain[0])
        return [f"quarantined: {', '.join(self.domain.quarantined) or 'nobody'}"]

    def _do_why(self, plain: list[str], options: dict[str, str]) -> list[str]:
        victim = self._victim(life_named(plain[0]))
        run = self.runs.get(victim.life)
        lines = explain_victim(
            self.config, self.domain, victim, self.ready, self.wall_ms,
            favoured=self.state.favoured, doing=run[1].waits(self.wall_ms) if run is not None else (),
            disarmed=self.state.disarmed is not None, virtual=self.state.may_be_virtual(victim.life.node),
        )  # fmt: skip
        return lines + self._power()

    # -- switching on ------------------------------------------------------------------

    def _do_power(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """power: what is to be switched on."""
        return self._noted(powering.settle(self.state)) + self._power()

    def _do_enter(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """enter LIFE: it is let in as a ready member."""
        life = life_named(plain[0])
        self.state.lives[life.node] = life
        powering.let_in(self.state, life)
        return [f"{life} is let in", *self._do_power([], {})]

    def _do_switch(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """switch LIFE [by=NODE]: whose turn it is begins to switch on what is to be on for LIFE."""
        what = self._power_on(life_named(plain[0]))
        actor = int(options.pop("by", str(actor_for(what, self.ready) or 0)))
        began = PowerOnBegan(what.life, what.number + 1)
        granted = powering.began(self.state, Life(actor), began)
        labels = ", ".join(use.label for use in uses_of(self.config, what))
        if not granted:
            return ["not now: it may not be switched on, or it is another's turn"]
        return [f"n{actor} begins try {what.number} to switch on for {what.life}: {labels}"]

    def _do_switched(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """switched LIFE [failed=WORDS]: that try ended."""
        what = self._power_on(life_named(plain[0]))
        failed = options.pop("failed", "")
        wait_ms = backoff_ms(what.number - 1, self.config.timing) if failed else 0
        labels = ", ".join(use.label for use in uses_of(self.config, what))
        verdict = failed or f'{labels} said "on"'
        ended = PowerOnEnded(what.life, what.number, not failed, verdict, next_in_ms=wait_ms)
        return self._noted(powering.ended(self.state, Life(what.actor), ended)) + self._power()

    def _power_on(self, life: Life) -> PowerOn:
        for one in self.state.power_ons:
            if one.life == life:
                return one
        raise BadCommand(f"nothing is to be switched on for {life}")

    def _power(self) -> list[str]:
        return [explain_power_on(self.config, one) for one in self.state.power_ons]

    def _noted(self, facts: list[Fact]) -> list[str]:
        return [f"event {fact.kind}: {fact.what}" for fact in facts if isinstance(fact, Noted)]

    # -- helpers -----------------------------------------------------------------------

    def _victim(self, life: Life) -> Victim:
        victim = self.domain.victim(life)
        if victim is None:
            raise BadCommand(f"{life} is no victim")
        return victim

    def _turn(self, victim: Victim) -> str:
        if victim.current is not None:
            return f"{victim.life}: n{victim.current.actor} is at it"
        actor = self.domain.actor_for(victim, self.ready)
        who = f"n{actor}" if actor else "nobody"
        level = victim.level % max(1, len(self.config.node(victim.life.node).levels)) + 1
        return f"{victim.life}: the turn is {who}'s, level {level}, round {victim.round}"

    def _orders(self, runs: list[Run]) -> list[str]:
        self.next_run = max([self.next_run, *(run.run + 1 for run in runs)])
        return [f"run {run.use.label} {run.action}" for run in runs]

    def _waits(self, level: LevelRun) -> list[str]:
        return level.waits(self.wall_ms) if not level.live else []

    def _witness(self, evidence: Evidence) -> str:
        counts = self.domain.witness(evidence, naive=self.config.naive)
        return f"evidence {evidence.kind.value} about {evidence.life}: {'counts' if counts else 'refused'}"

    def _concluded(self, life: Life) -> list[str]:
        _, run = self.runs[life]
        outcome = run.finished
        if outcome is None:
            return []
        del self.runs[life]
        return self._ended(life, outcome)

    def _ended(self, life: Life, outcome: Outcome) -> list[str]:
        victim = self._victim(life)
        assert victim.current is not None
        lines = [f"{'passed' if outcome.passed else 'failed'}: {outcome.verdict}"]
        assert outcome.passed == (outcome.evidence is not None)
        if outcome.evidence is not None:
            lines.append(self._witness(outcome.evidence))
        self.domain.contradicted(outcome.contradicted)
        levels = len(self.config.node(life.node).levels)
        wait_ms = 0
        if not outcome.passed and self.domain.ends_round(victim, self.ready, levels):
            wait_ms = backoff_ms(victim.round, self.config.timing)
        self.domain.ended(
            life,
            victim.current.number,
            outcome.passed,
            outcome.verdict,
            outcome.words,
            wait_ms,
            ready=self.ready,
            levels=levels,
        )
        return [*lines, "proven" if self.domain.proven(victim) else self._turn(victim)]


def _use(text: str) -> str | Use:
    device, _, plug = text.rstrip("]").partition("[")
    return Use(device, {"plug": plug}) if plug else device


def _level(level: Level) -> str:
    return ", ".join(use.label for use in level.uses) + (" side by side" if level.parallel else "")


def replay(path: Path, story: Story) -> tuple[str, str]:
    """Run a scenario file.  Returns (its text, its text with what happened now)."""
    text = path.read_text()
    out: list[str] = []
    for block in text.strip("\n").split("\n\n"):
        lines = block.split("\n")
        head = lines[: lines.index(RULE)] if RULE in lines else lines
        out += head
        commands = [line for line in head if not line.startswith("#")]
        if commands:
            out.append(RULE)
        for command in commands:
            out += story.do(command)
        out.append("")
    return text, "\n".join(out)
