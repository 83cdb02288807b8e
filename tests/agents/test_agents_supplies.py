"""Power supplies as real ipmitool reads them off a simulated controller."""

import asyncio
from collections.abc import Iterator

import pytest

from ringfence.agents.supplies import SupplyReader, command_of, supplies_of
from ringfence.core.cluster import Use
from ringfence.core.errors import ConfigError
from ringfence.lab.devices.bench import Bench
from ringfence.wire.proving import Current, Reading, Supply

GIVEN = {"ipaddr": "10.0.0.1", "login": "admin", "passwd": "hush-hush", "cipher": "3"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("bench"), ["ipmi", "apc-snmp"], ["n1", "n2"]) as bench:
        yield bench


def read(bench: Bench, *hosts: str, password: str = "") -> tuple[Reading, ...]:
    def secrets(device: str) -> dict[str, str]:
        return {"password": password} if password else bench.secrets(device)

    reader = SupplyReader(bench.config, secrets)
    uses = tuple((number, Use(f"bmc-{host}")) for number, host in enumerate(hosts, 1))
    return asyncio.run(reader.read(uses))


def currents(reading: Reading) -> list[tuple[str, Current]]:
    return [(one.name, one.current) for one in reading.supplies]


def test_an_outlet_that_is_off_is_seen_at_its_own_host_alone(bench: Bench) -> None:
    fed = [("PSU1", Current.FED), ("PSU2", Current.FED)]
    assert [currents(one) for one in read(bench, "n1", "n2")] == [fed, fed]
    bench.power.asked({"order": "device", "device": "pdu-a", "node": "n1", "action": "off"})
    try:
        seen = [fed]
        for _ in range(50):  # the controller polls its supplies
            seen = [currents(one) for one in read(bench, "n1", "n2")]
            if seen[0] != fed:
                break
        assert seen == [[("PSU1", Current.LOST), ("PSU2", Current.FED)], fed]
    finally:
        bench.switch("n1", "on")


def test_a_wrong_password_is_trouble_and_not_repeated(bench: Bench) -> None:
    (found,) = read(bench, "n1", password="Wrong-pass-0")
    assert found.supplies == ()
    assert found.trouble
    assert "Wrong-pass-0" not in found.trouble


def test_the_command_line_holds_no_secret() -> None:
    words, password = command_of("bmc", {**GIVEN, "ipport": "6230", "privlvl": "operator"})
    assert password == "hush-hush"
    assert not any("hush-hush" in word for word in words)
    assert words[1:3] == ["-I", "lanplus"]
    assert words[words.index("-p") + 1] == "6230"
    assert words[words.index("-L") + 1] == "OPERATOR"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({**GIVEN, "ipaddr": ""}, "device bmc has no address"),
        ({**GIVEN, "passwd": ""}, "device bmc has no password"),
        ({**GIVEN, "hexadecimal_kg": "00"}, "takes its key on the command line only"),
    ],
)
def test_what_cannot_be_asked_is_said(given: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        command_of("bmc", given)


def test_other_vendors_lines_are_read_too() -> None:
    text = """PS1 Status       | C8h | ok  | 10.1 | Presence detected
PS2 Status       | C9h | ok  | 10.2 | Presence detected, Failure detected, Power Supply AC lost
PS3 Status       | CAh | ok  | 10.3 | Presence detected, Predictive failure
PS4 Status       | CBh | ok  | 10.4 |
PS5 Status       | CCh | ns  | 10.5 | No Reading
PS1 Input Power  | 70h | ok  | 10.1 | 120 Watts
PS Redundancy    | 77h | ok  |  7.1 | Fully Redundant
"""
    assert supplies_of(text) == (
        Supply("PS1 Status", Current.FED, "Presence detected"),
        Supply("PS2 Status", Current.LOST, "Presence detected, Failure detected, Power Supply AC lost"),
        Supply("PS3 Status", Current.BAD, "Presence detected, Predictive failure"),
        Supply("PS4 Status", Current.BAD, ""),
        Supply("PS5 Status", Current.BAD, "No Reading"),
    )
