"""The client socket on a real Unix socket."""

import asyncio
import contextlib
import json
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ringfence.core.errors import ConfigError, Refused
from ringfence.servers import client_socket
from ringfence.servers.client_socket import ClientSocket
from ringfence.wire.client import Busy, Cancel, Lock, Reply, Request, Unlock, encode


@pytest.fixture
def place() -> Iterator[Path]:
    where = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
    yield where
    shutil.rmtree(where)


class Echo:
    """Answers every request with its own id, unless told to stay silent."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.server = ClientSocket(path, self.asked, self.left, **options)
        self.asked_of: list[tuple[int, Request, str]] = []
        self.gone: list[int] = []
        self.silent = False

    def asked(self, client: int, request: Request, who: str) -> None:
        self.asked_of.append((client, request, who))
        if not self.silent:
            self.server.send(client, Reply(request.id, result={"you": who}))

    def left(self, client: int) -> None:
        self.gone.append(client)


@contextlib.asynccontextmanager
async def serving(path: Path, **options: Any) -> AsyncIterator[Echo]:
    echo = Echo(path, **options)
    await echo.server.start()
    try:
        yield echo
    finally:
        await echo.server.close()


def status(id: str) -> bytes:
    return json.dumps({"id": id, "call": {"type": "Status"}}).encode() + b"\n"


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 - what is awaited lies in another process or a callback
            await asyncio.sleep(0.005)


def run(body: Awaitable[None]) -> None:
    async def whole() -> None:
        await body

    asyncio.run(whole())


def test_a_request_comes_with_the_kernels_word_on_who_asks(place: Path) -> None:
    async def body() -> None:
        async with serving(place / "s") as echo:
            reader, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(status("a1"))
            reply = json.loads(await reader.readline())
            assert reply["id"] == "a1"
            assert reply["result"]["you"] == f"uid {os.getuid()} (root) pid {os.getpid()}"
            writer.close()
            await until(lambda: echo.gone == [1])

    run(body())


def test_who_has_closed_is_gone_before_what_others_ask_after_that(place: Path) -> None:
    async def body() -> None:
        async with serving(place / "s") as echo:
            one, other = (socket.socket(socket.AF_UNIX) for _ in range(2))
            gone: list[list[int]] = []
            echo.server.on_request = lambda client, request, who: gone.append(list(echo.gone))
            with one, other:
                one.connect(str(place / "s"))
                await until(lambda: echo.server.clients == (1,))
                other.connect(str(place / "s"))
                await until(lambda: echo.server.clients == (1, 2))
                one.close()
                other.sendall(status("a"))
                await until(lambda: bool(gone))
            assert gone == [[1]]

    run(body())


def test_half_lines_and_several_in_one_packet(place: Path) -> None:
    async def body() -> None:
        async with serving(place / "s") as echo:
            reader, writer = await asyncio.open_unix_connection(place / "s")
            whole = status("a") + b"\n" + status("b") + status("c")
            for at in range(0, len(whole), 7):
                writer.write(whole[at : at + 7])
                await writer.drain()
                await asyncio.sleep(0)
            assert [json.loads(await reader.readline())["id"] for _ in range(3)] == ["a", "b", "c"]
            writer.write(status("half")[:-5])
            writer.close()
            await until(lambda: bool(echo.gone))
            assert len(echo.asked_of) == 3

    run(body())


def test_the_same_id_on_one_connection_runs_once(place: Path) -> None:
    async def body() -> None:
        async with serving(place / "s") as echo:
            echo.silent = True
            _, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(status("x") + status("x") + status("y"))
            await until(lambda: len(echo.asked_of) == 2)
            assert [request.id for _, request, _ in echo.asked_of] == ["x", "y"]
            writer.close()

    run(body())


@pytest.mark.parametrize("noise", [b"hello\n", b"\xff\xfe\n", b"[1,2]\n", b"{}\n", b'{"id": 4}\n'])
def test_garbage_gets_one_clear_error_and_the_end(place: Path, noise: bytes) -> None:
    async def body() -> None:
        async with serving(place / "s") as echo:
            reader, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(noise + status("after"))
            reply = json.loads(await reader.readline())
            assert reply["error"]["code"] == "bad-input"
            assert "not a request" in reply["error"]["message"]
            assert await reader.read() == b""
            assert not echo.asked_of
            writer.close()

    run(body())


def test_an_unknown_call_is_refused_by_id_and_the_connection_lives(place: Path) -> None:
    async def body() -> None:
        async with serving(place / "s"):
            reader, writer = await asyncio.open_unix_connection(place / "s")
            field = b'{"id": "f", "call": {"type": "Unlock", "lock": 4, "mood": "soft"}}\n'
            value = b'{"id": "v", "call": {"type": "Unlock", "lock": "four"}}\n'
            writer.write(b'{"id": "n", "call": {"type": "Levitate"}}\n' + field + value + status("next"))
            first, second, wrong, third = [json.loads(await reader.readline()) for _ in range(4)]
            assert (first["id"], first["error"]["code"]) == ("n", "bad-input")
            assert (second["id"], second["error"]["code"]) == ("f", "bad-input")
            assert "unknown field `mood`" in second["error"]["message"]
            assert second["error"]["next"].startswith("if ringfence was upgraded here: systemctl restart")
            assert (wrong["id"], wrong["error"]["code"]) == ("v", "bad-input")
            assert wrong["error"]["message"] == "lock: expected int, got str"
            assert wrong["error"]["next"] == "give one of its type and in its range"
            assert third["id"] == "next"
            writer.close()

    run(body())


def test_a_line_over_the_limit_ends_the_connection(place: Path) -> None:
    async def body() -> None:
        async with serving(place / "s") as echo:
            for ending in (b"", b"\n"):
                reader, writer = await asyncio.open_unix_connection(place / "s", limit=4 << 20)
                writer.write(b'{"id": "' + b"x" * client_socket.LINE_BYTES + ending)
                reply = json.loads(await reader.readline())
                assert "longer than 1048576 bytes" in reply["error"]["message"]
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
            assert not echo.asked_of

    run(body())


def test_a_client_that_never_reads_is_dropped_and_others_are_not(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_socket, "STALL_S", 0.2)

    async def body() -> None:
        async with serving(place / "s") as echo:
            deaf = socket.socket(socket.AF_UNIX)
            deaf.connect(os.fspath(place / "s"))
            reader, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(status("a"))
            await reader.readline()
            # Little enough to stay under the hard limit: only the stall can find it.
            for _ in range(20):
                echo.server.send(1, Reply("", result="x" * 100_000, final=False))
            await until(lambda: echo.gone == [1])
            # A flood reaches the hard limit at once, without waiting.
            other = socket.socket(socket.AF_UNIX)
            other.connect(os.fspath(place / "s"))
            await until(lambda: 3 in echo.server.clients)
            sent = [echo.server.send(3, Reply("", result="x" * 1_000_000, final=False)) for _ in range(12)]
            assert sent[0]
            assert not sent[-1]
            await until(lambda: echo.gone == [1, 3])
            assert not echo.server.send(3, Reply(""))
            writer.write(status("b"))
            assert json.loads(await reader.readline())["id"] == "b"
            for sock in (deaf, other):
                sock.close()
            writer.close()

    run(body())


def test_a_client_that_caches_locks_is_not_dropped_but_read_no_more(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It believes in its locks until it reads: they must not be released because it stands still."""
    monkeypatch.setattr(client_socket, "STALL_S", 0.1)

    async def body() -> None:
        async with serving(place / "s") as echo:
            reader, writer = await asyncio.open_unix_connection(place / "s", limit=1 << 16)
            writer.write(encode(Request("1", Lock("games", "chess", cached=True))))
            await reader.readline()
            for _ in range(12):
                echo.server.send(1, Reply("1", result="x" * 1_000_000, final=False))
            writer.write(status("later"))
            await asyncio.sleep(0.5)  # several stalls' worth
            assert not echo.gone
            assert len(echo.asked_of) == 1
            got = b""
            while b'"id":"later"' not in got:
                got = got[-100:] + await reader.read(1 << 16)
            writer.close()
            await until(lambda: echo.gone == [1])

    run(body())


