"""One level's run: whatever the agents say, it ends, and passes only on two agreeing looks."""

import pytest
from fence_story import cluster, life_named
from hypothesis import given
from hypothesis import strategies as st

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Timing, Use
from ringfence.core.evidence import DEFAULT_EVIDENCE, EvidenceKind, Power
from ringfence.fencing.level_run import LevelRun, already_off, switched_off
from ringfence.fencing.policy import accepts
from ringfence.wire.entries import DeviceWord

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
        (1, [OFF, OFF, UNKNOWN, UNKNOWN], False, ()),
        (1, [OFF, OFF, OFF, ON, ON], False, ("pdu_b_n3",)),
        (1, [OFF, UNKNOWN], False, ()),
        (1, [OFF, OFF, ON, ON], False, ("pdu_a_n3",)),
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
    (one,) = run.live
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
    assert run.live == [second], "to be cancelled by the caller"
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
    assert [one.run for one in run.live] == [5]


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


PLUGS = ("apc[1]", "apc[2]", "apc[3]")


def plugs(count: int, *, parallel: bool = False, **options: int) -> LevelRun:
    """A level of so many plugs of one PDU."""
    uses = tuple(Use("apc", {"plug": str(plug + 1)}) for plug in range(count))
    apc = DeviceConfig("apc", "fence_apc", Confirms.OUTLET_OFF, **options)
    host = NodeConfig(3, "n3", levels=(Level(uses, parallel),))
    return LevelRun(ClusterConfig("c", nodes=(host,), devices=(apc,)), LIFE, 0, 1)


def orders(run: LevelRun) -> list[tuple[str, str]]:
    return [(one.use.label, one.action) for one in run.live]


@pytest.mark.parametrize("parallel", [False, True])
def test_all_plugs_are_told_off_before_any_is_looked_at(parallel):
    run = plugs(2, parallel=parallel)
    run.start()
    told = []
    while run.live:
        if parallel and len(told) in (0, 2):
            assert len(run.live) == 2
        told.append(orders(run)[0])
        run.exited(run.live[0].run, OFF, "", 1, True)
    assert told == [(plug, action) for action in ("off", "status") for plug in PLUGS[:2]]
    assert run.finished is not None
    assert run.finished.evidence is not None
    assert run.finished.evidence.devices == ("apc",), "quarantine is for the whole device"
    assert run.finished.verdict == 'apc[1], apc[2] said "off", and a second look agrees'
    assert [word.device for word in run.finished.words] == [*PLUGS[:2], *PLUGS[:2]]


def test_side_by_side_the_first_failure_ends_the_level_and_the_rest_is_to_be_cancelled():
    run = plugs(3, parallel=True)
    first, second, third = run.start()
    assert run.exited(second.run, UNKNOWN, "no route", 5, False) == []
    assert run.finished is not None
    assert run.finished.verdict == "apc[2]: unreachable (no route)"
    assert run.live == [first, third]
    assert run.exited(first.run, OFF, "", 9, True) == []
    assert [word.device for word in run.finished.words] == ["apc[2]", "apc[1]"], "what it said is kept"
    assert not run.finished.passed


def test_a_device_is_left_alone_until_it_has_settled_and_between_its_looks():
    run = plugs(1, settle_ms=20_000, looks=3, look_every_ms=4_000)
    (off,) = run.start(0)
    assert run.exited(off.run, OFF, "", 1, True, 1_000) == []
    assert run.until_ms == 21_000
    assert run.waits(5_000) == ["waits 16.0 s for apc[1] to settle"]
    assert run.time_passes(20_999) == []
    for look, now_ms in ((1, 21_000), (2, 25_500), (3, 29_600)):
        (one,) = run.time_passes(now_ms)
        assert one.action == "status"
        assert run.until_ms == 0, "only its exit brings it on"
        assert run.exited(one.run, ON, "", 1, True, now_ms + 100) == []
        if look < 3:
            assert run.until_ms == now_ms + 4_100
            assert run.waits(now_ms + 100) == [
                f"waits 4.0 s for look {look + 1} of 3 at apc[1]: its status may lag"
            ]
    assert run.finished is not None
    assert run.finished.contradicted == ("apc",)


