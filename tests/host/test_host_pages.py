"""Authority pages: the one value that every write on this host depends on."""

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.core.errors import BadInput, DeviceFailed
from ringfence.host.pages import PAGE_BYTES, UNCHECKED_NS, Authority, PageReader, Pages, page_path, state_of


@pytest.mark.parametrize(
    ("deadline_ns", "now_ns", "state"),
    [
        (0, 0, Authority.LOST),
        (0, 1 << 63, Authority.LOST),
        (1, 1, Authority.LAPSED),
        (100, 99, Authority.VALID),
        (100, 100, Authority.LAPSED),
        (UNCHECKED_NS, UNCHECKED_NS, Authority.VALID),
    ],
)
def test_what_a_deadline_means(deadline_ns: int, now_ns: int, state: Authority) -> None:
    assert state_of(deadline_ns, now_ns) is state


def test_a_reader_sees_each_store(tmp_path: Path) -> None:
    pages = Pages(tmp_path)
    pages.set(7, "vg/vg0", 500)
    reader = PageReader(tmp_path / "7" / "vg.vg0")
    assert reader.state(499) is Authority.VALID
    assert reader.state(500) is Authority.LAPSED
    pages.set(7, "vg/vg0", 900)
    assert reader.state(500) is Authority.VALID
    assert pages.deadline(7, "vg/vg0") == 900
    pages.set(7, "vg/vg0", 0)
    assert reader.state(1) is Authority.LOST


def test_lost_is_for_ever_also_for_another_writer(tmp_path: Path) -> None:
    pages = Pages(tmp_path)
    pages.set(1, "grant", 500)
    pages.set(1, "grant", 0)
    pages.set(1, "grant", 900)
    assert pages.deadline(1, "grant") == 0
    again = Pages(tmp_path)
    again.set(1, "grant", 900)
    assert again.deadline(1, "grant") == 0
    assert PageReader(tmp_path / "1" / "grant").state(1) is Authority.LOST
    again.set(2, "grant", 900)  # another incarnation has authority of its own
    assert PageReader(tmp_path / "2" / "grant").state(1) is Authority.VALID


def test_lose_all_holds_for_pages_that_come_later(tmp_path: Path) -> None:
    pages = Pages(tmp_path)
    pages.set(1, "grant", 500)
    pages.lose_all()
    pages.set(1, "grant", 900)
    pages.set(1, "vg/new", 900)
    assert PageReader(tmp_path / "1" / "grant").state(1) is Authority.LOST
    assert PageReader(tmp_path / "1" / "vg.new").state(1) is Authority.LOST


def test_earlier_incarnations_can_be_lost_by_their_successor(tmp_path: Path) -> None:
    Pages(tmp_path).set(1, "vg/vg0", UNCHECKED_NS)
    reader = PageReader(tmp_path / "1" / "vg.vg0")
    pages = Pages(tmp_path)
    pages.set(2, "vg/vg0", UNCHECKED_NS)
    pages.lose_before(2)
    assert reader.state(1) is Authority.LOST
    assert PageReader(tmp_path / "2" / "vg.vg0").state(1) is Authority.VALID
    Pages(tmp_path / "none").lose_before(5)  # nothing there, nothing to lose


def test_a_missing_or_short_page_is_no_authority(tmp_path: Path) -> None:
    path = tmp_path / "1" / "grant"
    reader = PageReader(path)
    assert reader.state(1) is Authority.LOST
    path.parent.mkdir()
    path.write_bytes(b"")
    assert reader.state(1) is Authority.LOST
    path.unlink()
    Pages(tmp_path).set(1, "grant", 500)  # the daemon makes it a moment later
    assert reader.state(1) is Authority.VALID


def test_the_page_is_what_the_format_says(tmp_path: Path) -> None:
    Pages(tmp_path).set(3, "vg/data", 0x0102030405060708)
    data = (tmp_path / "3" / "vg.data").read_bytes()
    assert data == bytes([8, 7, 6, 5, 4, 3, 2, 1]).ljust(PAGE_BYTES, b"\0")
    on_disk_bytes = os.stat(tmp_path / "3" / "vg.data").st_blocks * 512
    assert on_disk_bytes >= PAGE_BYTES, "a sparse page dies of a full disk"


@pytest.mark.parametrize("page", ["", "vg/", "vg/a/b", "grant/x", "../grant", "vg"])
def test_other_page_names_are_refused(tmp_path: Path, page: str) -> None:
    with pytest.raises(BadInput):
        page_path(tmp_path, 1, page)


def test_a_page_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("in the way")
    with pytest.raises(DeviceFailed, match="cannot map authority page"):
        Pages(tmp_path).set(1, "grant", 5)


def test_no_reader_ever_sees_half_a_store(tmp_path: Path) -> None:
    """Two deadlines that share no byte, stored in turn by another process: a mixture would be a third."""
    low, high = 0x1111111111111111, 0xEEEEEEEEEEEEEEEE
    pages = Pages(tmp_path)
    pages.set(1, "grant", low)
    writer = (
        "import sys, pathlib\nfrom ringfence.host.pages import Pages\np = Pages(pathlib.Path(sys.argv[1]))\n"
        f"for _ in range(50000): p.set(1, 'grant', {low}); p.set(1, 'grant', {high})"
    )
    process = subprocess.Popen([sys.executable, "-c", writer, str(tmp_path)])
    try:
        reader = PageReader(tmp_path / "1" / "grant")
        seen: set[int] = set()
        while process.poll() is None:
            for _ in range(2000):
                seen.add(reader.deadline_ns())
    finally:
        process.kill()
        process.wait()
    assert seen == {low, high}


def test_the_store_is_aligned(tmp_path: Path) -> None:
    """The map starts on a page, and the deadline at its first byte."""
    page = mmap.mmap(-1, PAGE_BYTES)
    assert ctypes.addressof(ctypes.c_char.from_buffer(page)) % 8 == 0
