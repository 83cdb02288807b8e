"""One level's run: whatever the agents say, it ends, and passes only on two agreeing looks."""

import pytest
from fence_story import cluster, life_named
from hypothesis import given
from hypothesis import strategies as st

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Timing
from ringfence.core.evidence import EvidenceKind, Power
from ringfence.fencing.level_run import LOOKS, LevelRun

LIFE = life_named("3/b1.1")
ON, OFF, UNKNOWN = Power.ON, Power.OFF, Power.UNKNOWN


def play(run: LevelRun, answers: list[Power]) -> list[tuple[str, str, Power]]:
    """Answer each run with the next power; returns (device, action, power) in order."""
    said = []
    runs = run.start()
    for power in answers:
        if not runs:
            break
        (one,) = runs
        said.append((one.device, one.action, power))
        runs = run.exited(one.run, power, "", 10, power is not UNKNOWN)
    assert bool(runs) == (run.finished is None)
    return said


@pytest.mark.parametrize(
    ("level", "answers", "passed", "contradicted"),
    [
        (0, [OFF, OFF], True, ()),
        (0, [UNKNOWN], False, ()),
        (0, [ON], False, ()),
        (0, [OFF, ON, ON], False, ("ipmi_n3",)),
        (0, [OFF, ON, OFF], True, ()),
        (0, [OFF, UNKNOWN, OFF], True, ()),
        (0, [OFF, UNKNOWN, UNKNOWN], False, ()),
        (0, [OFF, UNKNOWN, ON], False, ("ipmi_n3",)),
        (1, [OFF, OFF, OFF, OFF, UNKNOWN], True, ()),
        (1, [OFF, OFF, UNKNOWN], False, ()),
        (1, [OFF, OFF, OFF, ON, ON], False, ("pdu_b_n3",)),
        (1, [OFF, OFF, OFF, OFF, OFF, OFF], False, ("pdu_a_n3", "pdu_b_n3")),
        (1, [OFF, OFF, OFF, OFF, ON, ON], False, ("pdu_a_n3", "pdu_b_n3")),
        (1, [OFF, OFF, OFF, OFF, OFF, UNKNOWN], True, ()),  # it lost its power a moment later
    ],
)
def test_what_a_level_makes_of_answers(level, answers, passed, contradicted):
    run = LevelRun(cluster(), LIFE, level, 1, seen_by=1)
    assert len(play(run, answers)) == len(answers)
    assert run.finished is not None
    assert run.finished.passed is passed
    assert run.finished.contradicted == contradicted
    if passed:
        evidence = run.finished.evidence
        assert evidence is not None
        assert evidence.kind is (EvidenceKind.OUTLETS_OFF if level else EvidenceKind.HOST_OFF)
        assert (evidence.life, evidence.seen_by) == (LIFE, 1)


def one_level(*confirms: Confirms, others: tuple[Confirms, ...] = ()) -> ClusterConfig:
    names = [f"d{index}" for index in range(len(confirms) + len(others))]
    kinds = [*confirms, *others]
    devices = tuple(DeviceConfig(name, "agent", kind) for name, kind in zip(names, kinds, strict=True))
    levels = [Level(tuple(names[: len(confirms)]))]
    levels += [Level((name,)) for name in names[len(confirms) :]]
    return ClusterConfig("c", nodes=(NodeConfig(3, "n3", levels=tuple(levels)),), devices=devices)


H, P, S = Confirms.HOST_OFF, Confirms.OUTLET_OFF, Confirms.STORAGE_CUT


@pytest.mark.parametrize(
    ("confirms", "kind"),
    [
        ((H,), EvidenceKind.HOST_OFF),
        ((P,), EvidenceKind.OUTLETS_OFF),
        ((P, P), EvidenceKind.OUTLETS_OFF),
        ((S,), EvidenceKind.STORAGE_CUT),
        ((P, H), EvidenceKind.HOST_OFF),
        ((S, H), EvidenceKind.HOST_OFF),
        ((P, S), EvidenceKind.STORAGE_CUT),  # the outlets beside it need not be all there are
    ],
)
def test_what_a_level_proves(confirms, kind):
    run = LevelRun(one_level(*confirms), LIFE, 0, 1)
    play(run, [OFF] * 10)
    assert run.finished is not None
    assert run.finished.evidence is not None
    assert run.finished.evidence.kind is kind


def test_an_outlet_that_is_on_does_not_contradict_a_host_that_is_off():
    run = LevelRun(one_level(H, others=(P,)), LIFE, 0, 1)
    assert [device for device, _, _ in play(run, [OFF, OFF, ON, ON])] == ["d0", "d0"]
    assert run.finished is not None
    assert run.finished.passed


@pytest.mark.parametrize(("says", "passed"), [(ON, False), (OFF, True), (UNKNOWN, True)])
def test_another_device_that_sees_the_host_on_contradicts_a_host_that_is_off(says, passed):
    run = LevelRun(one_level(H, others=(H,)), LIFE, 0, 1)
    play(run, [OFF, OFF, says, says])
    assert run.finished is not None
    assert run.finished.passed is passed