def test_plugs_settle_side_by_side_though_they_are_looked_at_in_turn():
    run = plugs(2, settle_ms=5_000)
    (off,) = run.start(0)
    (off,) = run.exited(off.run, OFF, "", 1, True, 1_000)
    assert run.exited(off.run, OFF, "", 1, True, 2_000) == []
    (look,) = run.time_passes(6_000)
    assert run.exited(look.run, OFF, "", 1, True, 6_500) == []
    assert run.until_ms == 7_000


@pytest.mark.parametrize(
    ("words", "already"),
    [
        ("Success: Already OFF", True),
        ("apc: already off", True),
        ("Success: Powered OFF", False),
        ("", False),
    ],
)
def test_which_words_say_that_nothing_was_sent(words, already):
    assert already_off(words) is already


def alone(words: str, confirms: Confirms, says: Power | None = None, switched: dict[str, int] | None = None):
    """A level of one device, told "off", answers in these words; `says`: another that sees the host."""
    config = one_level(confirms, others=() if says is None else (H,))
    run = LevelRun(config, LIFE, 0, 1, switched=switched)
    (off,) = run.start()
    (look,) = run.exited(off.run, OFF, words, 1, True)
    for cross in run.exited(look.run, OFF, "", 1, True):
        assert says is not None
        again = run.exited(cross.run, says, "", 1, says is not UNKNOWN)
        while again:
            again = run.exited(again[0].run, says, "", 1, True)
    assert run.finished is not None
    return run.finished


@pytest.mark.parametrize("confirms", [H, P])
def test_already_off_is_no_explicit_off(confirms):
    found = alone("Success: Already OFF", confirms)
    assert not found.passed
    assert found.contradicted == (), "nothing shows that it lied"
    assert "d0 was already off, so no off was sent" in found.verdict
    assert not alone("Success: Already OFF", confirms, says=UNKNOWN).passed


def test_already_off_counts_if_another_device_sees_the_host_off():
    assert alone("Success: Already OFF", H, says=OFF).passed
    assert not alone("Success: Already OFF", H, says=ON).passed


def test_already_off_counts_after_an_explicit_off_in_an_earlier_attempt():
    found = alone("Success: Already OFF", P, switched={"d0": 2})
    assert found.passed
    assert found.words[0].words == "switched off in attempt 2 (now: Success: Already OFF)"
    assert switched_off(found.words, 5) == {"d0": 2}, "and is remembered as long as that counts"


def test_what_the_storage_says_of_its_own_cut_is_the_cut():
    assert alone("Success: Already OFF", S).passed


def test_what_was_switched_off_in_an_attempt():
    words = (
        DeviceWord("a", "off", "off", "Success: Powered OFF", 1),
        DeviceWord("b", "off", "off", "Success: Already OFF", 1),
        DeviceWord("c", "off", "unknown", "timed out", 1),
        DeviceWord("d", "status", "off", "", 1),
    )
    assert switched_off(words, 3) == {"a": 3}
    late = DeviceWord("e", "off", "unknown", "Failed: Timed out waiting to power OFF", 20_000)
    assert switched_off((late,), 4) == {"e": 4}, "it was sent, and its status lags"


