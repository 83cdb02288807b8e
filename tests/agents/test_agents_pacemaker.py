"""What is read out of Pacemaker's configuration and history, and how looks at its devices are judged."""

from xml.etree.ElementTree import Element, fromstring

import pytest

from ringfence.agents.pacemaker import cib, history
from ringfence.agents.pacemaker.cib import Plug
from ringfence.agents.pacemaker.judge import Look, judge, switched
from ringfence.core.errors import ConfigError
from ringfence.core.evidence import Power

ON, OFF, UNKNOWN = Power.ON, Power.OFF, Power.UNKNOWN


def primitive(agent: str = "fence_apc", more: str = "", **pairs: str) -> Element:
    lines = "".join(f'<nvpair id="i" name="{name}" value="{value}"/>' for name, value in pairs.items())
    return fromstring(
        f'<cib><primitive id="d" class="stonith" type="{agent}"><instance_attributes id="i">{lines}'
        f"</instance_attributes>{more}</primitive></cib>"
    )


@pytest.mark.parametrize(
    ("pairs", "handed"),
    [
        ({"ip": "pdu"}, [{"ip": "pdu", "plug": "n2"}]),
        ({"pcmk_host_map": "n1:1;n2:2"}, [{"plug": "2"}]),
        ({"pcmk_host_map": "n1=1 n2=2"}, [{"plug": "2"}]),
        ({"pcmk_host_map": "n12:1;n2:2,3"}, [{"plug": "2"}, {"plug": "3"}]),
        ({"pcmk_host_map": r"n2:a\;b"}, [{"plug": "a;b"}]),
        ({"pcmk_host_map": "n1:1"}, [{"plug": "n2"}]),
        ({"pcmk_host_map": "n2:2", "pcmk_host_argument": "port"}, [{"port": "2"}]),
        ({"pcmk_host_map": "n2:2", "plug": "7"}, [{"plug": "7"}]),
        ({"pcmk_host_map": "n2:2", "port": "dynamic", "pcmk_delay_base": "5s"}, [{"plug": "2"}]),
        ({"pcmk_host_argument": "none", "ip": "bmc2"}, [{"ip": "bmc2"}]),
    ],
)
def test_each_plug_that_pacemaker_switches_is_looked_at_alone(
    pairs: dict[str, str], handed: list[dict[str, str]]
) -> None:
    assert [plug.parameters for plug in cib.plugs(primitive(**pairs), "d", "n2")] == handed


@pytest.mark.parametrize(
    "unclear",
    [
        primitive("external/sbd"),
        primitive("watchdog"),
        primitive(pcmk_status_action="monitor"),
        primitive(more='<instance_attributes id-ref="other"/>'),
        primitive(more='<instance_attributes id="r"><rule id="x"/></instance_attributes>'),
        primitive(more='<instance_attributes id="r"><nvpair id="x" name="ip"/></instance_attributes>'),
        primitive(
            ip="1",
            more='<instance_attributes id="r"><nvpair id="x" name="ip" value="2"/></instance_attributes>',
        ),
        fromstring("<cib/>"),
    ],
)
def test_what_is_not_understood_for_certain_is_not_looked_at(unclear: Element) -> None:
    with pytest.raises(ConfigError):
        cib.plugs(unclear, "d", "n2")


def test_a_template_has_the_agent_and_what_the_device_leaves_out() -> None:
    found = fromstring(
        '<cib><template id="t" class="stonith" type="fence_apc"><instance_attributes id="i">'
        '<nvpair id="a" name="ip" value="one"/><nvpair id="b" name="ssh" value="1"/></instance_attributes>'
        '</template><primitive id="d" template="t"><instance_attributes id="j">'
        '<nvpair id="c" name="ip" value="two"/></instance_attributes></primitive></cib>'
    )
    assert cib.plugs(found, "d", "n2") == (Plug("d", "fence_apc", {"ip": "two", "ssh": "1", "plug": "n2"}),)


def topology(*levels: str) -> Element:
    return fromstring(f"<cib>{''.join(f'<fencing-level {one}/>' for one in levels)}</cib>")


def test_levels_are_the_targets_own_in_their_order() -> None:
    own = topology(
        'target="n2" index="2" devices="a,b"', 'target="n2" index="1" devices="bmc"',
        'target="n1" index="1" devices="x"',
    )  # fmt: skip
    assert cib.levels(own, "n2", ["bmc", "a", "b"]) == (("bmc",), ("a", "b"))
    assert cib.levels(topology('target-pattern="^n[23]$" index="1" devices="p"'), "n2", []) == (("p",),)
    assert cib.levels(topology(), "n2", ["a", "b"]) == (("a",), ("b",))
    with pytest.raises(ConfigError, match="by attributes"):
        cib.levels(topology('target-attribute="rack" target-value="1" index="1" devices="p"'), "n2", ["p"])


def looks(*said: tuple[str, str, Power]) -> dict[str, list[Look]]:
    found: dict[str, list[Look]] = {}
    for device, agent, power in said:
        found.setdefault(device, []).append(Look(Plug(device, agent, {}), power))
    return found


BMC, PDU, SAN, HYPERVISOR = "fence_ipmilan", "fence_apc", "fence_scsi", "fence_virsh"


