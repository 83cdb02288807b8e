"""Sizes: read and printed as LVM2 does; stock LVM2 itself is asked."""

import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.core.errors import BadInput
from ringfence.core.units import UNITS, format_size, parse_extents, parse_size

M = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64M", 64 * M), ("64m", 64 * M), ("64", 64 * M), ("1.5g", 1536 * M), (".5k", 512), ("8s", 4096),
        ("8S", 4096), ("4096b", 4096), ("4096B", 4096), ("1t", 1 << 40), ("2P", 2 << 50), ("1e", 1 << 60),
        ("0.01g", 10737152), ("1.1g", 1181115904), ("0.3T", 329853488128),
        ("64MiB", 64 * M), ("64MB", 64 * M), (" 64 m ", 64 * M), ("2.", 2 * M),
    ],
)  # fmt: skip
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "m", "0", "0m", "-1", "+1g", "1x", "1 2", "1,5g", "8e", "0.3b", "0.1s",
     "1mm", "nan", "inf", "1e3", "0x10"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_size(text)
    assert caught.value.next


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("25", (25, "")), ("100%FREE", (100, "FREE")), ("50%vg", (50, "VG")), ("9%V", (9, "VG")),
        ("9%fr", (9, "FREE")), ("9%PV", (9, "PVS")),
    ],
)  # fmt: skip
def test_extents_are_read(text: str, expected: tuple[int, str]) -> None:
    assert parse_extents(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "+5", "1.5", "50%", "%FREE", "x"])
def test_what_is_no_number_of_extents_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_extents(text)


@given(st.integers(1, 1 << 62))
def test_the_readable_size_never_says_more_than_there_is(size: int) -> None:
    """Without the mark it is a size that fits; with it, a little less is there than it says."""
    shown = format_size(size)
    number, letter = shown.lstrip("<")[:-1], shown[-1]
    told = Decimal(number) * 1024 ** ("Bkmgtpe".index(letter))
    assert told > size if shown.startswith("<") else told <= size


SIZES = [
    20 * M, 2049 * M, 2047 * M, 2100 << 10, 4097 << 10, 1048577 << 10, 10239 << 10, 5 << 30, 1537 * M,
    1600 * M, 999 * M, 1000 * M, 1001 * M, 1023 * M,
]  # fmt: skip


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    image = tmp_path / "disk.img"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(SIZES[0])
    device = subprocess.run(
        ["losetup", "-f", "--show", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        yield image, device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_stock_lvm2_prints_the_same(loop: tuple[Path, str]) -> None:
    image, device = loop
    pv = ["--devices", device, device]
    for size in SIZES:
        with image.open("r+b") as file:
            file.truncate(0)
            file.truncate(size)
        subprocess.run(["losetup", "-c", device], check=True)
        subprocess.run(["pvcreate", "-qq", "-ff", "-y", *pv], check=True, capture_output=True)
        for unit in (*UNITS, "1.5b", "1.9s", "1.5S", "2.5b") if size == SIZES[1] else "rRhm":
            for suffix in (True, False):
                options = ["--noheadings", "--separator", "|", "--units", unit, "-o", "dev_size,pv_used"]
                asked = ["pvs", *options, *([] if suffix else ["--nosuffix"]), *pv]
                said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
                ours = [format_size(size, unit, suffix=suffix), format_size(0, unit, suffix=suffix)]
                assert said.removeprefix("  ").rstrip("\n").split("|") == ours, (size, unit, suffix)
