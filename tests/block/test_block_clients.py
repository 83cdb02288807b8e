"""What real NBD clients make of an export, whether C or Python serves it: libnbd and qemu."""

import errno
import fcntl
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from block_rig import MIB, Rig, eventually, rig

from ringfence.block import protocol as nbd
from ringfence.block.connection import LANES
from ringfence.block.export import Export, Volume
from ringfence.block.extents import Extents
from ringfence.block.gate import Gate
from ringfence.block.incident_file import IncidentReader
from ringfence.block.negotiation import Garbage, Negotiation
from ringfence.block.protocol import Command
from ringfence.block.seats import PlainSeats
from ringfence.block.service import IN_FLIGHT
from ringfence.engine.orders import OpenPath
from ringfence.host.pages import PageReader
from ringfence.lab.nbd_client import NbdClient
from ringfence.wire import block as wire
from ringfence.wire.block import Extent, Place

NEW = b"\x22" * 4096


@pytest.fixture(params=["fast", "plain"])
def either(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with rig(plain=request.param == "plain") as one:
        yield one


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


HEAD = """
import nbd, sys
h = nbd.NBD()
h.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
h.connect_uri(sys.argv[1])

def errno_of(call, *args, **more):
    try:
        call(*args, **more)
    except nbd.Error as error:
        return error.errno
"""


def libnbd(uri: str, script: str) -> list[str]:
    """The command that runs a script with `h` connected; its `errno_of(call)` is why that fails.  By the
    system's Python, whose package the binding is."""
    return ["/usr/bin/python3", "-c", HEAD + script, uri]


def nbdsh(uri: str, script: str) -> str:
    return run(*libnbd(uri, script))


COMMANDS = """
assert h.get_structured_replies_negotiated() and h.can_meta_context("base:allocation")
assert h.can_multi_conn() and h.can_df() and h.can_fast_zero() and h.can_trim() and h.can_cache()
assert [h.get_block_size(one) for one in range(3)] == [512, 4096, 32 << 20]
h.set_strict_mode(0)  # what it would refuse itself is sent
h.pwrite(b"1" * (1 << 20), 0, nbd.CMD_FLAG_FUA)
h.trim(65536, 65536)
h.zero(65536, 262144, nbd.CMD_FLAG_FUA)
h.zero(65536, 524288, nbd.CMD_FLAG_NO_HOLE)
h.cache(4096, 0)
h.flush()
assert h.pread(65536, 65536) == h.pread(65536, 262144) == h.pread(65536, 524288) == bytes(65536)
assert h.pread(65536, 0, nbd.CMD_FLAG_DF) == h.pread(65536, 131072) == b"1" * 65536
seen = []
h.block_status(393216, 0, lambda context, offset, entries, error: seen.append((context, offset, entries)))
assert seen == [("base:allocation", 0, [65536, 0, 65536, 3, 131072, 0, 65536, 3, 65536, 0])], seen
seen.clear()
h.block_status(393216, 0, lambda context, offset, entries, error: seen.append(entries), nbd.CMD_FLAG_REQ_ONE)
assert seen == [[65536, 0]], seen
size = h.get_size()
assert errno_of(h.pwrite, b"2" * 512, size) == "ENOSPC"
assert errno_of(h.zero, 512, size) == "ENOSPC"
assert errno_of(h.pread, 512, size) == errno_of(h.trim, 512, size) == "EINVAL"
assert errno_of(h.pwrite, b"2" * 100, 0) == errno_of(h.pread, 512, 100) == "EINVAL"
assert errno_of(h.pwrite, b"2" * 512, 0, 1 << 9) == "EINVAL", "a flag that there is not"
assert errno_of(h.flush, 1) == "EINVAL"
many = {h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray([n] * 4096)), 2097152 + n * 4096) for n in range(64)}
while many:
    h.poll(-1)
    many = {one for one in many if not h.aio_command_completed(one)}
assert h.pread(64 * 4096, 2097152) == b"".join(bytes([n]) * 4096 for n in range(64))
print("done")
"""


def test_libnbd(either: Rig) -> None:
    uri = either.open()
    assert nbdsh(uri, COMMANDS) == "done\n"
    (export,) = json.loads(run("nbdinfo", "--json", uri))["exports"]
    assert (export["export-name"], export["export-size"]) == ("vm1", 8 * MIB)
    (listed,) = json.loads(run("nbdinfo", "--list", "--json", uri))["exports"]
    assert listed["export-name"] == "vm1"
    source = either.root / "source"
    source.write_bytes(os.urandom(MIB) + bytes(6 * MIB) + os.urandom(MIB))
    run("nbdcopy", "--flush", str(source), uri)
    run("nbdcopy", uri, str(either.root / "copy"))
    assert (either.root / "copy").read_bytes() == source.read_bytes() == either.on_disk(0, 8 * MIB)


def test_qemu(either: Rig) -> None:
    uri = either.open()
    words = ["write -P 7 0 1M", "discard 64k 64k", "write -z 256k 64k", "write -z -u 512k 128k", "flush"]
    words += ["read -P 0 64k 64k", "read -P 0 256k 64k", "read -P 0 512k 128k", "read -P 7 640k 384k"]
    said = run("qemu-io", "-f", "raw", *(part for word in words for part in ("-c", word)), uri)
    assert "verification failed" not in said
    found = json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", uri))
    assert [(one["start"], one["zero"]) for one in found][:5] == [
        (0, False), (65536, True), (131072, False), (262144, True), (327680, False)
    ]  # fmt: skip
    source = either.root / "source"
    source.write_bytes(os.urandom(MIB) + bytes(6 * MIB) + os.urandom(MIB))
    run("qemu-img", "convert", "-f", "raw", "-O", "raw", "-n", str(source), uri)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(source), uri)


