"""Simulated fence devices, each asked by its real agent: they switch what is true, and lie as they are told.

Agents mostly sleep, so every test is done with all kinds of devices side by side."""

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import MappingProxyType

import pytest
from lab_watch import eventually

from ringfence.agents.find import find_agent
from ringfence.core.errors import BadInput, Unavailable
from ringfence.lab import trees
from ringfence.lab.devices import kind as room
from ringfence.lab.devices.bench import PASSWORD, Bench
from ringfence.lab.devices.kinds import KINDS, chosen_kinds
from ringfence.lab.lies import Lie

SOON = {"power_timeout": "2"}
PATIENT = {"login_timeout": "50", "shell_timeout": "50", "power_timeout": "50"}
"""A simulator in Python may take longer than the agent's own 3 to 5 s, where others want the CPU, too."""
HOSTS = tuple(f"n{number}" for number in range(1, 9))
NONE: Mapping[str, str] = MappingProxyType({})
Benches = dict[str, Bench]
FEW = ("pyghmi", "redfish", "apc-menu")
"""Kinds that do without a host for each lie: the power switch is the same for all, and it lies."""
IPMI_WORDS = ("-I", "lanplus", "-C", "3", "-U", "admin", "-f", "/dev/stdin", "-H", "127.0.0.1")


@pytest.fixture(scope="module")
def benches() -> Iterator[Benches]:
    """One for each kind."""
    directory = Path(tempfile.mkdtemp(prefix="rfbench", dir="/tmp"))
    made = {name: Bench(directory / name, [name], HOSTS[:4] if name in FEW else HOSTS) for name in KINDS}
    try:
        with ThreadPoolExecutor() as pool:
            for up in [pool.submit(bench.__enter__) for bench in made.values()]:
                up.result()
        yield made
    finally:
        with ThreadPoolExecutor() as pool:
            for bench in made.values():
                pool.submit(bench.__exit__)
        shutil.rmtree(directory, ignore_errors=True)


def everywhere(benches: Benches, check: Callable[[Bench], None], *names: str) -> None:
    """The check on the benches of all kinds, or of these, side by side.

    Before it hosts run, and nobody lies.  Of two PDUs the second is off: the first feeds all hosts alone."""

    def one(bench: Bench) -> None:
        for host in bench.hosts:
            for device in ("bmc", "pdu"):
                bench.lie(host, device, "none")
            bench.switch(host, "on")
            if device_of(bench) != "bmc":
                order(bench, host, "pdu-b", "off")
        check(bench)

    with ThreadPoolExecutor() as pool:
        done = {name: pool.submit(one, benches[name]) for name in names or benches}
    failed = {name: error for name, future in done.items() if (error := future.exception()) is not None}
    assert not failed, failed


def device_of(bench: Bench) -> str:
    """What alone feeds a host of this bench, by the name that `lie` takes."""
    return "pdu-a" if "pdu-a" in bench.devices else "bmc"


def order(bench: Bench, host: str, device: str, action: str) -> None:
    """By hand."""
    bench.power.asked({"order": "device", "node": host, "device": device, "action": action})


