"""What agents say of themselves, read without trust; and the table of what they must not be told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config.agents.cautions import (
    CAUTIONS,
    Cure,
    cautions_of,
    is_listed,
    plug_must_be_listed,
    prepared,
)
from ringfence.config.agents.check import check_agents
from ringfence.config.agents.metadata import MOST_BYTES, Action, Kind, Parameter, parse_metadata
from ringfence.config.agents.stock import NO_PROOF, STOCK
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level, NodeConfig, Use
from ringfence.core.errors import BadInput, RingfenceError

SMALL = b"""Complaint: some module is missing
<?xml version="1.0" ?>
<resource-agent name="fence_small" shortdesc="Fence agent for small things" >
<longdesc>Long \x7f
  words.</longdesc>
<parameters>
  <parameter name="action" required="1"><content type="string" default="reboot"/></parameter>
  <parameter name="port" required="1" deprecated="1"><content type="string"/></parameter>
  <parameter name="plug" required="1" obsoletes="port">
    <content type="string"/><shortdesc lang="en">Which
      plug</shortdesc></parameter>
  <parameter name="redfish-uri" deprecated="1"><content type="string" default="/v1"/></parameter>
  <parameter name="redfish_uri" obsoletes="redfish-uri"><content type="string" default="/v1"/></parameter>
  <parameter name="auth"><content type="select" default="md5"><option value="md5"/><option value="none"/>
    </content></parameter>
  <parameter name="delay"><content type="second" default="0"/></parameter>
  <parameter name="lone" deprecated="1"><content type="curious"/></parameter>