def test_a_read_only_volume_offers_no_change(either: Rig) -> None:
    page = either.pages.path(1, "vg/vg0")
    either.pages.set(1, "vg/vg0", 1 << 62)
    order = msgspec.structs.replace(either.order(), readonly=True)
    opened = either.ask(lambda service: service.open(order, [page]))
    script = """
assert h.is_read_only() and not h.can_trim() and not h.can_zero()
h.set_strict_mode(0)
assert errno_of(h.pwrite, bytes(512), 0) == errno_of(h.trim, 512, 0) == errno_of(h.zero, 512, 0) == "EPERM"
assert h.pread(512, 0) == bytes(512)
"""
    nbdsh(opened.uri, script)
    assert not either.places.incidents.read_bytes()


def test_trim_and_zeroes_pass_the_gate(either: Rig) -> None:
    uri = either.open()
    nbdsh(uri, 'h.pwrite(b"5" * 65536, 0)')
    either.lose()
    script = """
assert errno_of(h.trim, 4096, 4096) == "EPERM"
assert errno_of(h.zero, 4096, 8192) == "EPERM"
assert errno_of(h.block_status, 4096, 0, lambda *told: 0) == "EPERM"
assert errno_of(h.pread, 4096, 0) == "EPERM"
"""
    nbdsh(uri, script)
    assert either.on_disk(0, 65536) == b"5" * 65536
    told = either.incidents(1)[0]
    assert (told.kind, told.offset_bytes, told.length_bytes) == ("write-refused", 4096, 4096)
    assert "a trim of 4096 bytes" in told.what


class Burst:
    """Requests that are sent at once, and their answers in the order in which they come."""

    def __init__(self, client: NbdClient) -> None:
        self._sock = client._sock

    def send(self, *requests: tuple[int, Command, int, int, bytes]) -> None:
        """Each: cookie, command, offset, length, data."""
        self._sock.sendall(
            b"".join(
                nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, command, cookie, offset, length) + data
                for cookie, command, offset, length, data in requests
            )
        )

    def answer(self) -> tuple[int, int]:
        """(cookie, error) of one without data."""
        answer = b""
        while len(answer) < nbd.REPLY.size:
            got = self._sock.recv(nbd.REPLY.size - len(answer))
            assert got, "it hung up"
            answer += got
        _, error, cookie = nbd.REPLY.unpack(answer)
        return cookie, error


def writes(*offsets: int) -> list[tuple[int, Command, int, int, bytes]]:
    """With their offsets as cookies, too."""
    return [(one, Command.WRITE, one, 4096, bytes([one >> 12 & 0xFF]) * 4096) for one in offsets]


