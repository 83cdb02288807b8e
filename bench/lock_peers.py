"""Lock services that a program might use instead: their servers, started here and ended here, and one
small client each.

A server is a process (or a lab) under a scratch directory, on Unix sockets or free ports of the loopback
interface, with the package's defaults but for where its files lie.  A client locks and unlocks by name."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from lock_relay import Relay, relay

START_S = 60.0
END_S = 20.0


class Client(Protocol):
    def lock(self, name: str) -> None: ...

    def unlock(self, name: str) -> None: ...


class Missing(Exception):
    """This peer cannot be had here; why."""


# -- ringfence ---------------------------------------------------------------------------


class Ringfence:
    """Args: where: {"sockets": [a node's, another's]}.  node: which of them."""

    def __init__(self, where: dict[str, Any], node: int, cached: bool = False) -> None:
        from ringfence.client import connect

        sockets = where["sockets"]
        self._ring = connect(sockets[node % len(sockets)])
        self._space = self._ring.lockspace("bench")
        self._cached = cached
        self._held: dict[str, Any] = {}

    def lock(self, name: str) -> None:
        self._held[name] = self._space.lock(name, cached=self._cached)

    def unlock(self, name: str) -> None:
        self._held.pop(name).unlock()


def cached(where: dict[str, Any], node: int) -> Client:
    return Ringfence(where, node, cached=True)


def on_hub(directory: Path) -> contextlib.AbstractContextManager[dict[str, Any]]:
    """A lab of two hosts on the hub ring."""
    return _lab(directory)


def on_corosync(directory: Path) -> contextlib.AbstractContextManager[dict[str, Any]]:
    """The same on corosync (knet), each host in a network namespace of its own; needs root."""
    return _lab(directory, "corosync")


@contextlib.contextmanager
def _lab(directory: Path, ring: str = "hub") -> Iterator[dict[str, Any]]:
    from ringfence.core.errors import Refused, Unavailable
    from ringfence.lab.cluster import Lab
    from ringfence.lab.layout import Ring

    try:
        lab = Lab.up(directory / "lab", 2, 64 << 20, ring=Ring(ring))
    except (Refused, Unavailable) as error:
        raise Missing(str(error)) from None
    try:
        yield {"sockets": [str(lab.socket(node)) for node in lab.nodes]}
    finally:
        lab.down()


# -- Redis -------------------------------------------------------------------------------


class Redis:
    """redis-py's `Lock`, as it comes: it polls every 100 ms."""

    def __init__(self, where: dict[str, Any], node: int) -> None:
        import redis

        self._redis = redis.Redis(unix_socket_path=where["socket"])
        self._held: dict[str, Any] = {}

    def lock(self, name: str) -> None:
        held = self._held[name] = self._redis.lock(name, timeout=60)
        held.acquire()

    def unlock(self, name: str) -> None:
        self._held.pop(name).release()


@contextlib.contextmanager
def redis(directory: Path) -> Iterator[dict[str, Any]]:
    path = directory / "socket"
    words = ["--port", "0", "--unixsocket", str(path), "--dir", str(directory)]
    words += ["--save", "", "--appendonly", "no"]
    with _server(_program("redis-server"), *words, log=directory / "log"):
        _until(lambda: _accepts(path), "redis-server")
        yield {"socket": str(path)}


# -- PostgreSQL ----------------------------------------------------------------------------


class Postgres:
    """Session-level advisory locks, prepared statements, Unix socket."""

    def __init__(self, where: dict[str, Any], node: int) -> None:
        import psycopg

        self._db = psycopg.connect(host=where["host"], dbname="postgres", user=where["user"], autocommit=True)

    def lock(self, name: str) -> None:
        self._db.execute("select pg_advisory_lock(%s)", (_number(name),), prepare=True)

    def unlock(self, name: str) -> None:
        self._db.execute("select pg_advisory_unlock(%s)", (_number(name),), prepare=True)


