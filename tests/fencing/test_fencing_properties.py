"""Random stories: whatever happens in whatever order, the domain keeps its promises."""

from fence_story import Story, life_named
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ringfence.core.evidence import EvidenceKind
from ringfence.core.ids import Life

LIVES = ["1/b1.1", "1/b1.2", "2/b1.1", "3/b1.1", "3/b1.2", "3/b2.1", "3/unknown"]
DEVICES = [f"{kind}_n{node}" for node in (1, 2, 3) for kind in ("ipmi", "pdu_a", "pdu_b")]


def named(life: Life) -> str:
    """Inverse of life_named."""
    return f"{life.node}/unknown" if life.unknown else str(life)


class Fencing(RuleBasedStateMachine):
    """Drives a Story; its own check() asserts after every command that no victim is forgotten or
    made up, that nothing is purged before every ready member's bound, and that the state's bytes
    survive a round trip."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story()
        self.cut_and_heard: set[str] = set()

    @rule(life=st.sampled_from(LIVES), grace=st.booleans())
    def lose(self, life: str, grace: bool) -> None:
        fenced = any(record.life == life_named(life) for record in self.story.domain.fenced)
        said = self.story.do(f"lose {life} in=lvm_vg0 grace={'yes' if grace else 'no'}")
        assert fenced == (said[0].endswith("is fenced already"))

    @rule(ready=st.sets(st.sampled_from([1, 2, 3])))
    def view(self, ready: set[int]) -> None:
        self.story.do("ready " + " ".join(str(node) for node in sorted(ready)))

    @rule(life=st.sampled_from(LIVES))
    def begin(self, life: str) -> None:
        victim = self.story.domain.victim(life_named(life))
        actor = self.story.domain.actor_for(victim, self.story.ready) if victim else None
        if victim and actor and victim.current is None and not self.story.domain.proven(victim):
            assert actor != victim.life.node
            assert actor in self.story.ready
            self.story.do(f"begin {life}")

    @rule(pick=st.integers(0, 5), power=st.sampled_from(["off", "off", "off", "on", "unknown"]))
    def say(self, pick: int, power: str) -> None:
        running = [one for _, run in self.story.runs.values() for one in run.live]
        if running:
            self.story.do(f"say {running[pick % len(running)].device} {power}")

    @rule(life=st.sampled_from(LIVES[:-1]))
    def hear(self, life: str) -> None:
        said = self.story.do(f"hear {life}")
        if any(line.startswith("LIE") for line in said):
            heard = life_named(life)
            again = [victim for victim in self.story.domain.victims if victim.life.same_boot(heard)]
            assert again
            assert not any(self.story.domain.proven(victim) for victim in again if victim.lied)
        for record in self.story.domain.fenced:
            if record.life.same_boot(life_named(life)):
                kinds = {evidence.kind for evidence in record.evidence}
                assert not kinds & {EvidenceKind.HOST_OFF, EvidenceKind.OUTLETS_OFF, EvidenceKind.OPERATOR}

    @rule(
        life=st.sampled_from(LIVES),
        kind=st.sampled_from(["new-boot", "volumes-closed", "claim", "host-off"]),
    )
    def evidence(self, life: str, kind: str) -> None:
        self.story.do(f"evidence {life} {kind} by=1 devices=ipmi_n{life[0]}")

    @rule(node=st.sampled_from([1, 2, 3]))
    def confirm(self, node: int) -> None:
        self.story.do(f"confirm {node}")

    @rule(life=st.sampled_from(LIVES), node=st.sampled_from([1, 2, 3]))
    def bound(self, life: str, node: int) -> None:
        if self.story.domain.victim(life_named(life)):
            self.story.do(f"bound {life} {node}")

    @rule()
    def purge(self) -> None:
        self.story.do("purge")

    @rule(device=st.sampled_from(DEVICES))
    def release(self, device: str) -> None:
        self.story.do(f"release {device}")

    @invariant()
    def nothing_is_proven_by_a_liar(self) -> None:
        domain = self.story.domain
        for victim in domain.victims:
            believed = [evidence for evidence in victim.evidence if domain.counts(victim, evidence)]
            assert domain.proven(victim) == bool(believed)
            for evidence in believed:
                assert not set(evidence.devices) & {*domain.quarantined, *victim.distrusted}
                assert evidence.kind is not EvidenceKind.CLAIM
                assert not (victim.lied and evidence.kind is EvidenceKind.VOLUMES_CLOSED)

    @invariant()
    def every_victim_can_be_explained(self) -> None:
        for victim in self.story.domain.victims:
            lines = self.story.do(f"why {named(victim.life)}")
            assert lines[0].startswith(f"n{victim.life.node} suspected since ")
            assert all(line and "\n" not in line for line in lines)

    def teardown(self) -> None:
        """Heal: honest devices, every member ready.  Every victim goes, within bounded attempts."""
        story = self.story
        if not all(node in story.ready for node in (1, 2, 3)):
            story.do("ready 1 2 3")
        for device in sorted(story.domain.quarantined):
            story.do(f"release {device}")
        for victim in list(story.domain.victims):
            name = named(victim.life)
            for _ in range(20):
                if story.domain.victim(victim.life) is None or story.domain.proven(victim):
                    break
                if victim.current is None:
                    story.do(f"begin {name}")
                while victim.current is not None:
                    one = story.runs[victim.life][1].live[0]
                    host_off = one.device.startswith("ipmi") and one.action == "off"
                    outlet_run = victim.current.level == 1
                    silent = one.device.startswith("ipmi") and outlet_run
                    story.do(f"say {one.device} {'unknown' if silent and not host_off else 'off'}")
            devices = {f"ipmi_n{victim.life.node}", f"pdu_a_n{victim.life.node}"}
            if not devices & set(victim.distrusted):
                assert story.domain.proven(victim)
            elif not story.domain.proven(victim):
                story.do(f"confirm {victim.life.node}")
            story.do(f"bound {name} 1 2 3")
        story.do("purge")
        assert story.domain.victims == []


Fencing.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestFencing = Fencing.TestCase
