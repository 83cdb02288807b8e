"""lvmlockd's socket on a real Unix socket, spoken to as LVM2 does and as it never would."""

import asyncio
import contextlib
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from ringfence.core.errors import ConfigError, Refused, Unavailable
from ringfence.host.processes import process
from ringfence.lvm2.lockd_text import END, parse_fields
from ringfence.servers import lvmlockd_socket
from ringfence.servers.lvmlockd_socket import FIRST_CLIENT, FRAME_BYTES, LvmSocket
from ringfence.wire.lvmlockd import LvmAnswered, LvmAsked

HELLO = b'request = "hello"\n' + END
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def lock(lv: str) -> bytes:
    lines = ['request="lock_lv"', 'cmd ="lvchange"', "pid =1", 'mode ="ex"', 'opts ="persistent"']
    return "\n".join([*lines, f'lv_name ="{lv}"', ""]).encode() + END


@pytest.fixture
def place() -> Iterator[Path]:
    where = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
    yield where
    shutil.rmtree(where)


class Server:
    """Answers every request with 0, unless told to be silent."""

    def __init__(self, path: Path) -> None:
        self.socket = LvmSocket(path, path.with_suffix(".pid"), self)
        self.requests: list[tuple[int, LvmAsked]] = []
        self.gone: list[tuple[int, bool]] = []
        self.hung_up: list[int] = []
        self.said: list[str] = []
        self.silent = False

    def lvm_asked(self, client: int, asked: LvmAsked) -> None:
        self.requests.append((client, asked))
        if not self.silent:
            self.socket.send(client, LvmAnswered(asked.op))

    def lvm_gone(self, client: int, unread: bool, hung_up: bool) -> None:
        self.gone.append((client, unread))
        self.hung_up += [client] * hung_up

    def lvm_said(self, what: str) -> None:
        self.said.append(what)


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Server]:
    server = Server(path)
    await server.socket.start()
    try:
        yield server
    finally:
        await server.socket.close()


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    def whole(body: Awaitable[None]) -> None:
        async def main() -> None:
            async with asyncio.timeout(60):
                await body

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(main())

    return whole


Run = Callable[[Awaitable[None]], None]


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - what is awaited lies in a callback
        await asyncio.sleep(0.002)


async def reply(reader: asyncio.StreamReader) -> dict[str, str]:
    return parse_fields((await reader.readuntil(END)).removesuffix(END))


def connect(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(os.fspath(path))
    return peer


def test_hello_and_a_request_with_the_kernels_word_on_who_asks(place: Path, run: Run) -> None:
    async def body() -> None:
        async with serving(place / "s") as server:
            reader, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(HELLO)
            told = {"response": "OK", "result": "0", "protocol": "lvmlockd", "version": "1"}
            assert await reply(reader) == told
            writer.write(lock("vm1"))
            told = await reply(reader)
            assert (told["op_result"], told["lm_result"], told["result_flags"]) == ("0", "0", "none")
            ((client, asked),) = server.requests
            assert client > FIRST_CLIENT
            me = process(os.getpid())
            assert me is not None
            assert (asked.pid, asked.started) == (os.getpid(), me.start), "not the pid that it names"
            assert (asked.op, asked.mode, asked.opts) == ("lock_lv", "ex", ("persistent",))
            assert asked.lv_name == "vm1"
            writer.close()
            await until(lambda: server.gone == [(client, False)])

    run(body())


def test_a_request_is_handed_on_when_the_one_before_was_answered(place: Path, run: Run) -> None:
    async def body() -> None:
        async with serving(place / "s") as server:
            server.silent = True
            reader, writer = await asyncio.open_unix_connection(place / "s")
            frames = HELLO + lock("a") + lock("b") + lock("c")
            for at in range(0, len(frames), 7):
                writer.write(frames[at : at + 7])
                await writer.drain()
            await reply(reader)
            for number, name in enumerate("abc", 1):
                await until(lambda number=number: len(server.requests) == number)
                assert server.requests[-1][1].lv_name == name
                await asyncio.sleep(0.01)
                assert len(server.requests) == number, "the next one waits for this one's answer"
                server.socket.send(server.requests[-1][0], LvmAnswered("lock_lv"))
                await reply(reader)
            writer.close()

    run(body())


@pytest.mark.parametrize("at", range(1, 8))
def test_a_request_may_come_in_two_pieces(place: Path, run: Run, at: int) -> None:
    async def body() -> None:
        async with serving(place / "s") as server:
            reader, writer = await asyncio.open_unix_connection(place / "s")
            frame = lock("vm1")
            writer.write(frame[:at])
            await until(lambda: server.socket.connections != {})
            (connection,) = server.socket.connections.values()
            await until(lambda: len(connection._received) == at or bool(server.said))
            writer.write(frame[at:])
            assert (await reply(reader))["op_result"] == "0"
            writer.close()

    run(body())


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\n\r\n" + END,
        b"\0" * 500 + END,
        b"lock = " + END,
        END,
        b'request = "' + b"x" * (FRAME_BYTES + 1),
        b'request="lock_lv"\n' * (10 * 1024 * 1024 // 18),
    ],
    ids=["http", "zeros", "no value", "nothing", "long line", "10 MB"],
)
def test_garbage_costs_only_who_sent_it(place: Path, run: Run, noise: bytes) -> None:
    async def body() -> None:
        async with serving(place / "s") as server:
            reader, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(HELLO)
            await reply(reader)
            bad_reader, bad_writer = await asyncio.open_unix_connection(place / "s")
            bad_writer.write(noise)
            with contextlib.suppress(ConnectionError):
                assert await bad_reader.read() == b""
            await until(lambda: len(server.socket.connections) == 1)
            assert not server.requests
            assert not server.gone, "it has asked nothing"
            assert len(server.said) == 1
            assert f"the connection of process {os.getpid()} is ended: " in server.said[0]
            writer.write(lock("vm1"))
            assert (await reply(reader))["op_result"] == "0"
            for one in (writer, bad_writer):
                one.close()

    run(body())


