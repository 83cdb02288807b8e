"""The fence domain's rules that read better as tables than as scenarios."""

import msgspec
import pytest
from fence_story import life_named

from ringfence.core.cluster import Timing
from ringfence.core.evidence import CUTS, EVIDENCE_WORDS, Evidence, EvidenceKind
from ringfence.core.ids import Epoch, Life
from ringfence.fencing.actor import backoff_ms, heartbeat_back, may_start, why_not_start
from ringfence.fencing.domain import FENCED_KEPT, FENCED_KEPT_PER_NODE, Domain
from ringfence.fencing.policy import POLICY, accepts, describe

B1 = life_named("3/b1.1")
K = EvidenceKind


def lost(life: Life = B1, *, lied: bool = False) -> Domain:
    domain = Domain()
    victim = domain.add(life, Epoch(2, 1), "lost", True, ["lvm_vg0"], 1000)
    assert victim is not None
    victim.lied = lied
    assert domain.began(life, 1, 0, 1, 1000)
    return domain


def about(kind: EvidenceKind, life: Life = B1, devices: tuple[str, ...] = (), by: int = 1) -> Evidence:
    return Evidence(life, kind, by, "as told", devices)


def test_every_kind_of_evidence_has_a_rule_and_a_reason():
    assert set(POLICY) == set(EvidenceKind)
    assert all(rule.why for rule in POLICY.values())


@pytest.mark.parametrize(
    ("kind", "first", "after_lie", "naive"),
    [
        (K.HOST_OFF, True, True, True),
        (K.OUTLETS_OFF, True, True, True),
        (K.STORAGE_CUT, True, True, True),
        (K.NEW_BOOT, True, True, True),
        (K.OPERATOR, True, True, True),
        (K.VOLUMES_CLOSED, True, False, True),
        (K.ADOPTED, False, False, False),
        (K.CLAIM, False, False, True),
    ],
)
def test_which_evidence_counts(kind: EvidenceKind, first: bool, after_lie: bool, naive: bool):
    assert lost().witness(about(kind)) is first
    assert lost(lied=True).witness(about(kind)) is after_lie
    assert lost().witness(about(kind), naive=True) is naive
    assert accepts(kind, lied=False, naive=False) is first


@pytest.mark.parametrize("kind", list(EvidenceKind))
def test_evidence_about_another_life_never_counts(kind: EvidenceKind):
    for other in ("3/b1.2", "3/b2.1", "2/b1.1", "3/unknown"):
        domain = lost()
        assert not domain.witness(about(kind, life_named(other)), naive=True)
        assert not domain.proven(domain.victims[0])
    clone = Life(3, "another-machine", "b1", 1)
    assert not lost().witness(about(kind, clone), naive=True)


def test_one_quarantined_device_spoils_the_level():
    domain = lost()
    domain.quarantined["pdu_b"] = "lied before"
    assert not domain.witness(about(K.OUTLETS_OFF, devices=("pdu_a", "pdu_b")))
    assert domain.witness(about(K.OUTLETS_OFF, devices=("pdu_a",)))


def test_evidence_stops_counting_when_its_device_is_caught_lying_about_another_life():
    """Two victims on the word of one device: the lie about one makes the other unproven."""
    domain = lost()
    other = life_named("2/b5.1")
    domain.add(other, Epoch(2, 1), "lost", True, [], 1000)
    assert domain.witness(about(K.HOST_OFF, devices=("rack_bmc",)))
    assert domain.witness(about(K.HOST_OFF, other, ("rack_bmc",)))
    for life in (B1, other):
        domain.bound_passed(life, 1)
    assert domain.purgeable((1,)) == [other, B1]
    assert domain.spoke(other, 2000, Epoch(3, 1)) is not None
    assert domain.purgeable((1,)) == []


def test_storage_cut_lets_the_host_speak():
    domain = lost()
    assert domain.witness(about(K.STORAGE_CUT, devices=("scsi",)))
    assert domain.spoke(B1, 2000, Epoch(3, 1)) is None