@given(
    st.lists(st.lists(st.sampled_from([H, P, S]), min_size=1, max_size=3), min_size=1, max_size=3),
    st.booleans(),
    st.data(),
)
def test_whatever_devices_say_a_pass_rests_on_two_looks_and_no_contradiction(levels, parallel, data):
    names = iter(f"d{index}" for index in range(9))
    named = [[(next(names), confirms) for confirms in level] for level in levels]
    devices = tuple(
        DeviceConfig(
            name, "agent", confirms, own_supply=data.draw(st.booleans()), looks=data.draw(st.integers(1, 3)),
            settle_ms=data.draw(st.sampled_from([0, 500])),
            look_every_ms=data.draw(st.sampled_from([0, 300])),
        )
        for level in named
        for name, confirms in level
    )  # fmt: skip
    host = NodeConfig(
        3, "n3", levels=tuple(Level(tuple(name for name, _ in level), parallel) for level in named)
    )
    config = ClusterConfig("c", nodes=(host,), devices=devices)
    run = LevelRun(config, LIFE, 0, 1)
    looks = {device.name: device.looks for device in devices}
    said: list[tuple[str, str, Power]] = []
    unsent: list[str] = []
    now_ms = 1
    offs_over_ms = 0
    run.start(now_ms)
    while run.finished is None:
        if not run.live:
            assert run.until_ms > now_ms, "it waits for something"
            now_ms = run.until_ms
            run.time_passes(now_ms)
            continue
        one = data.draw(st.sampled_from(run.live))
        power = data.draw(st.sampled_from([OFF, OFF, OFF, ON, UNKNOWN]))
        words = data.draw(st.sampled_from(["", "Already OFF"])) if (one.action, power) == ("off", OFF) else ""
        if words:
            unsent.append(one.device)
        assert one.action != "off" or not any(action == "status" for _, action, _ in said), "no look between"
        said.append((one.device, one.action, power))
        assert len(said) <= sum(1 + count for count in looks.values()), "it must end"
        now_ms += 10
        offs_over_ms = now_ms if one.action == "off" else offs_over_ms
        run.exited(one.run, power, words, 1, power is not UNKNOWN, now_ms)
        assert parallel or len(run.live) <= 1
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
    crossed = [name for name, (action, power) in last.items() if name not in dict(named[0]) and power is OFF]
    sent = [name for name, confirms in named[0] if name not in unsent]
    if kind is EvidenceKind.HOST_OFF:
        assert crossed or any(confirms is H and name in sent for name, confirms in named[0])
    elif kind is EvidenceKind.OUTLETS_OFF:
        assert crossed or len(sent) == len(named[0])
    for device in devices:
        if device.name in dict(named[0]) or device.confirms is not H or kind is EvidenceKind.STORAGE_CUT:
            continue
        assert last[device.name][1] is not ON
        if kind is EvidenceKind.OUTLETS_OFF and not device.own_supply:
            assert last[device.name][1] is UNKNOWN


def with_sbd(*levels: tuple[str, ...]) -> ClusterConfig:
    devices = (
        DeviceConfig("bmc", "fence_ipmilan", Confirms.HOST_OFF),
        DeviceConfig("pdu", "fence_apc", Confirms.OUTLET_OFF),
        DeviceConfig("sbd", "fence_sbd", Confirms.SELF_FENCE, {"devices": "/dev/sbd"}, timeout_ms=40_000),
    )
    return ClusterConfig(
        "lab", nodes=(NodeConfig(3, "n3", levels=tuple(map(Level, levels))),), devices=devices
    )


def test_a_host_that_ended_itself_rests_on_its_watchdog_and_its_restart_does_not_refute_it():
    run = LevelRun(with_sbd(("sbd",), ("bmc",)), LIFE, 0, 1, seen_by=1)
    assert play(run, [OFF, OFF]) == [("sbd", "off", OFF), ("sbd", "status", OFF)], "the BMC is not asked"
    assert run.finished is not None
    assert run.finished.evidence is not None
    assert run.finished.evidence.kind is EvidenceKind.SELF_FENCED
    assert run.finished.evidence.how.endswith("it rests on the watchdog of n3")


def test_a_host_that_was_to_end_itself_and_speaks_has_not():
    run = LevelRun(with_sbd(("sbd",)), LIFE, 0, 1, seen_by=1)
    play(run, [OFF])
    run.heard_victim()
    assert run.finished is not None
    assert (run.finished.passed, run.finished.contradicted) == (False, ("sbd",))


@pytest.mark.parametrize(
    ("level", "kind"),
    [(("sbd", "bmc"), EvidenceKind.HOST_OFF), (("pdu", "sbd"), EvidenceKind.OUTLETS_OFF)],
)
def test_beside_what_cuts_power_a_message_adds_nothing(level, kind):
    run = LevelRun(with_sbd(level), LIFE, 0, 1, seen_by=1)
    play(run, [OFF] * 4)
    assert run.finished is not None
    assert run.finished.evidence is not None
    assert run.finished.evidence.kind is kind


@pytest.mark.parametrize(
    ("words", "virtual", "counts"),
    [
        (DEFAULT_EVIDENCE, False, False),
        ((*DEFAULT_EVIDENCE, "self-fence"), False, True),
        ((*DEFAULT_EVIDENCE, "self-fence"), True, False),
    ],
)
def test_a_host_that_ended_itself_counts_only_where_asked_for_and_never_of_a_virtual_one(
    words, virtual, counts
):
    assert accepts(EvidenceKind.SELF_FENCED, lied=False, naive=False, words=words, virtual=virtual) is counts