@pytest.mark.parametrize(
    ("levels", "said", "verdict"),
    [
        ([["bmc"]], [("bmc", BMC, OFF)], OFF),
        ([["bmc"]], [("bmc", BMC, ON)], ON),
        ([["bmc"]], [("bmc", BMC, UNKNOWN)], UNKNOWN),
        ([["bmc"]], [], UNKNOWN),
        ([], [], UNKNOWN),
        ([["a", "b"]], [("a", PDU, OFF), ("b", PDU, OFF)], OFF),
        ([["a", "b"]], [("a", PDU, OFF), ("b", PDU, ON)], UNKNOWN),
        ([["a", "b"]], [("a", PDU, OFF)], UNKNOWN),  # the other could not be asked
        ([["a"]], [("a", PDU, OFF), ("a", PDU, ON)], UNKNOWN),  # two plugs of one device
        ([["a"]], [("a", PDU, ON)], ON),
        ([["bmc"], ["a"]], [("bmc", BMC, UNKNOWN), ("a", PDU, OFF)], OFF),
        ([["bmc"], ["a"]], [("bmc", BMC, ON), ("a", PDU, OFF)], ON),  # the controller refutes the outlet
        ([["bmc"], ["a"]], [("bmc", BMC, OFF), ("a", PDU, ON)], OFF),  # an outlet that is on refutes nothing
        ([["a"]], [("bmc", BMC, OFF), ("a", PDU, OFF)], UNKNOWN),  # answers from behind outlets that are off
        ([["a"]], [("vm", HYPERVISOR, OFF), ("a", PDU, OFF)], OFF),  # ... but from a supply of its own
        ([["san"]], [("san", SAN, OFF)], UNKNOWN),
        ([["san", "bmc"]], [("san", SAN, OFF), ("bmc", BMC, OFF)], OFF),
        ([["sbd"]], [("sbd", "fence_sbd", OFF)], UNKNOWN),
        ([["own"]], [("own", "fence_made_here", OFF)], UNKNOWN),
    ],
)
def test_only_a_whole_level_of_power_that_nothing_refutes_is_off(
    levels: list[list[str]], said: list[tuple[str, str, Power]], verdict: Power
) -> None:
    assert judge(levels, looks(*said))[0] is verdict


@pytest.mark.parametrize(
    ("levels", "before", "after", "what"),
    [
        ([["bmc"]], [("bmc", BMC, ON)], [("bmc", BMC, OFF)], "bmc"),
        ([["bmc"]], [("bmc", BMC, OFF)], [("bmc", BMC, OFF)], ""),  # nothing was sent
        ([["bmc"]], [("bmc", BMC, UNKNOWN)], [("bmc", BMC, OFF)], ""),
        ([["bmc"]], [("bmc", BMC, ON)], [("bmc", BMC, ON)], ""),
        ([["bmc"]], [("bmc", BMC, ON)], [("bmc", BMC, UNKNOWN)], ""),
        ([["bmc"], ["a"]], [("bmc", BMC, OFF), ("a", PDU, ON)], [("a", PDU, OFF)], "a"),
        ([["bmc"], ["a", "b"]], [("a", PDU, ON), ("b", PDU, ON)], [("a", PDU, OFF)], ""),
        ([["a", "b"]], [("a", PDU, ON), ("b", PDU, OFF)], [("a", PDU, OFF)], ""),
        ([["a", "b"]], [("a", PDU, ON)], [("a", PDU, OFF)], ""),  # the other could not be asked
        ([["bmc", "a"]], [("bmc", BMC, ON), ("a", PDU, OFF)], [("bmc", BMC, OFF)], "bmc"),
        ([["bmc", "a"]], [("bmc", BMC, OFF), ("a", PDU, ON)], [("a", PDU, OFF)], ""),
    ],
)
def test_only_what_was_seen_on_before_was_switched(
    levels: list[list[str]],
    before: list[tuple[str, str, Power]],
    after: list[tuple[str, str, Power]],
    what: str,
) -> None:
    assert switched(levels, looks(*before), looks(*after)) == what


def recorded(*events: str) -> Element:
    return fromstring(f"<pacemaker-result><list>{''.join(events)}</list></pacemaker-result>")


def event(client: str, status: str, delegate: str = "", action: str = "off", target: str = "n2") -> str:
    return (
        f'<fence_event action="{action}" target="{target}" client="{client}" origin="n1" status="{status}" '
        f'delegate="{delegate}"/>'
    )


MINE = "stonith_admin.7"


@pytest.mark.parametrize(
    ("events", "doubt"),
    [
        ([event(MINE, "success", "n1")], ""),
        ([event(MINE, "success", "n1"), event("stonith_admin.8", "success", "a human")], ""),
        ([event(MINE, "success", "a human")], "a person confirmed it to Pacemaker"),
        (
            [event(MINE, "pending"), event("stonith_admin.8", "success", "a human")],
            "a person confirmed it to Pacemaker, whose own attempt is pending",
        ),
        ([event(MINE, "failed", "n1")], "Pacemaker said done, and has it on record as failed"),
        ([event("stonith_admin.8", "success", "n1")], "Pacemaker said done, and has no record of it"),
        ([event(MINE, "success", "n1", "reboot")], "Pacemaker said done, and has no record of it"),
        ([event(MINE, "success", "n1", target="n1")], "Pacemaker said done, and has no record of it"),
    ],
)
def test_done_is_a_claim_only_if_a_device_did_it_for_this_request(events: list[str], doubt: str) -> None:
    assert history.doubt(history.events(recorded(*events), "n2"), MINE) == doubt


@pytest.mark.parametrize(
    ("events", "fenced"),
    [
        ([event("x", "success", "n1")], True),
        ([event("x", "failed", "n1"), event("x", "success", "n1")], True),
        ([event("x", "success", "a human"), event("x", "success", "n1")], False),
        ([event("x", "success", "n1", "on"), event("x", "success", "n1")], False),
        ([event("x", "success", "n1", "reboot")], False),
        ([event("x", "pending")], False),
        ([], False),
    ],
)
def test_a_host_is_switched_on_only_if_pacemaker_had_it_off(events: list[str], fenced: bool) -> None:
    assert history.fenced(history.events(recorded(*events), "n2")) is fenced
