"""When a process counts as one that has just stood still."""

from ringfence.ring.corosync.pulse import NS_PER_MS, Pulse


def test_stillness_goes_on_for_a_while_after_its_end() -> None:
    pulse = Pulse(200, 0)
    for now_ms in range(0, 1000, 50):
        pulse.beat(now_ms * NS_PER_MS)
        assert not pulse.stood_still(now_ms * NS_PER_MS, 1100), "the start is none"
    assert pulse.stood_still(5000 * NS_PER_MS, 1100), "asked before the first beat after it"
    pulse.beat(5050 * NS_PER_MS)
    assert pulse.stood_still(6099 * NS_PER_MS, 1200)
    for now_ms in range(6100, 7400, 50):
        pulse.beat(now_ms * NS_PER_MS)
    assert not pulse.stood_still(7400 * NS_PER_MS, 1100)
