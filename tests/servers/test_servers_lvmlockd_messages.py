"""What a request may say without harm to anybody but who sent it."""

import msgspec
import pytest

from ringfence.servers.lvmlockd_messages import parse_request
from ringfence.wire.entries import VolumeNotice


@pytest.mark.parametrize(
    ("said", "version"), [("4294967295", 2**32 - 1), ("9" * 5000, 0), ("9" * 30, 0), ("-1", 0), ('"x"', 0)]
)
def test_a_version_can_be_sent_around_the_ring(said: str, version: int) -> None:
    asked = parse_request(f'request = "vg_update"\nversion = {said}\n'.encode())
    assert asked.version == version
    assert msgspec.msgpack.encode(VolumeNotice("vg0", asked.version, 0, "n1: lvcreate"))


def test_what_is_not_utf_8_can_be_noted_all_the_same() -> None:
    asked = parse_request(b'request = "lock_lv"\nlv_name = "vm\xff1"\ncmd = "lv\xfe"\n')
    assert asked.lv_name == "vm\ufffd1"
    assert msgspec.json.encode(asked)