def ask(
    bench: Bench, host: str, action: str, device: str = "", limit_s: float = 40, **more: str
) -> tuple[int | None, str]:
    """A run of the real agent, as the daemon's runner would have it: its exit code (None: it had to be ended)
    and its words."""
    device = device or device_of(bench)
    name = device if device in bench.devices else f"bmc-{host}"
    config = bench.config(name)
    keys = {**config.parameters, **bench.secrets(name)}
    if device != "bmc":
        keys["plug"] = bench.devices[name].plug_of(host)
    keys |= {**more, "action": action}
    try:
        done = subprocess.run(
            [find_agent(config.agent)], input="".join(f"{key}={value}\n" for key, value in keys.items()),
            text=True, capture_output=True, timeout=limit_s, check=False, env={"PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def side_by_side(
    bench: Bench, hosts: Sequence[str], action: str, limit_s: float = 40, impatient: Collection[str] = ()
) -> dict[str, tuple[int | None, str]]:
    """Host -> what the agent says.  A PDU over telnet has one session at a time.

    Args:
        impatient: hosts whose agent is to give up soon."""

    def one(host: str) -> tuple[int | None, str]:
        return ask(bench, host, action, limit_s=limit_s, **(SOON if host in impatient else {}))

    telnet = next(iter(bench.devices.values())).kind == "apc"
    with ThreadPoolExecutor(1 if telnet else 4) as pool:
        return dict(zip(hosts, pool.map(one, hosts), strict=True))


def codes(said: dict[str, tuple[int | None, str]]) -> dict[str, int | None]:
    return {host: code for host, (code, words) in said.items()}


# -- what is true ------------------------------------------------------------------------------


def test_agents_switch_a_host_and_see_it(benches: Benches) -> None:
    def check(bench: Bench) -> None:
        found = bench.process("n1")
        assert found is not None
        eventually(lambda: len(trees.tree(found)) == 2)
        before = trees.tree(found)
        said = partial(ask, bench, "n1", limit_s=60, **PATIENT)
        assert said("status") == (0, "Status: ON\n")
        assert said("off") == (0, "Success: Powered OFF\n")
        assert not any(trees.alive(one) for one in before), "all of it is gone when the agent says so"
        assert said("status") == (2, "Status: OFF\n")
        assert all(bench.runs(host) for host in bench.hosts[1:])
        assert said("on") == (0, "Success: Powered ON\n")
        assert bench.runs("n1")
        boots = bench.host("n1")["boots"]
        assert said("reboot") == (0, "Success: Rebooted\n")
        assert bench.runs("n1")
        assert bench.host("n1")["boots"] == boots + 1

    everywhere(benches, check)


def test_a_wrong_password_switches_nothing_and_tells_nothing(benches: Benches) -> None:
    def check(bench: Bench) -> None:
        wrong = dict.fromkeys(bench.secrets(next(iter(bench.devices))), "not-the-password")
        orders = bench.orders
        for action in ("status", "off"):
            assert ask(bench, "n3", action, **wrong)[0] not in (0, 2)
        assert bench.runs("n3")
        assert bench.orders == orders

    everywhere(benches, check)


def test_a_controller_lives_from_the_outlets_of_its_host(benches: Benches) -> None:
    def check(bench: Bench) -> None:
        for pdu in ("pdu-a", "pdu-b"):
            assert bench.conditions()["bmc-n1"] == "answers"
            order(bench, "n1", pdu, "off")
        assert bench.conditions()["bmc-n1"] == "silent"
        assert ask(bench, "n1", "status", limit_s=8, **SOON)[0] not in (0, 2)
        order(bench, "n1", "pdu-b", "on")
        assert ask(bench, "n1", "status")[0] == 0
        assert bench.runs("n1"), "it comes up with its power"

    everywhere(benches, check, "ipmi", "pyghmi", "redfish")


def test_supplies_are_sensors_of_the_controller_wherever_their_cables_hang(benches: Benches) -> None:
    bench = benches["ipmi"]
    port = bench.config("bmc-n1").parameters["ipport"]

    def ipmitool(*words: str) -> str:
        return subprocess.run(
            ["ipmitool", *IPMI_WORDS, "-p", port, *words],
            input=PASSWORD, text=True, capture_output=True, timeout=60, check=True,
        ).stdout  # fmt: skip

    def lost() -> list[str]:
        rows = ipmitool("sdr", "type", "Power Supply").splitlines()
        assert len(rows) == 2, rows
        assert all("Presence detected" in row for row in rows)
        return [row.split()[0] for row in rows if "AC lost" in row]

    def check(bench: Bench) -> None:
        eventually(lambda: lost() == [])  # the host may have been switched on just now
        order(bench, "n1", "pdu-b", "off")
        eventually(lambda: lost() == ["PSU2"])
        assert "Power Supply AC lost | Asserted" in ipmitool("sel", "list")
        order(bench, "n1", "pdu-b", "on")
        bench.plug("n1", "psu1", "pdu-a", "n2")
        eventually(lambda: lost() == [])
        order(bench, "n1", "pdu-a", "off")
        assert bench.host("n1")["supplies"] == {"psu1": "ok", "psu2": "ok"}
        order(bench, "n2", "pdu-a", "off")
        eventually(lambda: lost() == ["PSU1"])
        bench.plug("n1", "psu1", "pdu-a", "n1")
        with pytest.raises(BadInput, match="psu1, psu2"):
            bench.plug("n1", "psu3", "pdu-a", "n1")
        with pytest.raises(BadInput, match="no host elsewhere"):
            bench.plug("n1", "psu1", "pdu-a", "elsewhere")

    everywhere(benches, check, "ipmi")


def test_snmp_of_all_versions(benches: Benches) -> None:
    def check(bench: Bench) -> None:
        old = {"community": PASSWORD}
        for words in ({"snmp_version": "1", **old}, {"snmp_version": "2c", **old}, {"snmp_version": "3"}):
            assert ask(bench, "n1", "status", **words)[0] == 0, words
            code, listed = ask(bench, "n1", "list", **words)
            assert code == 0
            assert "8,n8" in listed
        assert ask(bench, "n1", "status", plug="n8")[0] == 0, "an outlet goes by its name, too"
        # What the devices of the field do: by 2c an outlet that is not there reads as off to the agent.
        assert ask(bench, "n1", "status", snmp_version="1", plug="42", **old)[0] == 1
        assert ask(bench, "n1", "status", snmp_version="2c", plug="42", **old)[0] == 2

    everywhere(benches, check, "apc-snmp")


def test_a_pdu_over_telnet_has_one_session(benches: Benches) -> None:
    def check(bench: Bench) -> None:
        one = bench.devices["pdu-a"]
        with socket.create_connection((one.address, one.port)) as held:
            assert held.recv(64)
            assert ask(bench, "n1", "off", limit_s=12, **SOON)[0] not in (0, 2)
            assert bench.runs("n1")
        eventually(lambda: ask(bench, "n1", "status")[0] == 0)

    everywhere(benches, check, "apc")


# -- what is told ------------------------------------------------------------------------------


def test_devices_lie_as_they_are_told_to(benches: Benches) -> None:
    """Each lie on a host of its own."""
    lies = {
        "n1": Lie.ACK_IGNORE, "n2": Lie.SAY_OFF, "n3": Lie.PERFECT, "n4": Lie.ECHO, "n5": Lie.LATE,
        "n6": Lie.WRONG_HOST, "n8": Lie.LAG,
    }  # fmt: skip

    def check(bench: Bench) -> None:
        device = device_of(bench)
        for host, lie in lies.items():
            bench.lie(host, device, lie.value, 1.5)
        before = len(bench.orders)
        told = side_by_side(bench, list(lies), "off", impatient=("n1",))
        expected = {"n1": 1} | dict.fromkeys(("n2", "n3", "n4", "n5", "n6", "n8"), 0)
        assert codes(told) == expected, told
        ordered = {host for host, _, _ in bench.orders[before:]}
        assert ordered == set(lies) - {"n2"}, '"already off": that agent has ordered nothing'
        # Late, another than was meant, and the one whose status lagged.
        eventually(lambda: [host for host in HOSTS if not bench.runs(host)] == ["n5", "n7", "n8"])
        looks = side_by_side(bench, HOSTS[:4], "status")
        assert codes(looks) == {"n1": 0, "n2": 2, "n3": 2, "n4": 0}, looks

    everywhere(benches, check, "ipmi", "apc-snmp", "apc")


def test_devices_that_are_out_of_reach_say_nothing(benches: Benches) -> None:
    modes = ("hang", "unreachable", "no-login", "garbage")

    def check(bench: Bench) -> None:
        if device_of(bench) == "bmc":
            for host, mode in zip(HOSTS, modes, strict=False):
                bench.lie(host, "bmc", mode)
            told = side_by_side(bench, HOSTS[: len(modes)], "off", 8, impatient=HOSTS)
            assert not set(codes(told).values()) & {0, 2}, told
        else:
            for mode in modes:  # the device is the same for all hosts
                bench.lie("n1", "pdu-a", mode)
                assert ask(bench, "n4", "off", limit_s=3, **SOON)[0] not in (0, 2), mode
        assert all(bench.runs(host) for host in bench.hosts)
        bench.lie("n1", device_of(bench), "none")
        assert ask(bench, "n1", "status")[0] == 0, "and answers again"

    everywhere(benches, check, "ipmi", "redfish", "apc-snmp", "apc")


def test_a_pending_order_reads_as_off_on_the_old_menu(benches: Benches) -> None:
    def check(bench: Bench) -> None:
        bench.lie("n1", "pdu-a", "pending", 60)
        assert ask(bench, "n1", "off")[0] == 0
        assert bench.runs("n1"), "the agent says off of a host that runs"

    everywhere(benches, check, "apc-menu")


# -- what is wanted ----------------------------------------------------------------------------


def test_kinds_are_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen_kinds("apc-snmp, ipmi") == ("ipmi", "apc-snmp")
    assert chosen_kinds("") == ()
    with pytest.raises(BadInput, match="no kind of device"):
        chosen_kinds("toaster")
    with pytest.raises(BadInput, match="one BMC"):
        chosen_kinds("ipmi,redfish")
    monkeypatch.setattr(room, "find_program", lambda name: None if name == "ipmi_sim" else name)
    with pytest.raises(Unavailable, match=r"ipmi_sim.*apt-get install openipmi"):
        chosen_kinds("ipmi")
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pip install sushy-tools"):
        chosen_kinds("redfish")


def test_nothing_is_left_of_a_bench_that_cannot_come_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ["ipmi", "apc"], ["n1"])
    one = bench.devices["pdu-b"]
    with socket.socket(socket.AF_INET) as taken:
        taken.bind((one.address, one.port))
        taken.listen()
        with pytest.raises(Unavailable, match="pdu-b"), bench:
            pass
    assert set(bench.conditions().values()) == {"unreachable"}
    assert not bench.runs("n1")
