"""The promise: a write goes on, waits or fails by the authority page, and a late one is never silent."""

import errno
import os
import signal
import time

import pytest
from block_rig import Rig, Writing, eventually, process_state

from ringfence.block.incident_file import IncidentReader
from ringfence.lab.nbd_client import NbdClient

OLD, NEW = b"\x11" * 4096, b"\x22" * 4096


def refused(uri: str, offset_bytes: int = 0, data: bytes = NEW) -> int:
    with NbdClient(uri, timeout_s=60) as client:
        try:
            client.write(offset_bytes, data)
        except OSError as error:
            return error.errno or -1
    return 0


def held(writing: Writing, block: Rig) -> None:
    """It has reached the worker (the connection is counted) and stays unanswered for a while."""
    eventually(lambda: block.path().connections >= 1)
    time.sleep(0.1)
    assert not writing.answered


def test_valid_authority_lets_a_write_through(block: Rig) -> None:
    uri = block.open()
    assert refused(uri, 4096) == 0
    assert block.on_disk(4096, 4096) == NEW


def test_a_held_write_goes_on_when_authority_is_renewed(block: Rig) -> None:
    uri = block.open()
    block.lapse()
    writing = Writing(uri, 0, NEW)
    held(writing, block)
    assert block.on_disk(0, 4096) == bytes(4096), "held, yet on the disk"
    block.renew()
    assert writing.result() == 0
    assert block.on_disk(0, 4096) == NEW
    assert not IncidentReader(block.places.incidents).new(), "nothing happened that must be told"


def test_a_held_write_fails_when_authority_is_lost_and_never_goes_on(block: Rig) -> None:
    uri = block.open()
    block.lapse()
    writing = Writing(uri, 0, NEW)
    held(writing, block)
    block.lose()
    assert writing.result() == errno.EPERM
    block.renew()  # cannot: lost is for ever
    assert refused(uri) == errno.EPERM
    assert block.on_disk(0, 4096) == bytes(4096)
    told = block.incidents(1)[0]
    assert (told.kind, told.volume, told.node) == ("write-refused", "vg0/vm1", 1)
    assert (told.offset_bytes, told.length_bytes) == (0, 4096)


def test_a_write_is_not_held_for_longer_than_hold_ms(block: Rig) -> None:
    uri = block.open(hold_ms=200)
    block.lapse()
    began = time.monotonic()
    assert refused(uri, 8192) == errno.EPERM
    assert 0.2 <= time.monotonic() - began < 5
    assert "lapsed for over 200 ms" in block.incidents(1)[0].what
    block.renew()
    assert refused(uri, 8192) == 0


def test_reads_and_flushes_need_authority_too(block: Rig) -> None:
    uri = block.open(hold_ms=100)
    block.lapse()
    with NbdClient(uri, timeout_s=60) as client:
        for call in (lambda: client.read(0, 4096), client.flush):
            with pytest.raises(PermissionError) as caught:
                call()
            assert caught.value.errno == errno.EPERM
        block.renew()
        assert client.read(0, 4096) == bytes(4096)
        client.flush()
        block.lose()
        assert refused(uri) == errno.EPERM


def test_every_page_must_be_valid(block: Rig) -> None:
    block.pages.set(1, "vg/vg0", 1 << 63)
    block.pages.set(1, "grant", 0)
    pages = [block.pages.path(1, "vg/vg0"), block.pages.path(1, "grant")]
    opened = block.ask(lambda service: service.open(block.order(), pages))
    assert refused(opened.uri) == errno.EPERM


def test_no_page_is_no_authority(block: Rig) -> None:
    page = block.pages.path(9, "vg/vg0")
    opened = block.ask(lambda service: service.open(block.order(), [page]))
    assert refused(opened.uri) == errno.EPERM


def test_a_held_write_whose_client_left_is_dropped(block: Rig) -> None:
    """It may have come back on another connection and written newer data."""
    uri = block.open()
    block.lapse()
    writing = Writing(uri, 0, OLD)
    held(writing, block)
    writing.client._sock.shutdown(2)
    eventually(lambda: block.path().connections == 0)
    block.renew()
    assert refused(uri, 0, NEW) == 0
    assert block.on_disk(0, 4096) == NEW
    assert "client left" in block.incidents(1)[0].what