@pytest.mark.parametrize("kind", sorted(CUTS, key=lambda kind: kind.value))
@pytest.mark.parametrize("purged", [False, True])
@pytest.mark.parametrize("heard", ["3/b1.1", "3/b1.2"])
def test_hearing_a_life_after_its_power_was_cut_is_a_lie(kind: EvidenceKind, purged: bool, heard: str):
    domain = lost()
    assert domain.witness(about(kind, devices=("ipmi",)), naive=True, words=tuple(EVIDENCE_WORDS))
    domain.ended(B1, 1, True, "passed", ready=(1, 2), levels=2)
    if purged:
        domain.purged(B1)
    lie = domain.spoke(life_named(heard), 9000, Epoch(5, 1))
    assert lie is not None
    assert (lie.life, lie.devices, lie.moved) == (B1, ("ipmi",), purged)
    assert lie.lockspaces == ("lvm_vg0",)
    (victim,) = domain.victims
    assert (victim.lied, victim.due, victim.since) == (True, True, Epoch(5, 1))
    assert victim.lockspaces == ["lvm_vg0"]
    assert victim.evidence == []
    assert victim.level == 1, "the next level runs, not the liar's"
    assert domain.fenced == []
    assert "ipmi" in domain.quarantined
    assert domain.barred(life_named("3/b1.3"))
    assert not domain.barred(life_named("3/b2.1"))
    assert domain.spoke(life_named(heard), 9000, Epoch(5, 1)) is None, "told once"


def test_every_incarnation_of_the_boot_becomes_a_victim_again():
    domain = lost()
    second = life_named("3/b1.2")
    domain.add(second, Epoch(2, 1), "lost", True, ["lvm_vg1"], 1000)
    assert domain.witness(about(K.OPERATOR))
    assert domain.witness(about(K.OPERATOR, second))
    domain.purged(B1)
    assert domain.spoke(life_named("3/b1.3"), 9000, Epoch(5, 1)) is not None
    assert [(victim.life, victim.lied) for victim in domain.victims] == [(B1, True), (second, True)]


def test_an_unknown_life_is_never_told_apart_from_a_new_boot():
    unknown = life_named("3/unknown")
    domain = lost(unknown)
    assert domain.witness(about(K.HOST_OFF, unknown, ("ipmi",)))
    domain.purged(unknown)
    assert domain.spoke(life_named("3/b1.1"), 9000, Epoch(5, 1)) is None


def test_attempt_numbers_go_on_after_a_lie_so_that_late_words_stay_stale():
    domain = lost()
    domain.ended(B1, 1, True, "passed", ready=(1, 2), levels=2)
    domain.witness(about(K.HOST_OFF, devices=("ipmi",)))
    domain.purged(B1)
    domain.spoke(B1, 9000, Epoch(5, 1))
    assert not domain.began(B1, 2, 0, 1, 9000)
    assert domain.began(B1, 2, 1, 2, 9000)


def test_to_add_a_victim_twice_keeps_its_attempts():
    domain = lost()
    domain.add(B1, Epoch(7, 1), "again", False, ["lvm_vg1"], 7000)
    (victim,) = domain.victims
    assert (victim.since, victim.due, victim.number) == (Epoch(2, 1), True, 1)
    assert victim.lockspaces == ["lvm_vg0", "lvm_vg1"]


@pytest.mark.parametrize(
    ("ready", "bound", "may"),
    [
        ((1, 2), [1, 2], True),
        ((1, 2), [1], False),
        ((1, 2), [], False),
        ((1, 2, 4), [1, 2], False),  # a member that started since has a bound of its own
        ((1,), [1, 2], True),
        ((), [], False),  # nobody is ready: nobody has waited
    ],
)
def test_purge_waits_for_every_ready_clock(ready: tuple[int, ...], bound: list[int], may: bool):
    domain = lost()
    assert domain.witness(about(K.HOST_OFF))
    for node in bound:
        domain.bound_passed(B1, node)
    assert domain.purgeable(ready) == ([B1] if may else [])
    without = lost()
    for node in bound:
        without.bound_passed(B1, node)
    assert without.purgeable(ready) == [], "the bound alone frees nothing"
    closed = lost()
    assert closed.witness(about(K.VOLUMES_CLOSED))
    assert closed.purgeable(ready) == [B1]


def test_purge_without_evidence_is_a_bug():
    with pytest.raises(AssertionError, match="without evidence"):
        lost().purged(B1)


def test_the_fenced_are_bounded_but_no_node_is_forgotten():
    domain = Domain()
    rare = life_named("2/b0.1")
    lives = [rare, *(life_named(f"3/b{number}.1") for number in range(FENCED_KEPT + 20))]
    for life in lives:
        domain.add(life, Epoch(1, 1), "lost", True, [], 0)
        assert domain.witness(about(K.OPERATOR, life))
        domain.purged(life)
    kept = [record.life for record in domain.fenced]
    assert kept[0] == rare
    assert len(kept) == FENCED_KEPT + 1
    assert kept[1:] == lives[-FENCED_KEPT:]
    assert FENCED_KEPT_PER_NODE <= FENCED_KEPT
    assert set(domain.fenced_lives()) == set(kept)