def test_a_peer_that_is_hung_up_on_may_run_on(place: Path, run: Run) -> None:
    async def body() -> None:
        async with serving(place / "s") as server:
            reader, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(lock("vm1"))
            await reply(reader)
            writer.write(b"garbage" + END)
            client = server.requests[0][0]
            await until(lambda: server.hung_up == [client])
            writer.close()

    run(body())


def test_a_half_frame_is_no_request(place: Path, run: Run) -> None:
    async def body() -> None:
        async with serving(place / "s") as server:
            _, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(HELLO + lock("vm1")[:-2])
            await writer.drain()
            writer.close()
            await until(lambda: not server.socket.connections)
            assert (server.requests, server.gone) == ([], [])

    run(body())


def test_five_hundred_connections_and_the_one_too_many(place: Path, run: Run) -> None:
    async def body() -> None:
        async with serving(place / "s") as server:
            server.socket.most = 500
            peers = [await asyncio.open_unix_connection(place / "s") for _ in range(500)]
            for _, writer in peers:
                writer.write(HELLO + lock("vm1"))
            for reader, _ in peers:
                await reply(reader)
                await reply(reader)
            reader, writer = await asyncio.open_unix_connection(place / "s")
            assert await reader.read() == b"", "one more is closed at once"
            writer.close()
            for _, writer in peers:
                writer.close()
            await until(lambda: len(server.gone) == 500)

    run(body())


def test_a_peer_that_asks_and_never_reads_is_dropped(place: Path, run: Run) -> None:
    async def body() -> None:
        async with serving(place / "s") as server:
            _, good = await asyncio.open_unix_connection(place / "s")
            peer = connect(place / "s")
            peer.setblocking(False)
            with pytest.raises(ConnectionError):
                await asyncio.get_running_loop().sock_sendall(peer, HELLO * 1_000_000)
            peer.close()
            await until(lambda: len(server.socket.connections) == 1)
            good.close()

    run(body())


def test_a_reply_that_was_not_read_is_known(place: Path, run: Run) -> None:
    """What Linux does when a peer closes over unread bytes, in both loops; the reason for `unread`."""

    async def body() -> None:
        async with serving(place / "s") as server:
            loop = asyncio.get_running_loop()
            for read, unread in ((0, True), (40, True), (4096, False)):
                peer = connect(place / "s")
                peer.setblocking(False)
                before = len(server.requests)
                await loop.sock_sendall(peer, lock("vm1"))
                await until(lambda before=before: len(server.requests) == before + 1)
                await asyncio.sleep(0.01)
                if read:
                    await loop.sock_recv(peer, read)
                peer.close()
                client = server.requests[-1][0]
                await until(lambda client=client: any(one == client for one, _ in server.gone))
                assert server.gone[-1] == (client, unread), f"it has read {read} bytes"

    run(body())