def test_writes_that_were_all_in_flight_are_all_told(freezable: Rig) -> None:
    """As many as the volume has seats; without `fastpath` a lane has one at a time.  The others had not been
    checked yet."""
    uri = freezable.open()
    seats = IN_FLIGHT if freezable.path().fast else LANES
    with NbdClient(uri, timeout_s=60) as client:
        burst = Burst(client)
        with freezable.held_writes():
            burst.send(*writes(*range(0, 24 * 4096, 4096)))
            eventually(lambda: len(freezable.standing()) == seats)
            freezable.lose()
        assert sorted(burst.answer() for _ in range(24)) == [(n * 4096, errno.EPERM) for n in range(24)]
    assert len(freezable.standing()) == seats
    told = freezable.incidents(seats + 1)
    late = sorted(one.offset_bytes for one in told if one.kind == "write-late")
    assert late == sorted(int(one.suffix[1:]) - MIB for one in freezable.standing())
    for offset in range(0, 24 * 4096, 4096):
        landed = freezable.on_disk(offset, 4096) != bytes(4096)
        assert landed == (offset in late and offset != 0), "the first one's data are zeroes"


def test_all_that_went_late_together_is_told_before_any_is_answered(freezable: Rig) -> None:
    with NbdClient(freezable.open(), timeout_s=60) as client:
        burst = Burst(client)
        with freezable.held_writes():
            burst.send(*writes(*range(0, 8 * 4096, 4096)))
            eventually(lambda: len(freezable.standing()) == 8)
            freezable.lapse()
        eventually(lambda: len(IncidentReader(freezable.places.incidents).new()) == 8)
        client._sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            burst.answer()
        freezable.renew()
        client._sock.settimeout(60)
        assert sorted(burst.answer() for _ in range(8)) == [(n * 4096, 0) for n in range(8)]
    assert {one.kind for one in freezable.incidents(8)} == {"write-late"}


def test_a_write_that_stands_holds_up_no_other(freezable: Rig) -> None:
    """Also where all before it were so quick that one lane did them alone, and had answers to give."""
    stall = freezable.between / "stall"
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as memory:
        memory.truncate(9 * MIB)
        extents = (Extent(memory.name, MIB, 8 * MIB),)
        uri = freezable.open(msgspec.structs.replace(freezable.order(), extents=extents))
        _one_stands(freezable, uri, stall)
        freezable.ask(lambda service: service.close("vg0", "vm1"))


def _one_stands(freezable: Rig, uri: str, stall: Path) -> None:
    with NbdClient(uri, timeout_s=60) as client:
        burst = Burst(client)
        for _ in range(8):
            burst.send(*writes(*range(0, 16 * 4096, 4096)))
            assert sorted(burst.answer() for _ in range(16)) == [(n * 4096, 0) for n in range(16)]
        stall.symlink_to(str(MIB + 8192))
        burst.send(*writes(0, 4096, 8192, 12288, 16384))
        assert sorted(burst.answer() for _ in range(4)) == [(0, 0), (4096, 0), (12288, 0), (16384, 0)]
        eventually(lambda: len(freezable.standing()) == 1)
        burst.send((1, Command.FLUSH, 0, 0, b""), *writes(20480))
        assert sorted(burst.answer() for _ in range(2)) == [(1, 0), (20480, 0)]
        stall.unlink()
        assert burst.answer() == (8192, 0)
        assert client.read(0, 6 * 4096) == b"".join(bytes([n]) * 4096 for n in range(6))


def test_requests_of_all_sizes_behind_one_another(either: Rig) -> None:
    """However they lie in what is received at once."""
    dice = random.Random(7)
    with NbdClient(either.open(), timeout_s=60) as client:
        burst = Burst(client)
        image = bytearray(client.size_bytes)
        for _ in range(6):
            requests, at = [], 0
            for _ in range(24):
                length = dice.choice((512, 4096, 4096, 4096, 32768, 65536, 300 * 1024))
                data = dice.randbytes(length)
                image[at : at + length] = data
                requests.append((at, Command.WRITE, at, length, data))
                at += length + dice.randrange(3) * 512
            burst.send(*requests)
            assert sorted(burst.answer() for _ in requests) == [(one[0], 0) for one in requests]
            assert client.read(0, at) == image[:at]


