"""The journal's language, read back as the journal reads it; and the log that speaks it."""

import array
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.daemon.journal_fields import MESSAGE_IDS, PRIORITIES, journal_entry
from ringfence.daemon.log import Log
from ringfence.host.journal import Journal, entry, is_journal, name_of

DOCUMENT = Path(__file__).parents[2] / "docs/formats/journal.md"


class Listener:
    """Takes entries as systemd-journald does: a datagram, or a sealed memory file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(60)
        self.socket.bind(str(path))

    def next(self) -> dict[str, str]:
        data, rights, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _, _, payload in rights:
            (fd,) = array.array("i", payload)
            with os.fdopen(fd, "rb") as file:
                file.seek(0)
                return parsed(file.read())
        return parsed(data)


def parsed(data: bytes) -> dict[str, str]:
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + size], data[8 + size + 1 :]
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name), name
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    one = Listener(tmp_path / "journal")
    yield one
    one.socket.close()


@pytest.fixture
def stderr() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_any_text_comes_back_as_it_was() -> None:
    fields = {
        "MESSAGE": "one\ntwo=2\n",
        "PLAIN": "a=b",
        "EMPTY": "",
        "ODD": "\x00\x1b[0m é",
        "LONE": "\udcff",
    }
    assert parsed(entry(fields)) == {**fields, "LONE": "\\udcff"}


def test_names_are_what_the_journal_takes() -> None:
    assert name_of("at_wall_ms", "ringfence_") == "RINGFENCE_AT_WALL_MS"
    assert name_of("what-ever é", "ringfence_") == "RINGFENCE_WHAT_EVER__"
    assert len(name_of("x" * 100, "ringfence_")) == 64


def test_what_is_too_large_for_a_datagram_goes_in_a_file(listener: Listener) -> None:
    large = "x" * (1 << 20)
    Journal(listener.path).send(entry({"MESSAGE": large}))
    assert listener.next() == {"MESSAGE": large}


def test_only_a_stream_to_the_journal_is_one(stderr: tuple[int, int]) -> None:
    there = os.fstat(stderr[1])
    assert is_journal(stderr[1], {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"})
    assert not is_journal(stderr[1], {"JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino + 1}"})
    assert not is_journal(stderr[1], {})
    assert not is_journal(9999, {"JOURNAL_STREAM": "1:1"})


def test_an_event_is_an_entry_with_its_fields() -> None:
    fields = {"node": 2, "life": "2/abc.1", "kind": "late-write", "levels": [1, 2], "at_wall_ms": 5}
    found = parsed(journal_entry("n1", "incident", "a late write", fields, "n2"))
    assert found == {
        "MESSAGE": "incident: a late write",
        "MESSAGE_ID": MESSAGE_IDS["incident"],
        "PRIORITY": "2",
        "SYSLOG_IDENTIFIER": "ringfence",
        "RINGFENCE_HOST": "n1",
        "RINGFENCE_KIND": "incident",
        "RINGFENCE_NODE": "n2",
        "RINGFENCE_LIFE": "2/abc.1",
        "RINGFENCE_INCIDENT_KIND": "late-write",
        "RINGFENCE_LEVELS": "[1, 2]",
        "RINGFENCE_AT_WALL_MS": "5",
    }


def test_the_log_tells_the_journal_in_the_place_of_stderr(
    listener: Listener, stderr: tuple[int, int]
) -> None:
    log = Log("n1", stderr[1], Journal(listener.path))
    log.line("victim", "n2 is suspected", 0, {"node": 2}, "n2")
    assert listener.next()["RINGFENCE_NODE"] == "n2"
    log.close()
    os.set_blocking(stderr[0], False)
    with pytest.raises(BlockingIOError):
        os.read(stderr[0], 100)


def test_what_the_journal_does_not_take_goes_to_stderr(tmp_path: Path, stderr: tuple[int, int]) -> None:
    log = Log("n1", stderr[1], Journal(tmp_path / "nobody"))
    log.line("victim", "n2 is suspected", 0)
    log.close()
    assert os.read(stderr[0], 1000) == b"1970-01-01T00:00:00.000Z n1 victim n2 is suspected\n"


def test_a_journal_that_does_not_read_holds_nobody_and_the_count_is_told(
    listener: Listener, stderr: tuple[int, int]
) -> None:
    log = Log("n1", stderr[1], Journal(listener.path))
    sent = 10_000
    for number in range(sent):
        log.line("flood", str(number), 0)
    kinds = [listener.next()["RINGFENCE_KIND"] for _ in range(100)]
    log.line("room", "there is some again", 0)
    while (found := listener.next())["RINGFENCE_KIND"] != "log":
        kinds.append(found["RINGFENCE_KIND"])
    assert kinds.count("flood") + int(found["RINGFENCE_LOST"]) == sent
    log.close()


def test_the_document_has_every_message_id() -> None:
    rows = dict(
        re.findall(r"^\| ([a-z-]+) \| [a-z]+ \| `([0-9a-f]{32})`", DOCUMENT.read_text(), re.MULTILINE)
    )
    assert rows == MESSAGE_IDS
    names = {"crit": 2, "err": 3, "warning": 4, "notice": 5}
    words = re.findall(rf"^\| ([a-z-]+) \| ({'|'.join(names)}) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert {kind: names[priority] for kind, priority in words} == PRIORITIES