@contextlib.contextmanager
def postgres(directory: Path) -> Iterator[dict[str, Any]]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise Missing("no /usr/lib/postgresql")
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name  # it refuses to run as root
    if os.getuid() == 0:
        shutil.chown(directory, user)
    bin, data = found[-1].parent, directory / "data"
    as_user: dict[str, Any] = {"user": user, "group": user} if os.getuid() == 0 else {}
    subprocess.run(
        [bin / "initdb", "--auth=trust", "-D", data], check=True, capture_output=True, cwd=directory,
        extra_groups=[] if as_user else None, **as_user,
    )  # fmt: skip
    words = ["-D", str(data), "-c", "listen_addresses=", "-c", f"unix_socket_directories={directory}"]
    more = ["-c", "max_connections=200"]
    with _server(str(bin / "postgres"), *words, *more, log=directory / "log", end=signal.SIGINT, **as_user):
        _until(lambda: _accepts(directory / ".s.PGSQL.5432"), "postgres")
        yield {"host": str(directory), "user": user}


def _number(name: str) -> int:
    return int.from_bytes(name.encode()[-7:], "big")


# -- etcd ------------------------------------------------------------------------------------


class Etcd:
    """Its lock API over gRPC, under one lease a client; the few messages are written by hand."""

    def __init__(self, where: dict[str, Any], node: int) -> None:
        import grpc

        channel = grpc.insecure_channel(f"127.0.0.1:{where['port']}")
        self._lock = channel.unary_unary("/v3lockpb.Lock/Lock")
        self._unlock = channel.unary_unary("/v3lockpb.Lock/Unlock")
        grant = channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")
        self._lease = _fields(grant(b"\x08" + _varint(3600)))[2]
        self._held: dict[str, Any] = {}

    def lock(self, name: str) -> None:
        encoded = name.encode()
        request = b"\x0a" + _varint(len(encoded)) + encoded + b"\x10" + _varint(self._lease)
        self._held[name] = _fields(self._lock(request))[2]

    def unlock(self, name: str) -> None:
        key = self._held.pop(name)
        self._unlock(b"\x0a" + _varint(len(key)) + key)


@contextlib.contextmanager
def etcd(directory: Path) -> Iterator[dict[str, Any]]:
    port, peer = _free_port(), _free_port()
    here, there = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    words = [
        "--data-dir", str(directory / "data"), "--name", "one", "--initial-cluster", f"one={there}",
        "--listen-client-urls", here, "--advertise-client-urls", here,
        "--listen-peer-urls", there, "--initial-advertise-peer-urls", there,
    ]  # fmt: skip
    with _server(_program("etcd"), *words, log=directory / "log"):
        _until(lambda: _accepts(port), "etcd")
        yield {"port": port}


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def _fields(message: bytes) -> dict[int, Any]:
    """A protobuf message's top-level fields: integers and bytes."""
    found: dict[int, Any] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = number()
        if key & 7 == 0:
            found[key >> 3] = number()
        else:
            size = number()
            found[key >> 3], at = message[at : at + size], at + size
    return found


# -- ZooKeeper ---------------------------------------------------------------------------------


class Zookeeper:
    """kazoo's `Lock` recipe."""

    def __init__(self, where: dict[str, Any], node: int) -> None:
        from kazoo.client import KazooClient

        self._zk = KazooClient(hosts=f"127.0.0.1:{where['port']}", timeout=60)
        self._zk.start(timeout=30)
        self._locks: dict[str, Any] = {}

    def lock(self, name: str) -> None:
        if name not in self._locks:
            self._locks[name] = self._zk.Lock(f"/bench/{name}")
        self._locks[name].acquire()

    def unlock(self, name: str) -> None:
        self._locks[name].release()


@contextlib.contextmanager
def zookeeper(directory: Path) -> Iterator[dict[str, Any]]:
    if not Path("/usr/share/java/zookeeper.jar").exists():
        raise Missing("no /usr/share/java/zookeeper.jar")
    port = _free_port()
    config = directory / "zoo.cfg"
    config.write_text(
        f"tickTime=2000\ndataDir={directory / 'data'}\nclientPort={port}\nclientPortAddress=127.0.0.1\n"
        "admin.enableServer=false\nmaxClientCnxns=200\nmaxSessionTimeout=120000\n"
    )
    main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
    words = ["-cp", "/usr/share/java/zookeeper.jar:/etc/zookeeper/conf", main, str(config)]
    with _server(_program("java"), *words, log=directory / "log"):
        _until(lambda: _accepts(port), "zookeeper")
        yield {"port": port}