def test_a_large_reply_waits_for_no_client(either: Rig) -> None:
    """It is in the socket whole before the client has read a byte of it."""
    with NbdClient(either.open(), timeout_s=60) as client:
        Burst(client).send((1, Command.READ, 0, 2 * MIB, b""))
        there = bytearray(4)

        def is_there() -> bool:
            fcntl.ioctl(client._sock, termios.FIONREAD, there)
            return int.from_bytes(there, sys.byteorder) == nbd.REPLY.size + 2 * MIB

        eventually(is_there)


def test_a_device_that_fails_and_one_that_does_less_than_it_is_asked(freezable: Rig) -> None:
    uri = freezable.open()
    script = """
import os
h.pwrite(b"7" * 8192, 0)
for number, name in ((5, "EIO"), (28, "ENOSPC"), (121, "EIO")):
    os.symlink(str(number), "%(fail)s")
    assert errno_of(h.pwrite, b"8" * 4096, 4096) == errno_of(h.pread, 4096, 0) == name, number
    os.unlink("%(fail)s")
    assert h.pread(8192, 0) == b"7" * 8192, "the connection goes on"
open("%(short)s", "w").close()
data = bytes(range(256)) * 64
h.pwrite(data, 4096)
assert h.pread(len(data), 4096) == data
"""
    places = {name: str(freezable.between / name) for name in ("fail", "short")}
    nbdsh(uri, script % places)
    with NbdClient(uri, timeout_s=60) as client:  # and the same together
        burst = Burst(client)
        offsets = range(0, 16 * 4096, 4096)
        burst.send(*writes(*offsets))
        assert sorted(burst.answer() for _ in offsets) == [(one, 0) for one in offsets]
        (freezable.between / "short").unlink()
        assert client.read(0, 16 * 4096) == b"".join(bytes([n]) * 4096 for n in range(16))
        (freezable.between / "fail").symlink_to(str(errno.EIO))
        burst.send(*writes(*offsets))
        assert sorted(burst.answer() for _ in offsets) == [(one, errno.EIO) for one in offsets]
    assert not freezable.places.incidents.read_bytes()


def test_stripes(either: Rig) -> None:
    """Three of them, behind a linear extent; requests begin and end anywhere."""
    disks = [either.root / f"disk{number}" for number in range(3)]
    for disk in disks:
        disk.write_bytes(bytes(4 * MIB))
    beside = tuple(Place(str(disk), number * MIB) for number, disk in enumerate(disks[1:], 1))
    striped = Extent(str(disks[0]), 0, 3 * MIB, beside, 65536)
    extents = (Extent(str(either.image), MIB, MIB), striped)
    uri = either.open(OpenPath("vg0", "wide", "u", extents, False, either.order().token))
    data = bytearray(os.urandom(4 * MIB))
    chance = random.Random(1)
    with NbdClient(uri) as client:
        client.write(0, bytes(data))
        for _ in range(30):
            at = chance.randrange(0, 3 * MIB, 512)
            part = os.urandom(chance.randrange(512, MIB, 512))
            data[at : at + len(part)] = part
            client.write(at, part)
        assert client.read(0, 4 * MIB) == data
        assert client.read(MIB - 512, 200 * 1024) == data[MIB - 512 : MIB - 512 + 200 * 1024]
    assert either.on_disk(0, MIB) == data[:MIB]
    for number, disk in enumerate(disks):
        chunks = [data[at : at + 65536] for at in range(MIB + number * 65536, 4 * MIB, 3 * 65536)]
        assert disk.read_bytes()[number * MIB : (number + 1) * MIB] == b"".join(chunks)