def test_a_peer_that_dies_while_it_waits_has_read_nothing(place: Path, run: Run) -> None:
    async def body() -> None:
        async with serving(place / "s") as server:
            server.silent = True
            peer = connect(place / "s")
            await asyncio.get_running_loop().run_in_executor(None, peer.sendall, lock("vm1"))
            await until(lambda: bool(server.requests))
            peer.close()
            client = server.requests[0][0]
            await until(lambda: server.gone == [(client, True)])
            server.socket.send(client, LvmAnswered("lock_lv"))  # the answer crosses the end, and is dropped

    run(body())


def test_info_goes_to_whoever_listens_for_it(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lvmlockd_socket, "DUMP_SOCKET", f"\0rf-dump-{os.getpid()}")
    dump = os.urandom(200_000)

    async def body() -> None:
        async with serving(place / "s") as server:
            server.silent = True
            ctl = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            ctl.bind(lvmlockd_socket.DUMP_SOCKET)
            ctl.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(place / "s")
            writer.write(b'request = "info"\n' + END)
            await until(lambda: bool(server.requests))
            server.socket.send(server.requests[0][0], LvmAnswered("info", dump=dump))
            assert await reply(reader) == {"response": "OK", "result": "0", "dump_len": "200000"}
            got = b""
            while len(got) < len(dump):
                got += await asyncio.get_running_loop().sock_recv(ctl, 1 << 20)
            assert got == dump
            ctl.close()
            writer.close()

    run(body())


def test_only_root_may_connect_and_the_directory_is_made(place: Path, run: Run) -> None:
    async def body() -> None:
        path = place / "run/lvm/s"
        async with serving(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert not path.exists()

    run(body())


def test_a_socket_that_somebody_listens_on_is_not_taken(place: Path, run: Run) -> None:
    async def body() -> None:
        other = socket.socket(socket.AF_UNIX)
        other.bind(os.fspath(place / "s"))
        other.listen()
        second = Server(place / "s").socket
        with pytest.raises(Refused, match=rf"lvmlockd is already running on {place}/s, pid {os.getpid()}"):
            await second.start()
        await second.close()
        assert (place / "s").exists(), "the other's stays"
        other.close()

    run(body())


def test_a_place_that_cannot_be_is_an_error_of_one_line(place: Path, run: Run) -> None:
    async def start(path: Path) -> None:
        await Server(path).socket.start()

    async def body() -> None:
        (place / "file").write_text("")
        with pytest.raises(Unavailable, match="cannot make"):
            await start(place / "file/s")
        with pytest.raises(ConfigError, match="too long"):
            await start(place / ("x" * 120))

    run(body())


def test_the_pid_file_is_there_while_somebody_listens(place: Path, run: Run) -> None:
    async def body() -> None:
        file = place / "s.pid"
        async with serving(place / "s"):
            assert not any(word.isdecimal() for word in file.read_text().split()), "others end what it names"
        assert not file.exists()

    run(body())


def test_a_lvmlockd_of_lvm2s_own_does_not_start_beside_it(place: Path, run: Run) -> None:
    """It would take the pid file along when it ends."""
    words = ["lvmlockd", "-T", "-f", "-g", "dlm", "-s", str(place / "other"), "-p", str(place / "s.pid")]

    async def body() -> None:
        async with serving(place / "s"):
            stock = await asyncio.create_subprocess_exec(*words)
            try:
                assert await stock.wait() != 0
            finally:
                if stock.returncode is None:
                    stock.kill()
            assert (place / "s.pid").exists()

    run(body())


def test_it_does_not_start_beside_a_lvmlockd_of_lvm2s_own(place: Path, run: Run) -> None:
    words = ["lvmlockd", "-T", "-f", "-g", "dlm", "-s", str(place / "other"), "-p", str(place / "s.pid")]

    async def body() -> None:
        stock = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
        assert stock.stderr is not None
        try:
            assert b"creating" in await stock.stderr.readline()  # its socket: it has its pid file by then
            with pytest.raises(Unavailable, match="lvmlockd runs here"):
                async with serving(place / "s"):
                    pass
        finally:
            stock.kill()
            await stock.wait()

    run(body())