def test_a_storage_cut_does_not_ask_for_power():
    run = LevelRun(one_level(S, others=(H,)), LIFE, 0, 1)
    play(run, [OFF])
    run.heard_victim()
    assert run.finished is None
    (one,) = [run.running]
    assert one is not None
    assert run.exited(one.run, OFF, "", 1, True) == []
    assert run.finished is not None
    assert run.finished.passed


def test_naive_believes_the_first_word():
    run = LevelRun(cluster(naive=True), LIFE, 1, 1)
    assert play(run, [OFF, OFF]) == [("pdu_a_n3", "off", OFF), ("pdu_b_n3", "off", OFF)]
    assert run.finished is not None
    assert run.finished.evidence is not None
    assert run.finished.evidence.kind is EvidenceKind.CLAIM


def test_a_quarantined_device_is_fired_but_not_believed():
    run = LevelRun(cluster(), LIFE, 0, 1, quarantined=("ipmi_n3",))
    assert play(run, [OFF, OFF]) == [("ipmi_n3", "off", OFF), ("ipmi_n3", "status", OFF)]
    assert run.finished is not None
    assert not run.finished.passed
    assert "quarantined" in run.finished.verdict
    assert run.finished.contradicted == ()


def test_the_victim_is_heard_only_after_a_claim():
    run = LevelRun(cluster(), LIFE, 0, 7)
    (first,) = run.start()
    run.heard_victim()
    assert run.finished is None
    (second,) = run.exited(first.run, OFF, "", 1, True)
    run.heard_victim()
    assert run.finished is not None
    assert run.finished.contradicted == ("ipmi_n3",)
    assert run.running == second, "to be cancelled by the caller"
    assert run.exited(second.run, OFF, "", 1, True) == []
    assert not run.finished.passed


def test_cancelled_is_never_passed():
    run = LevelRun(cluster(), LIFE, 0, 1)
    (first,) = run.start()
    run.cancel()
    assert run.exited(first.run, OFF, "", 1, True) == []
    assert run.finished is not None
    assert (run.finished.passed, run.finished.evidence) == (False, None)


def test_answers_to_other_runs_change_nothing():
    run = LevelRun(cluster(), LIFE, 0, 5)
    run.start()
    assert run.exited(4, OFF, "", 1, True) == []
    assert run.finished is None
    assert run.running is not None
    assert run.running.run == 5


def test_time_limits_and_words_are_kept():
    config = cluster()
    run = LevelRun(config, LIFE, 0, 1)
    (first,) = run.start()
    assert first.timeout_ms == Timing().agent_timeout_ms
    run.exited(first.run, UNKNOWN, "Connection timed out", 1234, False)
    assert run.finished is not None
    (word,) = run.finished.words
    assert (word.device, word.action, word.power, word.words, word.took_ms) == (
        "ipmi_n3", "off", "unknown", "Connection timed out", 1234,
    )  # fmt: skip
    assert run.finished.verdict == "ipmi_n3: unreachable (Connection timed out)"


@given(
    st.lists(st.lists(st.sampled_from([H, P, S]), min_size=1, max_size=3), min_size=1, max_size=3),
    st.data(),
)
def test_whatever_devices_say_a_pass_rests_on_two_looks_and_no_contradiction(levels, data):
    names = iter(f"d{index}" for index in range(9))
    named = [[(next(names), confirms) for confirms in level] for level in levels]
    devices = tuple(
        DeviceConfig(name, "agent", confirms, own_supply=data.draw(st.booleans()))
        for level in named
        for name, confirms in level
    )
    host = NodeConfig(3, "n3", levels=tuple(Level(tuple(name for name, _ in level)) for level in named))
    config = ClusterConfig("c", nodes=(host,), devices=devices)
    run = LevelRun(config, LIFE, 0, 1)
    said: list[tuple[str, str, Power]] = []
    runs = run.start()
    while runs:
        (one,) = runs
        power = data.draw(st.sampled_from([OFF, OFF, OFF, ON, UNKNOWN]))
        said.append((one.device, one.action, power))
        assert len(said) <= (1 + LOOKS) * len(devices), "it must end"
        runs = run.exited(one.run, power, "", 1, power is not UNKNOWN)
    outcome = run.finished
    assert outcome is not None
    assert len(outcome.words) == len(said)
    assert outcome.passed == (outcome.evidence is not None)
    if not outcome.passed:
        return
    last = {device: (action, power) for device, action, power in said}
    kind = outcome.evidence.kind
    for name, _ in named[0]:
        assert (name, "off", OFF) in said
        assert last[name] == ("status", OFF)
    for device in devices:
        if device.name in dict(named[0]) or device.confirms is not H or kind is EvidenceKind.STORAGE_CUT:
            continue
        assert last[device.name][1] is not ON
        if kind is EvidenceKind.OUTLETS_OFF and not device.own_supply:
            assert last[device.name][1] is UNKNOWN