</parameters>
<actions><action name="on" automatic="1" on_target="1"/><action name="off"/></actions>
</resource-agent>"""


def test_old_names_are_folded_into_the_new() -> None:
    found = parse_metadata(SMALL)
    assert (found.name, found.short) == ("fence_small", "Fence agent for small things")
    assert found.long == "Long words."
    assert found.parameters == (
        Parameter("action", Kind.STRING, "reboot", required=True),
        Parameter("plug", Kind.STRING, None, required=True, words="Which plug", old_names=("port",)),
        Parameter("redfish_uri", Kind.STRING, "/v1"),
        Parameter("auth", Kind.SELECT, "md5", options=("md5", "none")),
        Parameter("delay", Kind.SECOND, "0"),
        Parameter("lone"),
    )
    assert found.actions == (Action("on", automatic=True, on_target=True), Action("off"))
    assert found.unfences_itself
    for name in ("plug", "port", "redfish-uri", "redfish_uri"):
        assert found.parameter(name) is not None
    assert found.parameter("plugs") is None


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(10))
AGENT = '<resource-agent name="x"><actions><action name="off"/></actions>{}</resource-agent>'
WRONG = {
    "nothing": (b"", "no metadata"),
    "noise": (b"\xff\x00" * 4000, "no metadata"),
    "a usage": (b"usage: fence_x <nodename>", "no metadata"),
    "cut": (SMALL[:-30], "its metadata"),
    "too much": (SMALL + b" " * MOST_BYTES, "more than 1 MiB"),
    "entities": (f'<!DOCTYPE x [{LAUGHS}]><resource-agent name="&l9;"/>'.encode(), "declares"),
    "a file's": (b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/shadow">]><resource-agent/>', "declares"),
    "another root": (b'<?xml version="1.0"?><manpage/>', "a <manpage>, not a <resource-agent>"),
    "no actions": (b'<resource-agent name="x"/>', "names no action"),
    "no name": (b"<resource-agent/>", "names no action"),
    "deep": (AGENT.format("<a>" * 99 + "</a>" * 99).encode(), "nested"),
    "a line for a name": (AGENT.format('<parameters><parameter name="a b"/></parameters>').encode(), "'a b'"),
    "an encoding": (b'<?xml version="1.0" encoding="made-up"?>' + AGENT.format("").encode(), "its metadata"),
    "many": (
        AGENT.format("<parameters>" + '<parameter name="a"/>' * 1001 + "</parameters>").encode(),
        "more than 1000 parameters",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_metadata_is_one_line(case: str) -> None:
    data, expected = WRONG[case]
    with pytest.raises(BadInput) as caught:
        parse_metadata(data)
    assert expected in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_document_type_that_is_only_named_is_no_harm() -> None:
    named = '<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">' + AGENT.format("")
    assert parse_metadata(named.encode()).can("off")


@given(st.one_of(st.binary(max_size=200), st.integers(0, len(SMALL)).map(lambda cut: SMALL[:cut] + b"<")))
def test_whatever_is_printed_is_metadata_or_one_line(data: bytes) -> None:
    said = ""
    try:
        parse_metadata(data)
    except RingfenceError as error:
        said = str(error)
    assert said.isprintable()


# -- the table ------------------------------------------------------------------


def test_every_row_has_a_reason_and_agents_that_there_are() -> None:
    for one in CAUTIONS:
        assert one.why
        assert not one.why.endswith(".")
        unknown = [name for name in one.agents if name not in STOCK and name not in NO_PROOF]
        assert set(unknown) <= {"fence_docker", "fence_gce", "fence_ifmib"}
        assert one.value or one.cure in (Cure.LEFT_OUT, Cure.REFUSED, Cure.CHECKED)


@given(
    st.sampled_from([*STOCK, "fence_own"]),
    st.dictionaries(
        st.sampled_from(
            ["ip", "port", "plug", "method", "cipher", "lanplus", "verbose", "debug", "systems-uri"]
        ),
        st.sampled_from(["", "0", "1", "onoff", "cycle", "5", "5,6", "/a"]),
    ),
)
def test_what_was_prepared_needs_nothing_more(agent: str, parameters: dict[str, str]) -> None:
    try:
        told = prepared(agent, parameters)
    except RingfenceError:
        return
    assert prepared(agent, told) == told
    assert {key: value for key, value in told.items() if key in parameters} == {
        key: value for key, value in parameters.items() if key not in ("verbose", "debug")
    }, "what a person gave is handed on as it is, or left out"
    assert "," not in told.get("plug", "") + told.get("port", "")


@pytest.mark.parametrize(
    ("agent", "parameters", "must"),
    [
        ("fence_apc_snmp", {}, False),
        ("fence_apc_snmp", {"snmp_version": "1"}, False),
        ("fence_apc_snmp", {"snmp_version": "2c"}, True),
        ("/opt/agents/fence_apc_snmp", {"snmp-version": "3"}, True),
        ("fence_ipdu", {}, True),
        ("fence_emerson", {}, True),
        ("fence_eaton_snmp", {"snmp_version": "3"}, False),
        ("fence_ipmilan", {}, False),
    ],
)
def test_whose_off_may_mean_a_plug_that_is_not_there(
    agent: str, parameters: dict[str, str], must: bool
) -> None:
    assert plug_must_be_listed(agent, parameters) is must


@pytest.mark.parametrize(
    ("parameters", "listed"),
    [
        ({"plug": "5"}, True),
        ({"port": "5"}, True),
        ({"plug": "Web Server"}, True),
        ({"plug": "web server"}, True),
        ({"plug": "42"}, False),
        ({"plug": "4"}, False),
        ({"plug": "1"}, False),
        ({}, False),
        ({"plug": "3", "switch": "2"}, True),
        ({"plug": "3"}, False),
        ({"plug": "5", "separator": ";"}, False),
    ],
)
def test_what_stands_in_a_list(parameters: dict[str, str], listed: bool) -> None:
    assert is_listed(parameters, "5,Web Server\n42x,spare\n2:3,other\n") is listed


def test_describe_shows_only_what_is_about_the_agent() -> None:
    assert "lanplus" in [one.key for one in cautions_of("fence_idrac")]
    assert "lanplus" not in [one.key for one in cautions_of("fence_ilo5")]


# -- what is said of devices ------------------------------------------------------

SMALL_AGENT = parse_metadata(SMALL)
WORDS = st.dictionaries(
    st.sampled_from(["plug", "port", "auth", "delay", "lone", "redfish-uri", "password", "odd", "method"]),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
)


@given(WORDS, WORDS, st.one_of(st.none(), WORDS), st.sampled_from(["fence_small", "fence_apc_snmp"]))
def test_whatever_is_configured_is_told_in_lines(
    device: dict[str, str], plug: dict[str, str], secrets: dict[str, str] | None, agent: str
) -> None:
    cluster = ClusterConfig(
        "c",
        nodes=(NodeConfig(1, "n1", levels=(Level((Use("d", plug),)),)),),
        devices=(DeviceConfig("d", agent, Confirms.OUTLET_OFF, device),),
    )
    for one in check_agents(cluster, lambda agent: SMALL_AGENT, lambda name: secrets):
        assert one.device == "d"
        assert one.what
        assert not one.wrong or one.next, one


def test_a_secret_is_named_and_not_quoted() -> None:
    cluster = ClusterConfig("c", devices=(DeviceConfig("d", "fence_small", Confirms.HOST_OFF),))
    secrets = {"auth": "geheim", "delay": "geheim", "pasword": "geheim"}
    said = [one.line for one in check_agents(cluster, lambda agent: SMALL_AGENT, lambda name: secrets)]
    assert len(said) >= 3
    assert not [line for line in said if "geheim" in line]


def test_what_is_remarked_of_a_device_is_said_once_and_not_of_each_plug() -> None:
    plugs = [Use("pdu", {"port": str(number)}) for number in (1, 2, 3)]
    cluster = ClusterConfig(
        "c",
        nodes=tuple(
            NodeConfig(number, f"n{number}", levels=(Level((use,)),)) for number, use in enumerate(plugs, 1)
        ),
        devices=(
            DeviceConfig("pdu", "fence_apc_snmp", Confirms.OUTLET_OFF, {"snmp_version": "2c", "odd": "1"}),
        ),
    )
    said = check_agents(cluster, lambda agent: SMALL_AGENT, lambda name: None)
    notes = [one.label for one in said if not one.wrong and "reads as off" in one.what]
    assert notes == ["pdu"]
    wrong = [one.label for one in said if one.wrong and "no parameter odd" in one.what]
    assert wrong == [use.label for use in plugs], "what must be mended is said of each"