def test_a_disk_of_4096_byte_sectors(either: Rig) -> None:
    loop = run("losetup", "--find", "--show", "--sector-size", "4096", str(either.image)).strip()
    try:
        extents = (Extent(loop, MIB, 8 * MIB),)
        uri = either.open(OpenPath("vg0", "4k", "u", extents, False, either.order().token))
        script = """
assert [h.get_block_size(one) for one in range(2)] == [4096, 4096]
h.set_strict_mode(0)
h.pwrite(b"9" * 65536, 0)
assert errno_of(h.pwrite, bytes(512), 0) == errno_of(h.pread, 512, 512) == "EINVAL"
assert errno_of(h.zero, 512, 0) == errno_of(h.trim, 512, 512) == "EINVAL"
h.zero(4096, 4096)
h.zero(4096, 12288, nbd.CMD_FLAG_NO_HOLE)
assert errno_of(h.zero, 4096, 20480, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO) == "ENOTSUP"
h.trim(4096, 28672)
assert h.pread(20480, 0) == (b"9" * 4096 + bytes(4096)) * 2 + b"9" * 4096
seen = []
h.block_status(65536, 0, lambda context, offset, entries, error: seen.append(entries))
assert seen == [[65536, 0]], "nobody knows what of a block device is allocated"
"""
        nbdsh(uri, script)
        either.ask(lambda service: service.close("vg0", "4k"))
    finally:
        run("losetup", "--detach", loop)


def drain(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def test_no_handshake_however_odd_does_harm(tmp_path: Path) -> None:
    """Options of all kinds with bodies of all kinds: each is answered, or the connection ends."""
    (tmp_path / "img").write_bytes(bytes(MIB))
    extents = Extents((wire.Extent(str(tmp_path / "img"), 0, MIB),))
    gate = Gate([PageReader(tmp_path / "page")], 1000)

    class Nobody:
        def late(self, *told: object) -> None: ...
        def refused(self, *told: object) -> None: ...

    export = Export(Volume(("vm1",), extents, False), gate, Nobody(), PlainSeats(1))
    chance = random.Random(1)
    pieces = [
        b"",
        b"\0\0\0\3vm1",
        b"\0\0\0\1",
        b"\0\0\0\x0fbase:allocation",
        b"\0\1\0\3",
        b"\xff" * 4,
        b"\0\0",
    ]
    for _ in range(300):
        ours, theirs = socket.socketpair()
        sent = b"\0\0\0\3"
        for _ in range(chance.randrange(1, 5)):
            body = b"".join(chance.choice(pieces) for _ in range(chance.randrange(4)))
            sent += b"IHAVEOPT" + chance.choice([1, 3, 6, 7, 8, 9, 10, 11, 99]).to_bytes(4, "big")
            sent += (len(body) + chance.choice([0, 0, 0, 0, 1])).to_bytes(4, "big") + body
        with ours, theirs:
            theirs.sendall(sent)
            theirs.shutdown(socket.SHUT_WR)
            reading = threading.Thread(target=drain, args=(theirs,))
            reading.start()
            try:
                Negotiation(ours, export).run()
            except Garbage:
                pass
            finally:
                ours.shutdown(socket.SHUT_RDWR)
                reading.join()
    extents.close()


def test_what_is_missing_fails_and_the_rest_is_there(either: Rig) -> None:
    """An LV of which a PV is missing: linear pieces, and one of two stripes."""
    whole = either.order()
    (extent,) = whole.extents
    near = msgspec.structs.replace(extent, length_bytes=MIB)
    gone = Extent("", 5 * MIB, MIB)
    striped = Extent(extent.path, 3 * MIB, 2 * MIB, (Place("", 0),), 65536)
    uri = either.open(msgspec.structs.replace(whole, extents=(near, gone, striped)))
    script = f"""
assert h.get_size() == {4 * MIB}
def tried(offset, length=4096):
    data = b"x" * length
    done = [errno_of(h.pread, length, offset), errno_of(h.pwrite, data, offset)]
    done += [errno_of(h.zero, length, offset), errno_of(h.trim, length, offset)]
    return [*done, errno_of(h.pwrite, data, offset, nbd.CMD_FLAG_FUA)]
good, bad = [None] * 5, ["EIO"] * 5
assert tried(0) == good
assert tried({MIB} - 4096, 8192)[:2] == ["EIO", "EIO"], "in part"
assert tried({MIB}) == bad
assert tried({2 * MIB} - 4096) == bad
assert tried({2 * MIB}) == good
assert tried({2 * MIB} + 65536) == bad
assert tried({2 * MIB} + 131072) == good
assert errno_of(h.flush) is None
assert h.pread(4096, 0) != b""
"""
    run(*libnbd(uri, script))
    assert either.on_disk(2 * MIB, 4096) == b"x" * 4096
    assert len(either.paths()) == 1
