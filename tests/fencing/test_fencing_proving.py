"""What the answers to a test mean, and what is remembered of them."""

import pytest

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Timing, Use
from ringfence.core.evidence import Power
from ringfence.fencing import proving
from ringfence.fencing.proving import Answers, Kept, judge, merged, subjects
from ringfence.wire.proving import Outcome, UseTest

HOUR_MS = 3_600_000


def config(**plugs: str) -> ClusterConfig:
    """n1 and n2, each with a BMC of its own and a plug of apc-a."""
    plugs = {"n1": "1", "n2": "2", **plugs}
    nodes = tuple(
        NodeConfig(id, name, levels=(Level((f"ipmi-{name}",)), Level((Use("apc-a", {"plug": plugs[name]}),))))
        for id, name in ((1, "n1"), (2, "n2"))
    )
    devices = (
        DeviceConfig("apc-a", "fence_apc_snmp", Confirms.OUTLET_OFF, {"ip": "10.0.0.9"}),
        DeviceConfig("ipmi-n1", "fence_ipmilan", Confirms.HOST_OFF, {"ip": "10.0.0.1"}),
        DeviceConfig("ipmi-n2", "fence_ipmilan", Confirms.HOST_OFF, {"ip": "10.0.0.2"}),
    )
    return ClusterConfig("c", nodes=nodes, devices=devices, timing=Timing(fence_test_ms=HOUR_MS))


def test_each_plug_of_each_node_is_a_subject_once() -> None:
    found = [(one.node, one.level, one.use.label) for one in subjects(config())]
    assert found == [(1, 0, "ipmi-n1"), (1, 1, "apc-a[1]"), (2, 0, "ipmi-n2"), (2, 1, "apc-a[2]")]
    assert [one.use.label for one in subjects(config(), "apc-a")] == ["apc-a[1]", "apc-a[2]"]
    assert [one.use.label for one in subjects(config(), "apc-a[2]")] == ["apc-a[2]"]
    assert [one.use.label for one in subjects(config(), "n1")] == ["ipmi-n1", "apc-a[1]"]
    assert subjects(config(), "n9") == []


ON = Answers(Power.ON, "Status: ON")


@pytest.mark.parametrize(
    ("answers", "outcome", "what"),
    [
        (ON, Outcome.PASSED, 'says "on"'),
        (Answers(Power.ON, "", 5, {"1": "n1", "2": "n2"}), Outcome.PASSED,
         'says "on", and calls the plug \'n1\''),
        (Answers(Power.UNKNOWN, "login failed"), Outcome.FAILED, "login failed"),
        (Answers(Power.OFF, "Status: OFF"), Outcome.FAILED,
         'apc-a[1] says "off", but n1 is up: the plug is another\'s, or the device lies'),
        (Answers(Power.ON, "", 5, {"2": "", "3": ""}), Outcome.FAILED,
         "the device has no plug 1; it lists 2, 3"),
        (Answers(Power.ON, "", 5, {"1": "n2 left supply"}), Outcome.FAILED,
         "the device calls plug 1 'n2 left supply', and that is not n1"),
        (Answers(Power.ON, "", 5, {"1": "n22"}), Outcome.PASSED, 'says "on", and calls the plug \'n22\''),
        (Answers(Power.ON, "", 5, {"1": "Outlet 1"}), Outcome.PASSED,
         'says "on", and calls the plug \'Outlet 1\''),
    ],
)  # fmt: skip
def test_what_an_answer_means(answers: Answers, outcome: Outcome, what: str) -> None:
    (subject,) = subjects(config(), "apc-a[1]")
    found = judge(config(), subject, answers, up=(1, 2))
    assert (found.outcome, found.what) == (outcome, what)


def test_off_is_right_for_a_node_that_is_not_up() -> None:
    (subject,) = subjects(config(), "apc-a[1]")
    assert judge(config(), subject, Answers(Power.OFF, ""), up=(2,)).outcome is Outcome.PASSED


def test_one_plug_of_two_nodes_fails_whatever_it_answers() -> None:
    both = config(n2="1")
    for subject in subjects(both, "apc-a"):
        found = judge(both, subject, ON, up=(1, 2))
        assert found.outcome is Outcome.FAILED
        assert "have the same plug: whoever fences one cuts the other" in found.what


def test_one_controller_under_two_names_is_one_target() -> None:
    shared = config()
    devices = [
        DeviceConfig(one.name, one.agent, one.confirms, {"ipaddr": "10.0.0.1"})
        if one.name.startswith("ipmi")
        else one
        for one in shared.devices
    ]
    shared = ClusterConfig("c", nodes=shared.nodes, devices=tuple(devices))
    (subject,) = subjects(shared, "ipmi-n2")
    assert proving.sharers(shared, subject) == ["n1"]


def test_a_storage_device_serves_all() -> None:
    level = (Level(("scsi",)),)
    nodes = (NodeConfig(1, "n1", levels=level), NodeConfig(2, "n2", levels=level))
    device = DeviceConfig("scsi", "fence_scsi", Confirms.STORAGE_CUT, {"devices": "/dev/sda"})
    all_one = ClusterConfig("c", nodes=nodes, devices=(device,))
    assert [proving.sharers(all_one, one) for one in subjects(all_one)] == [[], []]


# -- memory -----------------------------------------------------------------------------


def result(outcome: Outcome, at_ms: int, use: str = "ipmi-n1", what: str = "why") -> UseTest:
    return UseTest(1, use, outcome, what, 5, at_ms)


def test_a_failure_does_not_forget_when_it_last_passed() -> None:
    kept = merged(config(), (), [result(Outcome.PASSED, 100)])
    kept = merged(config(), kept, [result(Outcome.FAILED, 200)])
    assert kept == (Kept(1, "ipmi-n1", 100, "why", 200),)
    assert merged(config(), kept, [result(Outcome.SKIPPED, 300)]) == kept
    assert merged(config(), kept, [result(Outcome.PASSED, 400)]) == (Kept(1, "ipmi-n1", 400, "", 400),)


def test_what_is_not_configured_any_more_is_forgotten() -> None:
    kept = merged(config(), (), [result(Outcome.PASSED, 100, "apc-a[1]")])
    assert merged(config(n1="7"), kept, []) == ()


def test_memory_can_be_told_again() -> None:
    kept = merged(config(), (), [result(Outcome.PASSED, 100), result(Outcome.FAILED, 200)])
    assert merged(config(), (), proving.remembered(kept)) == kept


def test_an_alarm_names_who_could_not_fence_whom() -> None:
    tested = {
        2: (Kept(1, "ipmi-n1", 5 * HOUR_MS, "", 5 * HOUR_MS), Kept(1, "apc-a[1]", 0, "refused", 7 * HOUR_MS))
    }
    now_ms = 7 * HOUR_MS + 1
    assert [one.what for one in proving.alarms(config(), (1, 2), tested, now_ms)] == [
        "n2 has not tested ipmi-n1 of n1 for 2 h; next: ringfence fence test",
        "n2 could not fence n1 by apc-a[1]: refused",
    ]
    assert proving.alarms(config(), (1,), tested, now_ms) == [], "n2 is not there: it is no way to fence"
    assert [one.old for one in proving.alarms(config(), (2,), tested, now_ms - 2)] == [False]