def test_locks_that_are_held_are_no_open_requests(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They ended what a client may ask, its unlocks included: nobody else ever got them."""
    monkeypatch.setattr(client_socket, "UNANSWERED", 4)

    async def body() -> None:
        async with serving(place / "s") as echo:
            echo.silent = True
            reader, writer = await asyncio.open_unix_connection(place / "s")
            for number in range(20):
                call = Lock("games", f"r{number}", cached=number % 2 == 0, notices=True)
                writer.write(encode(Request(str(number), call)))
                await until(lambda: len(echo.asked_of) == number + 1)  # noqa: B023
                echo.server.send(1, Reply(str(number), result={"lock": number}, final=False))
            for number in range(4):  # the same of those that wait is too much
                writer.write(encode(Request(f"w{number}", Lock("games", "chess", notices=True))))
            writer.write(encode(Request("more", Lock("games", "chess"))))
            for number, call in enumerate((Unlock(1), Unlock(2, quiet=True), Cancel("w1"), Busy(4))):
                writer.write(encode(Request(f"let {number} go", call)))
            await until(lambda: len(echo.asked_of) == 28)
            assert [type(request.call) for _, request, _ in echo.asked_of[24:]] == [
                Unlock, Unlock, Cancel, Busy,
            ]  # fmt: skip
            replies = [json.loads(await reader.readline()) for _ in range(21)]
            assert [reply["id"] for reply in replies if "error" in reply] == ["more"]
            writer.close()

    run(body())


def test_a_client_that_caches_and_dies_while_it_owes_us_reading_is_gone(place: Path) -> None:
    async def body() -> None:
        async with serving(place / "s") as echo:
            client = socket.socket(socket.AF_UNIX)
            client.connect(os.fspath(place / "s"))
            client.sendall(encode(Request("1", Lock("games", "chess", cached=True))))
            await until(lambda: len(echo.asked_of) == 1)
            for _ in range(12):
                echo.server.send(1, Reply("1", result="x" * 1_000_000, final=False))
            client.close()
            await until(lambda: echo.gone == [1])

    run(body())


def test_a_slow_reader_gets_everything(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_socket, "STALL_S", 0.3)

    async def body() -> None:
        async with serving(place / "s") as echo:
            reader, writer = await asyncio.open_unix_connection(place / "s", limit=1 << 16)
            await until(lambda: bool(echo.server.clients))
            total = 0
            for _ in range(30):
                echo.server.send(1, Reply("", result="x" * 100_000, final=False))
                total += len(b'{"id":"","result":"","final":false}\n') + 100_000
            got = 0
            while got < total:
                await asyncio.sleep(0.01)
                part = await reader.read(1 << 15)
                assert part, "dropped though it reads"
                got += len(part)
            assert not echo.gone
            writer.close()

    run(body())


def test_one_reply_may_be_longer_than_what_may_stay_unread(place: Path) -> None:
    """The locks of a VG with 20,000 LVs are; but nothing more comes before it is read."""

    async def body() -> None:
        async with serving(place / "s") as echo:
            reader, writer = await asyncio.open_unix_connection(place / "s", limit=1 << 26)
            await until(lambda: bool(echo.server.clients))
            long = "x" * (3 * client_socket.UNSENT_BYTES)
            assert echo.server.send(1, Reply("a", result=long))
            assert len(await reader.readline()) > len(long)
            assert echo.server.send(1, Reply("b", result=long))
            assert not echo.server.send(1, Reply("c"))
            writer.close()

    run(body())


# -- answers that wait for the end of a turn ---------------------------------------------------


@contextlib.asynccontextmanager
async def connected(echo: Echo, path: Path, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many clients, numbered from 1."""
    ends = []
    for number in range(1, count + 1):
        ends.append(await asyncio.open_unix_connection(path))
        await until(lambda: number in echo.server.clients)  # noqa: B023
    yield [reader for reader, _ in ends]
    for _, writer in ends:
        writer.close()


async def ids(reader: asyncio.StreamReader, count: int) -> list[str]:
    async with asyncio.timeout(60):
        return [json.loads(await reader.readline())["id"] for _ in range(count)]


def test_what_is_answered_in_one_turn_comes_in_order_with_one_write_for_each_client(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the very first answer, which is written at once."""
    writes: list[int] = []
    kept = client_socket._Connection._write

    def write(self: client_socket._Connection, lines: bytes) -> None:
        writes.append(self._client)
        kept(self, lines)

    monkeypatch.setattr(client_socket._Connection, "_write", write)

    async def body() -> None:
        async with serving(place / "s") as echo, connected(echo, place / "s", 3) as readers:
            for turn in range(3):
                del writes[:]
                for number in range(12):
                    assert echo.server.send(number % 3 + 1, Reply(f"{turn}-{number}"))
                assert writes == [1]
                for first, reader in enumerate(readers):
                    assert await ids(reader, 4) == [f"{turn}-{number}" for number in range(first, 12, 3)]
                assert writes == [1, 2, 3, 1]

    run(body())


def test_an_answer_does_not_overtake_one_that_waits(place: Path) -> None:
    """Each turn begins with an answer that is written at once, to whom one of the turn before is owed."""

    async def body() -> None:
        async with serving(place / "s") as echo, connected(echo, place / "s", 2) as readers:
            for number in range(50):
                echo.server.send(number % 2 + 1, Reply(f"{number}a"))
                echo.server.send((number + 1) % 2 + 1, Reply(f"{number}b"))
                await asyncio.sleep(0)
            for client, reader in enumerate(readers):
                wanted = [f"{number}{'a' if number % 2 == client else 'b'}" for number in range(50)]
                assert await ids(reader, 50) == wanted

    run(body())


@pytest.mark.parametrize("how", ["refused", "closed"])
def test_the_end_of_a_connection_loses_no_answer_that_waits(place: Path, how: str) -> None:
    async def body() -> None:
        async with serving(place / "s") as echo:
            reader, writer = await asyncio.open_unix_connection(place / "s")
            await until(lambda: bool(echo.server.clients))
            if how == "refused":
                writer.write(status("a") + status("b") + status("c") + b"noise\n")
            else:
                for id in "abc":
                    echo.server.send(1, Reply(id))
                await echo.server.close()
            async with asyncio.timeout(60):
                told = [json.loads(line)["id"] for line in (await reader.read()).splitlines()]
            assert told == ["a", "b", "c"] + [""] * (how == "refused")
            writer.close()

    run(body())


def test_what_waits_counts_as_unread(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_socket, "UNSENT_BYTES", 10_000)

    async def body() -> None:
        async with serving(place / "s") as echo, connected(echo, place / "s", 2) as (other, reader):
            for turn in range(4):  # what was written counts no more
                echo.server.send(1, Reply("first"))
                for number in range(5):
                    assert echo.server.send(2, Reply(str(number), result="x" * 1000))
                assert (await ids(other, 1), len(await ids(reader, 5))) == (["first"], 5), turn
            echo.server.send(1, Reply("first"))
            sent = [echo.server.send(2, Reply(str(number), result="x" * 1000)) for number in range(20)]
            assert sent == [True] * 10 + [False] * 10
            await until(lambda: echo.gone == [2])
            assert await ids(other, 1) == ["first"]

    run(body())


@pytest.mark.parametrize("how", ["dropped", "closed"])
def test_one_that_is_gone_before_its_turn_is_over_harms_nobody(place: Path, how: str) -> None:
    async def body() -> None:
        failed: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
        async with serving(place / "s") as echo, connected(echo, place / "s", 2) as readers:
            gone = socket.socket(socket.AF_UNIX)
            gone.connect(os.fspath(place / "s"))
            await until(lambda: 3 in echo.server.clients)
            for client in (1, 3, 2, 3):
                assert echo.server.send(client, Reply("x"))
            if how == "dropped":
                echo.server.drop(3)
            gone.close()
            for reader in readers:
                assert await ids(reader, 1) == ["x"]
            await until(lambda: echo.gone == [3])
            assert not echo.server.send(3, Reply("y"))
        assert failed == []

    run(body())


def test_at_its_limit_a_client_can_still_let_go(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_socket, "UNANSWERED", 2)

    async def body() -> None:
        async with serving(place / "s") as echo:
            echo.silent = True
            reader, writer = await asyncio.open_unix_connection(place / "s")
            for number in range(3):
                writer.write(encode(Request(str(number), Lock("games", f"r{number}", notices=True))))
            refused = json.loads(await reader.readline())
            assert (refused["id"], refused["error"]["code"]) == ("2", "refused")
            for number, call in enumerate((Unlock(7, quiet=True), Busy(7), Cancel("1"), Unlock(7))):
                writer.write(encode(Request(f"let go {number}", call)))
            await until(lambda: len(echo.asked_of) == 6)
            writer.close()

    run(body())


def test_the_socket_is_never_open_to_the_world(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen at the instant after bind, under the loosest umask."""
    modes: list[int] = []
    real = socket.socket.bind

    class Spy(socket.socket):
        def bind(self, address: Any) -> None:
            real(self, address)
            modes.append(stat.S_IMODE(os.stat(address).st_mode))

    async def body() -> None:
        old = os.umask(0)
        try:
            monkeypatch.setattr(client_socket.socket, "socket", Spy)
            async with serving(place / "s", group="daemon"):
                monkeypatch.undo()
                assert modes == [0o600]
                seen = os.stat(place / "s")
                assert stat.S_IMODE(seen.st_mode) == 0o660
                assert seen.st_gid == 1  # Debian: daemon
        finally:
            os.umask(old)
        assert not (place / "s").exists()

    run(body())


def test_a_stale_socket_is_replaced(place: Path) -> None:
    async def body() -> None:
        old = socket.socket(socket.AF_UNIX)
        old.bind(os.fspath(place / "s"))
        old.listen()
        old.close()
        async with serving(place / "s"):
            reader, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(status("a"))
            assert json.loads(await reader.readline())["id"] == "a"
            writer.close()

    run(body())


def test_whoever_listens_already_is_named_and_left_alone(place: Path) -> None:
    """Once by our own lock, once by a stranger that knows no lock."""

    async def body() -> None:
        async with serving(place / "s"):
            with pytest.raises(Refused, match=rf"already running on {place}/s, pid {os.getpid()}"):
                await Echo(place / "s").server.start()
            assert (place / "s").exists()
        code = (
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
            "print('up', flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, os.fspath(place / "t")]
        with subprocess.Popen(  # noqa: ASYNC220
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as stranger:
            assert stranger.stdout is not None
            assert stranger.stdout.readline() == b"up\n"
            with pytest.raises(Refused, match=f"already running on {place}/t, pid {stranger.pid}"):
                await Echo(place / "t").server.start()
            assert stranger.stdin is not None
            stranger.stdin.close()

    run(body())


def test_bad_places_are_one_clear_line(place: Path) -> None:
    async def body() -> None:
        with pytest.raises(ConfigError, match="too long"):
            await Echo(place / ("x" * 100)).server.start()
        with pytest.raises(ConfigError, match="no group 'nobody-has-this'"):
            await Echo(place / "s", group="nobody-has-this").server.start()
        (place / "file").write_text("precious")
        with pytest.raises(Refused, match="in the way"):
            await Echo(place / "file").server.start()
        assert (place / "file").read_text() == "precious"
        with pytest.raises(Exception, match="cannot make socket"):
            await Echo(place / "absent" / "s").server.start()

    run(body())


def test_five_hundred_clients_at_once(place: Path) -> None:
    async def body() -> None:
        async with serving(place / "s") as echo:

            async def one(number: int) -> str:
                reader, writer = await asyncio.open_unix_connection(place / "s")
                writer.write(status(f"r{number}"))
                reply = json.loads(await reader.readline())
                await until(lambda: len(echo.server.clients) == 300)
                writer.close()
                return str(reply["id"])

            # Both ends are in this process: 300 pairs stay under the usual 1024 descriptors.
            ids = await asyncio.gather(*(one(number) for number in range(300)))
            assert ids == [f"r{number}" for number in range(300)]
            await until(lambda: len(echo.gone) == 300)

    run(body())


@pytest.mark.parametrize(("soft", "most"), [(64, 32), (300, 150), (1024, 768), (8192, 2000), (-1, 2000)])
def test_a_low_limit_of_open_files_leaves_some_to_the_daemon(
    place: Path, monkeypatch: pytest.MonkeyPatch, soft: int, most: int
) -> None:
    """Without one to keep its state with it ends, and without one for a fence agent it proves nothing."""
    monkeypatch.setattr(resource, "getrlimit", lambda what: (soft, -1))
    assert client_socket.most_connections() == most

    async def body() -> None:
        async with serving(place / "s") as echo:
            streams = [await asyncio.open_unix_connection(place / "s") for _ in range(most)]
            await until(lambda: len(echo.server.clients) == most)
            refused, last = await asyncio.open_unix_connection(place / "s")
            assert "too many clients" in json.loads(await refused.readline())["error"]["message"]
            for _, writer in [*streams, (refused, last)]:
                writer.close()

    if most < 200:  # both ends are in this process
        run(body())


def test_the_unit_allows_for_all_clients_and_the_daemon_s_own_files() -> None:
    """Without a file descriptor to keep its state with, a daemon ends."""
    unit = Path(__file__).parents[2] / "packaging" / "systemd" / "ringfence.service"
    limit = next(line for line in unit.read_text().splitlines() if line.startswith("LimitNOFILE="))
    assert int(limit.partition("=")[2]) >= 2 * client_socket.CONNECTIONS
