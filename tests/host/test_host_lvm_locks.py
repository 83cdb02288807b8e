"""What the next daemon of a boot finds of the locks that stock LVM2 had through the one before."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.core.errors import Damaged, DeviceFailed
from ringfence.host.lvm_locks import SLOT_BYTES, LvmLocks
from ringfence.wire.lvmlockd import LvmLock

BOOT = "0e1f8a52-7a0b-4b1b-9a86-3d1b1f4f8f20"
Opened = Callable[..., LvmLocks]


def lock(number: int, mode: str = "ex", pid: int = 0) -> LvmLock:
    return LvmLock("lvm_vg0", f"uuid-{number}", mode, f"3.1.{number}", f"LV vg0/vm{number}", pid, pid * 7)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens the file as the next daemon does."""
    files: list[LvmLocks] = []

    def open_it(boot: str = BOOT) -> LvmLocks:
        files.append(LvmLocks(tmp_path / "lvm-locks", boot))
        return files[-1]

    yield open_it
    for file in files:
        file.close()


def test_what_is_noted_is_there_for_the_next(opened: Opened) -> None:
    opened().keep([lock(1), lock(2), lock(3, pid=77)], [])
    assert set(opened().locks()) == {lock(1), lock(2), lock(3, pid=77)}
    again = opened()
    again.keep([lock(1, "sh"), lock(4)], [lock(2)])
    assert set(opened().locks()) == {lock(1, "sh"), lock(3, pid=77), lock(4)}


def test_a_slot_that_is_free_is_used_again(opened: Opened, tmp_path: Path) -> None:
    file = opened()
    for number in range(1000):
        file.keep([lock(number)], [lock(number - 1)])
    assert (tmp_path / "lvm-locks").stat().st_size == 2 * SLOT_BYTES
    assert opened().locks() == (lock(999),)


def test_an_earlier_boot_s_are_worth_nothing(opened: Opened) -> None:
    opened().keep([lock(1)], [])
    assert opened("another-boot").locks() == ()
    assert opened("another-boot").locks() == ()


def test_lost_ones_stay_lost_until_they_are_cleared(opened: Opened) -> None:
    file = opened()
    file.keep([lock(1)], [])
    file.lose()
    file.keep([], [])
    again = opened()
    assert (again.lost, again.locks()) == (True, (lock(1),))
    again.clear()
    assert (opened().lost, opened().locks()) == (False, ())
    again.keep([lock(2)], [])
    assert (opened().lost, opened().locks()) == (False, (lock(2),))


def test_a_torn_tail_was_told_to_nobody(opened: Opened, tmp_path: Path) -> None:
    file = opened()
    file.keep([lock(1), lock(2)], [])
    path = tmp_path / "lvm-locks"
    path.write_bytes(path.read_bytes()[: 2 * SLOT_BYTES + 100])
    torn = opened()
    assert torn.locks() == (lock(1),)
    torn.keep([lock(3)], [])
    assert opened().locks() == (lock(1), lock(3))


@pytest.mark.parametrize("at", [0, SLOT_BYTES, SLOT_BYTES + 40])
def test_anything_else_is_damage_and_not_read_as_none(opened: Opened, tmp_path: Path, at: int) -> None:
    opened().keep([lock(1)], [])
    path = tmp_path / "lvm-locks"
    data = bytearray(path.read_bytes())
    data[at : at + 3] = b'"x\\'
    path.write_bytes(bytes(data))
    with pytest.raises(Damaged, match=r"lvm-locks is damaged .*not known what LVM2 has active here"):
        opened()


def test_no_room(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    file = opened()
    monkeypatch.setattr("os.pwrite", lambda fd, data, at: 100)
    with pytest.raises(DeviceFailed, match="No space left"):
        file.keep([lock(1)], [])


def test_the_longest_names_that_there_are(opened: Opened) -> None:
    long = LvmLock(
        "lvm_" + "v" * 127, "0" * 38, "ex", "4294967295.16.18446744073709551615",
        f"LV {'v' * 127}/{'l' * 127}", 4194304, 1 << 40, "0" * 38,
    )  # fmt: skip
    opened().keep([long], [])
    (found,) = opened().locks()
    assert found.key == long.key
    assert long.what.startswith(found.what)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from(["sh", "ex"]))))
def test_it_holds_what_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[bool, int, str]]
) -> None:
    path = tmp_path_factory.mktemp("locks") / "lvm-locks"
    file, expected = LvmLocks(path, BOOT), {}
    for kept, number, mode in told:
        one = lock(number, mode)
        if kept:
            file.keep([one], [])
            expected[one.key] = one
        else:
            file.keep([], [one])
            expected.pop(one.key, None)
    again = LvmLocks(path, BOOT)
    assert {one.key: one for one in again.locks()} == expected
    for one in (file, again):
        one.close()


def test_what_it_costs(opened: Opened) -> None:
    """A goal of 20 us a lock, with room for a busy machine; a file written anew would take milliseconds."""
    file = opened()
    locks = [lock(number) for number in range(20_000)]
    began_ns = time.thread_time_ns()
    for one in locks:
        file.keep([one], [])
    assert (time.thread_time_ns() - began_ns) / len(locks) < 100_000