# -- sanlock -----------------------------------------------------------------------------------


class Sanlock:
    """Disk leases in a file; a lease that is held is tried again every millisecond."""

    def __init__(self, where: dict[str, Any], node: int) -> None:
        os.environ.update(where["environment"])
        self._sanlock = _sanlock_module()
        self._file = where["file"]
        self._process = self._sanlock.register()

    def lock(self, name: str) -> None:
        while True:
            with contextlib.suppress(self._sanlock.SanlockException):
                self._sanlock.acquire(b"bench", name.encode(), self._place(name), slkfd=self._process)
                return
            time.sleep(0.001)

    def unlock(self, name: str) -> None:
        self._sanlock.release(b"bench", name.encode(), self._place(name), slkfd=self._process)

    def _place(self, name: str) -> list[tuple[str, int]]:
        return [(self._file, (1 + LEASES.index(name)) << 20)]


LEASES = ["uncontended", "directed", "contended", *(f"own-{p}-{t}" for p in range(8) for t in range(8))]


@contextlib.contextmanager
def sanlock(directory: Path) -> Iterator[dict[str, Any]]:
    """Its daemon without a watchdog: to join its lockspace takes 20 s."""
    program, module = _program("sanlock"), _sanlock_module()
    environment = {"SANLOCK_RUN_DIR": str(directory), "SANLOCK_PRIVILEGED": "0"}
    os.environ.update(environment)
    file = directory / "leases"
    with file.open("wb") as leases:
        leases.truncate((1 + len(LEASES)) << 20)
    words = ["daemon", "-D", "-w", "0", "-h", "0", "-l", "0"]
    with _server(program, *words, log=directory / "log"):
        _until(lambda: _accepts(directory / "sanlock.sock"), "sanlock")
        module.write_lockspace(b"bench", str(file))
        for number, name in enumerate(LEASES, 1):
            module.write_resource(b"bench", name.encode(), [(str(file), number << 20)])
        module.add_lockspace(b"bench", 1, str(file))
        yield {"environment": environment, "file": str(file)}


def _sanlock_module() -> Any:
    """Debian's, which belongs to Debian's interpreter: it serves another one of the same version."""
    found = sorted(Path("/usr/lib/python3/dist-packages").glob("sanlock.*.so"))
    tag = f".cpython-{sys.version_info.major}{sys.version_info.minor}-"
    for path in found:
        if tag in path.name:
            spec = importlib.util.spec_from_file_location("sanlock", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise Missing("no python3-sanlock for this interpreter")


# -- processes -----------------------------------------------------------------------------------

SERVERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[dict[str, Any]]]] = {
    "ringfence": on_hub,
    "ringfence corosync": on_corosync,
    "redis": redis,
    "postgresql": postgres,
    "etcd": etcd,
    "zookeeper": zookeeper,
    "sanlock": sanlock,
    "relay": relay,
}
CLIENTS: dict[str, Callable[[dict[str, Any], int], Client]] = {
    "ringfence": Ringfence,
    "ringfence corosync": Ringfence,
    "ringfence cached": cached,
    "redis": Redis,
    "postgresql": Postgres,
    "etcd": Etcd,
    "zookeeper": Zookeeper,
    "sanlock": Sanlock,
    "relay": Relay,
}


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise Missing(f"no {name}")
    return found


@contextlib.contextmanager
def _server(*words: str, log: Path, end: int = signal.SIGTERM, **more: Any) -> Iterator[None]:
    if more:
        more["extra_groups"] = []
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=log.parent,
            start_new_session=True, **more,
        )  # fmt: skip
    try:
        yield
        if process.poll() is not None:
            raise Missing(f"{words[0]} ended: {log.read_text()[-300:]}")
    finally:
        process.send_signal(end)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _until(true: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + START_S
    while not true():
        if time.monotonic() > give_up:
            raise Missing(f"{what} does not come up")
        time.sleep(0.05)


def _accepts(where: int | Path) -> bool:
    family, address = (
        (socket.AF_INET, ("127.0.0.1", where)) if isinstance(where, int) else (socket.AF_UNIX, str(where))
    )
    with socket.socket(family) as probe:
        try:
            probe.connect(address)
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