def test_the_turn_goes_round_and_skips_the_victims_own_node():
    """Node 3 is back in a new life: it does not shoot itself."""
    domain = lost()
    victim = domain.victims[0]
    ready = (1, 2, 3)
    seen = []
    for number in range(1, 9):
        actor = domain.actor_for(victim, ready)
        assert actor is not None
        if victim.current is None:
            domain.began(B1, actor, victim.level, number, 0)
        seen.append((actor, victim.level, victim.round, domain.ends_round(victim, ready, 2)))
        domain.ended(B1, number, False, "no", ready=ready, levels=2)
    assert seen == [
        (1, 0, 0, False), (1, 1, 0, False), (2, 0, 0, False), (2, 1, 0, True),
        (1, 0, 1, False), (1, 1, 1, False), (2, 0, 1, False), (2, 1, 1, True),
    ]  # fmt: skip
    assert victim.turn == 4
    assert domain.actor_for(victim, (3,)) is None


def test_a_round_ends_when_the_only_untried_member_leaves():
    domain = lost()
    domain.ended(B1, 1, False, "no", ready=(1, 2), levels=1)
    victim = domain.victims[0]
    assert domain.actor_for(victim, (1, 2)) == 2
    domain.actor_gone((1,))
    assert (domain.actor_for(victim, (1,)), victim.round) == (1, 1)


def test_an_attempt_of_a_member_that_left_is_closed():
    domain = lost()
    domain.actor_gone((2, 4))
    victim = domain.victims[0]
    assert victim.current is None
    assert victim.attempts[-1].verdict == "the acting member left"
    assert domain.actor_for(victim, (2, 4)) == 2
    assert not domain.ended(B1, 1, True, "too late", ready=(2, 4), levels=2)


def test_an_adopted_life_is_over_and_remembered():
    domain = Domain()
    domain.add(B1, Epoch(2, 1), "its daemon ended", False, ["lvm_vg0"], 0)
    record = domain.adopted(B1, about(K.ADOPTED))
    assert (record.lockspaces, domain.victims) == (["lvm_vg0"], [])
    assert domain.fenced_lives() == (B1,)
    assert domain.add(B1, Epoch(3, 1), "remembered on disk", True, [], 0) is None
    assert domain.spoke(life_named("3/b1.2"), 0, Epoch(3, 1)) is None, "no fence has lied"


def test_nobody_is_adopted_once_he_is_due():
    domain = lost()
    with pytest.raises(AssertionError, match="too late"):
        domain.adopted(B1, about(K.ADOPTED))


def test_refuted_claims_are_counted_not_quarantined():
    domain = lost()
    domain.contradicted(("ipmi",))
    domain.contradicted(("ipmi",))
    assert (domain.refuted, domain.quarantined) == ({"ipmi": 2}, {})


def test_equal_histories_have_equal_bytes():
    def history() -> bytes:
        domain = lost()
        domain.add(life_named("2/b9.1"), Epoch(3, 1), "lost", True, ["b", "a"], 0)
        domain.witness(about(K.HOST_OFF, devices=("ipmi",)))
        domain.bound_passed(B1, 2)
        domain.bound_passed(B1, 1)
        domain.purged(B1)
        domain.spoke(life_named("3/b1.2"), 1, Epoch(4, 1))
        return msgspec.msgpack.encode(domain, order="deterministic")

    assert history() == history()


@pytest.mark.parametrize(
    ("round", "pause_ms"),
    [(0, 1000), (1, 2000), (4, 16000), (5, 30000), (6, 30000), (10_000, 30000)],
)
def test_backoff_grows_and_is_bounded(round: int, pause_ms: int):
    assert backoff_ms(round, Timing()) == pause_ms


def test_who_may_start_an_agent():
    right = {"ready": True, "primary": True, "heartbeat_back": True, "calm": True}
    assert may_start(**right)
    for one in right:
        assert not may_start(**{**right, one: False})
        assert why_not_start(**{**right, one: False})


@pytest.mark.parametrize(("sent_ms", "back"), [(0, False), (1, False), (4001, True), (4000, False)])
def test_an_old_echo_of_oneself_is_none(sent_ms: int, back: bool):
    assert heartbeat_back(sent_ms * 1_000_000, 5_000_000_000, Timing()) is back


def test_evidence_in_words():
    text = describe(about(K.HOST_OFF), "n1")
    assert text == "host-off, seen by n1: as told"
