"""What set-up is told -> a plan: whatever is typed or read, a good plan or one line with a cure."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import check_cluster, differences, parse, parse_corosync
from ringfence.config.agents.stock import NO_PROOF, STOCK, Sort
from ringfence.config.imports import carry_over
from ringfence.config.setup import Plan, files_of, levels_of, nodes_of, plan_of, timing_for
from ringfence.core.cluster import ClusterConfig, Confirms
from ringfence.core.errors import RingfenceError

SAMPLES = Path(__file__).parents[1] / "cli/samples"
KEY = bytes(range(256))

ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.from_regex(r"[a-z0-9.-]{1,12}", fullmatch=True),
    st.text(max_size=6),
)
NODES = st.lists(
    st.builds(
        lambda name, addresses: f"{name}={','.join(addresses)}",
        st.from_regex(r"n[1-4a]", fullmatch=True),
        st.lists(ADDRESSES, min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=4,
)
PAIRS = st.lists(
    st.sampled_from(
        ["ip=10.9.0.1", "ip=10.9.0.2", "plug=1", "plug=2", "username=a b", "x", "passwd=p", "delay=3"]
    ),
    max_size=4,
)
FENCES = st.lists(
    st.builds(
        lambda node, level, agent, pairs: f"{node}{level}={','.join([agent, *pairs])}",
        st.sampled_from(["n1", "n2", "n9"]),
        st.sampled_from(["", ":1", ":2", ":x"]),
        st.sampled_from(
            ["fence_ipmilan", "fence_apc_snmp", "fence_scsi", "fence_own", "fence_own,confirms=host-off"]
        ),
        PAIRS,
    ),
    max_size=5,
)


def holds(plan: Plan) -> None:
    """What must be true of every plan: both files good and agreed, secrets in closed files alone."""
    files = {file.path: file for file in files_of(plan, KEY, "out")}
    check_cluster(plan.config, lab=False)
    for node in plan.config.nodes:
        cluster = parse(files[f"{node.name}/ringfence.toml"].data.decode()).cluster
        assert cluster == plan.config
        assert differences(cluster, parse_corosync(files[f"{node.name}/corosync.conf"].data.decode())) == []
        assert files[f"{node.name}/authkey"].mode == 0o600
    hidden = [value for secret in plan.secrets for value in secret.values.values() if len(value) > 3]
    for file in files.values():
        assert file.mode in (0o600, 0o644)
        if file.mode == 0o644:
            assert not any(value in file.data.decode() for value in hidden)


def without_plug(parameters: dict[str, str]) -> list[tuple[str, str]]:
    return sorted((key, value) for key, value in parameters.items() if key != "plug")


@given(NODES, FENCES)
def test_whatever_is_typed_is_a_good_plan_or_one_line(nodes: list[str], fences: list[str]) -> None:
    try:
        found = nodes_of(nodes)
        config = ClusterConfig("a", ring="corosync", two_node=len(found) == 2, nodes=found)
        plan = plan_of(config, levels_of(fences, [node.name for node in found]))
    except RingfenceError as error:
        refused = str(error)
        assert "\n" not in refused
        return
    holds(plan)
    uses = [use for node in plan.config.nodes for level in node.levels for use in level.uses]
    assert len(uses) == len(fences), "every word became a use"
    assert sorted({use.device for use in uses}) == [device.name for device in plan.config.devices]
    switches: dict[str, set[str]] = {}
    for use in uses:
        device = plan.config.device(use.device)
        given = device.parameters | use.parameters
        if device.agent in ("fence_apc_snmp", "fence_own") and "plug" in given:
            switch = str((device.agent, device.confirms, without_plug(given)))
            switches.setdefault(switch, set()).add(device.name)
    assert all(len(names) == 1 for names in switches.values()), "what differs in the plug alone is one device"


@given(st.lists(st.sampled_from(range(1, 5)), min_size=1, max_size=8))
def test_levels_are_what_was_numbered(numbers: list[int]) -> None:
    words = [f"n1:{number}=fence_apc,ip=10.0.0.9,plug={plug}" for plug, number in enumerate(numbers)]
    try:
        levels = levels_of(words, ["n1"])["n1"]
    except RingfenceError:
        assert any(number > len(set(numbers[:at])) + 1 for at, number in enumerate(numbers))
        return
    for number, level in enumerate(levels, 1):
        plugs = [str(plug) for plug, one in enumerate(numbers) if one == number]
        assert [use.parameters["plug"] for use in level] == plugs


@given(st.integers(150, 60_000))
def test_times_fit_every_token_that_corosync_takes(token_ms: int) -> None:
    timing = timing_for(token_ms)
    nodes = nodes_of(["n1=10.0.0.1"])
    check_cluster(ClusterConfig("a", nodes=nodes, timing=timing), lab=False)


def test_the_usual_token_has_the_usual_times() -> None:
    assert timing_for(1000) == type(timing_for(1000))()


# -- agents ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "confirms", "secrets"),
    [
        ("fence_ipmilan", Confirms.HOST_OFF, ("password",)),
        ("fence_ilo4", Confirms.HOST_OFF, ("password",)),
        ("fence_idrac", Confirms.HOST_OFF, ("password",)),
        ("fence_rsa", Confirms.HOST_OFF, ("password",)),
        ("fence_virsh", Confirms.HOST_OFF, ("password",)),
        ("fence_apc", Confirms.OUTLET_OFF, ("password",)),
        ("fence_apc_snmp", Confirms.OUTLET_OFF, ("community",)),
        ("fence_eaton_snmp", Confirms.OUTLET_OFF, ("community",)),
        ("fence_scsi", Confirms.STORAGE_CUT, ()),
    ],
)
def test_what_stock_agents_prove(agent: str, confirms: Confirms, secrets: tuple[str, ...]) -> None:
    assert (STOCK[agent].confirms, STOCK[agent].secrets) == (confirms, secrets)


def test_no_agent_both_proves_and_does_not() -> None:
    assert not STOCK.keys() & NO_PROOF.keys()
    assert {agent.sort for agent in STOCK.values()} == set(Sort)


@pytest.mark.parametrize(
    "agent", ["apc", "apc_snmp", "eaton_snmp", "ibmblade", "ipmilan", "lindypdu", "scsi", "virsh"]
)
def test_the_agents_themselves_know_these_parameters(agent: str) -> None:
    words = [f"/usr/sbin/fence_{agent}", "-o", "metadata"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    names = re.findall(r'<parameter name="([^"]+)"', told)
    stock = STOCK[f"fence_{agent}"]
    assert {*stock.needs, *stock.secrets} <= set(names)
    if not stock.secrets:
        assert "password" not in names


# -- imports ------------------------------------------------------------------------

FILES = sorted(SAMPLES.iterdir())


def carried(files: dict[str, bytes]) -> None:
    try:
        config, levels, notes = carry_over(files, {"fence_delay": Confirms.HOST_OFF})
        plan = plan_of(config, levels, imported=True)
    except RingfenceError as error:
        refused = str(error)
        assert "\n" not in refused
        return
    holds(plan)
    assert all("\n" not in note for note in notes)


@given(st.sampled_from(FILES), st.binary(max_size=300))
def test_noise_is_one_line(file: Path, noise: bytes) -> None:
    carried({"a": noise})
    carried({"a": file.read_bytes()[:20] + noise})


@given(st.sampled_from(FILES), st.data())
def test_files_with_a_line_missing_or_twice_or_spoilt(file: Path, data: st.DataObject) -> None:
    lines = file.read_bytes().split(b"\n")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        how = data.draw(st.sampled_from(["without", "twice", "spoilt"]))
        if how == "without" and len(lines) > 1:
            del lines[at]
        elif how == "twice":
            lines.insert(at, lines[at])
        elif lines[at]:
            cut = data.draw(st.integers(0, len(lines[at]) - 1))
            lines[at] = lines[at][:cut] + data.draw(st.binary(max_size=2)) + lines[at][cut + 1 :]
    files = {"f": b"\n".join(lines)}
    if file.name == "dlm.conf":
        files["c"] = (SAMPLES / "corosync.conf").read_bytes()
    carried(files)
