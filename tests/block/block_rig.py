"""A block service with its own root, a disk image and authority pages; everything it started ends with it."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ringfence.block.control import BlockService
from ringfence.block.service import Places
from ringfence.core.ids import Token
from ringfence.engine.orders import OpenPath
from ringfence.host.clock import boottime_ns
from ringfence.host.pages import UNCHECKED_NS, Pages
from ringfence.lab.nbd_client import NbdClient
from ringfence.wire import block as wire
from ringfence.wire.block import Extent
from ringfence.wire.entries import Incident

T = TypeVar("T")
MIB = 1 << 20
FOREVER_NS = UNCHECKED_NS - 1
"""A deadline that does not pass in a test, yet is checked as any other."""

NO_FASTPATH = "import ringfence.block.fastpath as fastpath; fastpath.LIBRARY = '/nowhere'"


class Rig:
    """
    Args:
        preloaded: between.c, built.  A worker stops itself (SIGSTOP) between the check and the write, once,
            when `freeze_next_write` was called; its writes wait there while they are held by `held_writes`.
            Nothing of this is in the worker's own code.
        plain: it has no `fastpath`.
    """

    def __init__(self, preloaded: Path | None = None, plain: bool = False) -> None:
        self.root = Path(tempfile.mkdtemp(dir="/tmp", prefix="rf"))
        self.image = self.root / "img"
        self.image.write_bytes(bytes(64 * MIB))
        self.places = Places.under(self.root)
        self.pages = Pages(self.places.run / "authority")
        self.env = dict(os.environ)
        self.processes: list[subprocess.Popen[bytes]] = []
        if preloaded is not None:
            self.between = self.root / "between"
            self.between.mkdir()
            self.env["LD_PRELOAD"], self.env["RF_BETWEEN"] = str(preloaded), str(self.between)
        if plain:
            (self.root / "site").mkdir()
            (self.root / "site/sitecustomize.py").write_text(NO_FASTPATH)
            self.env["PYTHONPATH"] = str(self.root / "site")
        self.service = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the service and wait until it answers."""
        command = [sys.executable, "-m", "ringfence.block", "--root", str(self.root)]
        self.service = subprocess.Popen(command, env=self.env, stderr=(self.root / "log").open("ab"))
        self.processes.append(self.service)
        eventually(self._answers)
        return self.service

    def _answers(self) -> bool:
        assert self.service.poll() is None, self.log
        with contextlib.suppress(Exception):
            self.ask(lambda service: service.list())
            return True
        return False

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            for path in self.paths():
                if path.pid:
                    os.kill(path.pid, signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.root)

    # -- the service ------------------------------------------------------------

    def ask(self, call: Callable[[BlockService], Awaitable[T]], hold_ms: int = 60000) -> T:
        async def once() -> T:
            service = BlockService(self.places.socket, node=1, hold_ms=hold_ms)
            try:
                return await call(service)
            finally:
                await service.aclose()

        return asyncio.run(once())

    def order(self, lv: str = "vm1", size_bytes: int = 8 * MIB, start_bytes: int = MIB) -> OpenPath:
        extents = (Extent(str(self.image), start_bytes, size_bytes),)
        return OpenPath("vg0", lv, f"uuid-{lv}", extents, False, Token(1, 1, 1))

    def open(self, order: OpenPath | None = None, hold_ms: int = 60000, deadline_ns: int = FOREVER_NS) -> str:
        """Open an LV under page vg/vg0 of incarnation 1.  Returns its URI."""
        self.pages.set(1, "vg/vg0", deadline_ns)
        page = self.pages.path(1, "vg/vg0")
        opened = self.ask(lambda service: service.open(order or self.order(), [page]), hold_ms)
        return opened.uri

    def paths(self) -> tuple[wire.Path, ...]:
        return self.ask(lambda service: service.paths())

    def path(self, lv: str = "vm1") -> wire.Path:
        return next(path for path in self.paths() if path.lv == lv)

    def lapse(self) -> None:
        self.pages.set(1, "vg/vg0", boottime_ns())

    def renew(self) -> None:
        self.pages.set(1, "vg/vg0", FOREVER_NS)

    def lose(self) -> None:
        self.pages.set(1, "vg/vg0", 0)

    def incidents(self, count: int, acknowledge: bool = True) -> list[Incident]:
        """Wait for so many."""

        async def take(service: BlockService) -> list[Incident]:
            found: list[Incident] = []
            watching = service.incidents()
            async for incident in watching:
                found.append(incident)
                if len(found) == count:
                    break
            if acknowledge:  # asking for the next one acknowledges this one
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(anext(watching), 0.2)
            else:
                await watching.aclose()
            return found

        return self.ask(lambda service: asyncio.wait_for(take(service), 60))

    def freeze_next_write(self) -> None:
        (self.between / "freeze").touch()

    @contextlib.contextmanager
    def held_writes(self) -> Iterator[None]:
        """Writes of workers wait between their check and the disk."""
        (self.between / "hold").touch()
        try:
            yield
        finally:
            (self.between / "hold").unlink()

    def standing(self) -> list[Path]:
        """A file for each write that is held between its check and the disk."""
        return list(self.between.glob("standing.*"))

    def on_disk(self, offset_bytes: int, length_bytes: int, start_bytes: int = MIB) -> bytes:
        with self.image.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            return os.pread(file.fileno(), length_bytes, start_bytes + offset_bytes)


@contextlib.contextmanager
def rig(preloaded: Path | None = None, plain: bool = False) -> Iterator[Rig]:
    one = Rig(preloaded, plain)
    try:
        yield one
    finally:
        one.close()


def eventually(true: Callable[[], bool], within_s: float = 60) -> None:
    """Look again until it is so; fail if it never is."""
    give_up = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < give_up, "it never came about"
        time.sleep(0.005)


def process_state(pid: int) -> str:
    """The letter of /proc: R, S, D, T (stopped), Z; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


class Writing:
    """A write in a thread of its own, so that a test can look while it is held."""

    def __init__(self, uri: str, offset_bytes: int, data: bytes) -> None:
        self.client = NbdClient(uri, timeout_s=60)
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(self.client.write, offset_bytes, data, True)

    @property
    def answered(self) -> bool:
        return self._future.done()

    def result(self) -> int:
        """0 or the errno of the answer."""
        try:
            self._future.result(timeout=60)
        except OSError as error:
            return error.errno or -1
        finally:
            self._pool.shutdown(wait=False)
            self.client.close()
        return 0