def test_a_worker_frozen_between_check_and_write_reports_its_late_write(freezable: Rig) -> None:
    """Thawed after the take-over: the one write in flight lands, is refused, and is told with its range."""
    uri = freezable.open()
    pid = freezable.path().pid
    freezable.freeze_next_write()
    writing = Writing(uri, 3 * 4096, NEW * 2)
    eventually(lambda: process_state(pid) == "T")
    assert freezable.on_disk(3 * 4096, 8192) == bytes(8192)
    freezable.lapse()
    freezable.lose()
    os.kill(pid, signal.SIGCONT)
    assert writing.result() == errno.EPERM
    told = [incident for _, incident in IncidentReader(freezable.places.incidents).new()]
    assert [one.kind for one in told if one] == ["write-late"], "on the disk before the answer"
    assert refused(uri) == errno.EPERM
    late, second = freezable.incidents(2)
    assert (late.kind, late.volume) == ("write-late", "vg0/vm1")
    assert (late.offset_bytes, late.length_bytes) == (12288, 8192)
    assert second.kind == "write-refused"
    assert freezable.on_disk(3 * 4096, 8192) == NEW * 2, "the test tests nothing: it never landed"


def test_a_late_write_is_stored_before_it_is_answered(freezable: Rig) -> None:
    """Lapsed, not lost: the answer waits.  Everything is killed then; the incident is already on disk."""
    uri = freezable.open()
    pid = freezable.path().pid
    freezable.freeze_next_write()
    writing = Writing(uri, 0, NEW)
    eventually(lambda: process_state(pid) == "T")
    freezable.lapse()
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: bool(IncidentReader(freezable.places.incidents).new()))
    assert not writing.answered
    freezable.service.kill()
    freezable.service.wait()
    assert writing.result() != 0
    freezable.start()
    assert freezable.incidents(1)[0].kind == "write-late"


def test_a_late_write_under_renewed_authority_is_good(freezable: Rig) -> None:
    uri = freezable.open()
    pid = freezable.path().pid
    freezable.freeze_next_write()
    writing = Writing(uri, 0, NEW)
    eventually(lambda: process_state(pid) == "T")
    freezable.lapse()
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: bool(IncidentReader(freezable.places.incidents).new()))
    freezable.renew()
    assert writing.result() == 0
    assert freezable.incidents(1)[0].kind == "write-late"


def test_a_frozen_worker_that_thaws_in_time_is_no_incident(freezable: Rig) -> None:
    uri = freezable.open()
    pid = freezable.path().pid
    freezable.freeze_next_write()
    writing = Writing(uri, 0, NEW)
    eventually(lambda: process_state(pid) == "T")
    os.kill(pid, signal.SIGCONT)
    assert writing.result() == 0
    assert not IncidentReader(freezable.places.incidents).new()


def test_without_protection_the_late_write_is_silent(freezable: Rig) -> None:
    """What a naive lab's page does: this is the corruption that the rest prevents."""
    uri = freezable.open(deadline_ns=(1 << 64) - 1)
    pid = freezable.path().pid
    freezable.freeze_next_write()
    writing = Writing(uri, 0, NEW)
    eventually(lambda: process_state(pid) == "T")
    freezable.lapse()
    freezable.pages.set(1, "vg/vg0", (1 << 64) - 1)
    os.kill(pid, signal.SIGCONT)
    assert writing.result() == 0
    assert not IncidentReader(freezable.places.incidents).new()


def test_a_looping_guest_does_not_flood(block: Rig) -> None:
    uri = block.open()
    block.lose()
    with NbdClient(uri, timeout_s=60) as client:
        for number in range(500):
            with pytest.raises(PermissionError) as caught:
                client.write(number * 4096, NEW)
            assert caught.value.errno == errno.EPERM
    block.ask(lambda service: service.close("vg0", "vm1"))  # what was gathered is told at the end
    told = [one for _, one in IncidentReader(block.places.incidents).new() if one is not None]
    assert block.incidents(len(told)) == told
    first, *rest = told  # a slow machine needs more than one interval for them
    assert (first.offset_bytes, first.length_bytes) == (0, 4096)
    assert 1 <= len(rest) <= 3
    assert rest[-1].offset_bytes + rest[-1].length_bytes == 500 * 4096
    assert len(IncidentReader(block.places.incidents).new()) <= 8
