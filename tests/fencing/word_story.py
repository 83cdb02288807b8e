"""Operators' words and machines in the scenario files: what `fence_story` does not need for devices alone."""

import msgspec
from fence_story import Story, life_named

from ringfence.core.evidence import Evidence
from ringfence.core.ids import Life
from ringfence.core.moments import duration_ms
from ringfence.engine import marks, words
from ringfence.engine.arrivals import admit
from ringfence.engine.facts import Expelled, Fact, NotAdmitted, Noted
from ringfence.wire import entries
from ringfence.wire.ring import Hardware

ANN = Life(1)
"""Whose node says so; the words are a person's."""


class WordStory(Story):
    def do(self, line: str) -> list[str]:
        self.state.wall_ms = self.wall_ms + 1000  # as `Story.do` sets it
        return super().do(line)

    def _do_begin(self, plain: list[str], options: dict[str, str]) -> list[str]:
        if self.state.disarmed is not None:
            return ["ignored: fencing is disarmed"]
        return super()._do_begin(plain, options)

    def _do_policy(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """policy WORD ...: [cluster] evidence."""
        self.config = msgspec.structs.replace(self.config, evidence=tuple(plain))
        return [f"evidence that counts: {', '.join(plain)}"]

    def _do_join(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """join LIFE [machine=] [board=] [virtual=]: its daemon says that it is ready."""
        life = life_named(plain[0])
        life = Life(life.node, options.pop("machine", life.machine), life.boot, life.incarnation)
        self.ready_but(life.node)
        hardware = Hardware(options.pop("board", ""), options.pop("virtual", ""))
        return self._told(admit(self.state, life, self.wall_ms, hardware))

    def ready_but(self, node: int) -> None:
        """The placeholder life of a node that joins in the story makes room for the real one."""
        if self.state.lives.get(node) == Life(node, f"m{node}", f"up{node}", 1):
            del self.state.lives[node]

    def _do_seen(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """seen LIFE how=WORDS: it goes on, elsewhere than in the ring."""
        entry = entries.LifeSeen(life_named(plain[0]), options.pop("how"))
        return self._told(marks.seen(self.state, ANN, entry))

    # -- what people say --------------------------------------------------------------

    def _do_order(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """order NODE [action=] [who=] [why=]: `ringfence fence NODE`."""
        node = int(plain[0])
        who, why, action = (options.pop(word, "") for word in ("who", "why", "action"))
        refused, cure = words.why_no_order(self.state, node)
        if refused:
            return [f"refused: {refused}; {cure}"]
        number = f"order-{len(self.state.orders) + 1}"
        present = self.state.lives.get(node)
        entry = entries.FenceOrdered(number, node, present, action, who or "ann", why)
        self.state.position += 1
        lines = self._told(words.ordered(self.state, ANN, entry))
        return lines + [self._turn(victim) for victim in self.domain.of_node(node)]

    def _do_disarm(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """disarm TIME [who=] [why=]: `ringfence fence disarm --for TIME`."""
        entry = entries.Disarmed(duration_ms(plain[0]), options.pop("who", "ann"), options.pop("why", ""))
        return self._told(words.disarmed(self.state, ANN, entry))

    def _do_arm(self, plain: list[str], options: dict[str, str]) -> list[str]:
        return self._told(words.armed(self.state, ANN, entries.Armed(options.pop("who", "ann"))))

    def _do_expired(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """expired NODE ...: on their clocks the time of the maintenance is over."""
        lines = []
        for node in plain:
            disarm = self.state.disarmed
            number = disarm.number if disarm else 0
            lines += self._told(words.expired(self.state, Life(int(node)), entries.DisarmExpired(number)))
        return lines

    def _do_re_enrol(self, plain: list[str], options: dict[str, str]) -> list[str]:
        """re_enrol NODE [who=]: `ringfence node re-enrol`."""
        node = int(plain[0])
        refused, cure = words.why_not_forgotten(self.state, node)
        if refused:
            return [f"refused: {refused}; {cure}"]
        machine = self.state.enrolled.get(node, "")
        entry = entries.MachineForgotten(node, machine, options.pop("who", "ann"))
        return self._told(words.forgotten(self.state, ANN, entry))

    # -- helpers -------------------------------------------------------------------------

    def _told(self, facts: list[Fact]) -> list[str]:
        """What is recorded and done; every victim that came of it is counted as lost."""
        self.lost = sorted({victim.life for victim in self.domain.victims})
        lines = []
        for fact in facts:
            match fact:
                case Noted():
                    lines.append(f"event {fact.kind}: {fact.what}")
                case NotAdmitted():
                    lines.append(f"not let in: {fact.why}")
                case Expelled():
                    lines.append(f"{fact.life} is told so: it gives its authority up")
        return lines

    def _witness(self, evidence: Evidence) -> str:
        about = f"evidence {evidence.kind.value} about {evidence.life}"
        virtual = self.state.may_be_virtual(evidence.life.node)
        policy = {"naive": self.config.naive, "words": self.config.evidence, "virtual": virtual}
        if self.domain.witness(evidence, **policy):  # type: ignore[arg-type]
            return f"{about}: counts"
        why = self.domain.refusal(evidence, **policy)  # type: ignore[arg-type]
        return f"{about}: refused: {why}"
