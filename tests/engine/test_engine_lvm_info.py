"""What lvmlockctl is sent never overruns its buffers, and nothing is left out in silence."""

from types import SimpleNamespace
from typing import Any

import pytest

from ringfence.core.modes import Mode
from ringfence.engine.lvmlockd.info import CLIENTS, DUMP_BYTES, OLD_DUMP_BYTES, Info
from ringfence.engine.lvmlockd.recent import LINE_BYTES, Recent
from ringfence.engine.lvmlockd.sessions import Session
from ringfence.engine.orders import GoOn, Held
from ringfence.engine.uses import Owner, Use
from ringfence.wire.lvmlockd import LvmAsked

LINE = 512
"""lvmlockctl's MAX_LINE."""


def use(number: int, space: str = "lvm_vg0") -> Use:
    name = f"{number:06}-aaaa-bbbb-cccc-dddd-eeee-ffffff"
    held = Held(number, Mode.EX, None, None)  # type: ignore[arg-type]
    return Use(number, space, name, "", Mode.EX, None, held=held, by_lvm2=True)


def session(number: int, asked: LvmAsked | None = None) -> Session:
    owner = Owner(f"stock {number}", f"lvs (pid {number})")
    return Session((1 << 32) + number, owner, (number, 1), cmd="lvs", asked=asked)


def printed(uses: list[Use], sessions: list[Session], *, old: bool) -> tuple[bytes, int]:
    """The dump, and in how many steps it was made."""
    context: Any = SimpleNamespace(me=1, config=SimpleNamespace(name="c" * 50), vg_uuid=lambda space: "")
    locker: Any = SimpleNamespace(is_persistent=lambda lock: True, uses=lambda: uses)
    spaces = ["lvm_" + "v" * 60, "lvm_vg0"]
    command = Info(context, locker, sessions, spaces, (), old=old).print()
    steps = 1
    try:
        while True:
            assert isinstance(next(command), GoOn)
            steps += 1
    except StopIteration as stop:
        dump: bytes = stop.value
        return dump, steps


@pytest.mark.parametrize(("old", "room"), [(True, OLD_DUMP_BYTES), (False, DUMP_BYTES)])
def test_what_does_not_fit_is_told_with_the_command_that_shows_it(old: bool, room: int) -> None:
    dump, steps = printed([use(number) for number in range(1, 40_001)], [], old=old)
    assert room - 1000 < len(dump) <= room
    lines = dump.decode().splitlines()
    shown = sum(line.startswith("info=r ") for line in lines)
    assert lines[-1] == f"not shown: {40_000 - shown} more locks of lvm_vg0: ringfence locks lvm_vg0"
    assert lines[-2].startswith("info=lk ")
    assert shown > (7_000 if old else 30_000)
    assert steps > 7


def test_what_fits_is_shown_whole() -> None:
    dump, _ = printed([use(number) for number in range(1, 1001)], [session(1)], old=True)
    assert dump.count(b"info=lk ") == 1000
    assert b"not shown" not in dump


def test_no_line_and_no_more_clients_than_it_has_room_for() -> None:
    idle = [session(number) for number in range(1, 200)]
    waits = session(300, LvmAsked("lock_vg"))
    dump, _ = printed([], [*idle, waits], old=True)
    lines = dump.decode().splitlines()
    assert max(map(len, lines)) < LINE
    clients = [line for line in lines if line.startswith("info=client")]
    assert len(clients) == CLIENTS
    assert "pid=300" in clients[0]
    assert all(int(line.split(" id=")[1].split()[0]) < 1 << 32 for line in clients)
    assert lines[-1] == "not shown: 100 more clients"


def test_the_last_requests_fit() -> None:
    recent = Recent()
    asked = LvmAsked("lock_lv", vg_name="v" * 127, lv_name="l" * 127, lv_uuid="u", opts=("persistent",))
    for _ in range(10_000):
        recent.answered(1_700_000_000_000, "lvchange (pid 4194304)", asked, 0)
    dump = recent.print()
    assert len(dump) <= OLD_DUMP_BYTES
    assert max(map(len, dump.splitlines())) < LINE_BYTES
