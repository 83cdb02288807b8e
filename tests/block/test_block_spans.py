"""What has no payload may be as long as the volume; no more of it than a span lands without authority."""

import errno
import socket
from pathlib import Path

import pytest

from ringfence.block import protocol as nbd
from ringfence.block.connection import SPAN_BYTES, Connection, Lane, PlainChannel
from ringfence.block.export import Export, Volume
from ringfence.block.extents import Extents
from ringfence.block.gate import Gate
from ringfence.block.seats import PlainSeats
from ringfence.host.pages import LOST_NS
from ringfence.wire.block import Extent

SIZE_BYTES = 4 * SPAN_BYTES


class Page:
    """Of authority that is lost once the second span has been carried out."""

    def __init__(self, image: Path) -> None:
        self._image = image

    def deadline_ns(self) -> int:
        with self._image.open("rb") as file:
            file.seek(2 * SPAN_BYTES - 4096)
            return (1 << 62) if any(file.read(4096)) else LOST_NS


class Reports:
    def __init__(self) -> None:
        self.told: list[tuple[str, str, int, int]] = []

    def late(self, what: str, offset_bytes: int, length_bytes: int, why: str) -> None:
        self.told.append(("late", what, offset_bytes, length_bytes))

    def refused(self, what: str, offset_bytes: int, length_bytes: int, why: str) -> None:
        self.told.append(("refused", what, offset_bytes, length_bytes))


@pytest.mark.parametrize("command", [nbd.Command.TRIM, nbd.Command.WRITE_ZEROES])
def test_a_long_change_ends_with_authority(tmp_path: Path, command: nbd.Command) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
        for number in range(1, 5):
            file.seek(number * SPAN_BYTES - 4096)
            file.write(b"5" * 4096)
    reports = Reports()
    volume = Volume(("vm1",), Extents((Extent(str(image), 0, SIZE_BYTES),)), readonly=False)
    export = Export(volume, Gate([Page(image)], 1000), reports, PlainSeats(2))  # type: ignore[list-item]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        lane = Lane(Connection(ours, export, 1), PlainChannel(ours))
        lane._request.command, lane._request.length = command, SIZE_BYTES
        assert lane._change(command) == errno.EPERM
    what = "trim" if command is nbd.Command.TRIM else "zeroing"
    assert reports.told == [("late", what, SPAN_BYTES, SPAN_BYTES)]
    data = image.read_bytes()
    assert [data[number * SPAN_BYTES - 1 : number * SPAN_BYTES] for number in range(1, 5)] == [
        b"\0", b"\0", b"5", b"5",
    ]  # fmt: skip
    volume.extents.close()
