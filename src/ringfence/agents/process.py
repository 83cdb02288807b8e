"""A process that a daemon runs, a fence agent first of all: its session, its group, its pipes, its end.

Nothing of it outlives the call: the whole process group is killed when the agent ends, at its limit, or when
the call is abandoned.  Its output is read to the end and kept within a bound.  No process of the group may
leave a core, which would hold the secrets that it was told.

Not asyncio's own subprocess: that one calls a process ended only when everybody who inherited its pipes has
let go of them, which a stray child may never do."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

from ringfence.core.errors import Unavailable
from ringfence.host.processes import group_lives

AGENT_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""What an agent finds its tools in."""
ENVIRONMENT = {"PATH": AGENT_PATH, "LC_ALL": "C.UTF-8", "PYTHONWARNINGS": "ignore"}
"""All of it: PCMK_service, which makes agents wait for ever, is not handed on.  From their interpreter's
complaints nobody would learn why they failed."""
KEPT_BYTES = 4096
"""Of each output stream, its end: that is where agents say what went wrong."""
DRAIN_S = 0.5
"""How long output is still read after the agent has ended: a stranger may hold the pipe open."""
KILL_S = 1.0
"""How long a killed agent is waited for, and then what it started: the kernel may hold either in a call
that nothing interrupts."""
CHECK_S = 0.005
"""How often it is looked whether the group of an agent that has ended is gone: nobody tells."""
NO_CORE = (1, 1)
"""RLIMIT_CORE, soft and hard.  Of 1 byte: where core_pattern is a pipe, 0 keeps no core from it, but 1 does;
where cores are files, none fits.  Source: Linux fs/coredump.c, core(5)."""


def no_core(pid: int = 0) -> None:
    """Of this process, or of another; what they start inherits it."""
    # A limit that is 0 already, and may not be raised, is as good as can be had.
    with contextlib.suppress(ProcessLookupError, PermissionError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_CORE, NO_CORE)


class Running:
    """A process that has been started.

    Args:
        words: the executable's path and its arguments, in which no secret may stand.
        kept_bytes: of each output stream, at most so much of its end is kept.
        environment: all that it gets.

    Raises Unavailable: it could not be started, or not be watched; then nothing of it goes on."""

    def __init__(
        self,
        words: Sequence[str],
        kept_bytes: int = KEPT_BYTES,
        environment: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        path = words[0]
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env=environment,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            raise Unavailable(f"{path} cannot be started: {error.strerror}") from None
        no_core(self._process.pid)  # before it has been told anything
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:  # no descriptor left: an agent that cannot be watched must not run
            self.kill()
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                assert pipe is not None
                pipe.close()
            self._process.poll()  # else subprocess itself buries it at its next start
            raise Unavailable(f"{path} cannot be watched: {error.strerror}") from None
        self._loop.add_reader(self._pidfd, self._ended_now)
        self._abandoned = self._gone = False
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self.out = Tail(self._process.stdout, kept_bytes)
        self.err = Tail(self._process.stderr, kept_bytes)

    def _ended_now(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._over.set()
        if self._abandoned:
            self._process.wait()

    async def ended(self, stdin: bytes, stop: asyncio.Event, limit_s: float) -> bool:
        """Wait for its end, for `stop`, or for the limit.  Returns whether it had to be ended."""
        assert self._process.stdin is not None
        feeding = asyncio.ensure_future(_feed(self._process.stdin, stdin))
        waits = [asyncio.ensure_future(one.wait()) for one in (self._over, stop)]
        try:
            await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (feeding, *waits):
                task.cancel()
        return not self._over.is_set()

    async def buried(self) -> int | None:
        """Kill what is left of its group; its exit code, once its last words were read and the group is gone.

        None: the kernel has not let go of it within KILL_S.  What it started may be held longer: `gone`.
        Until it is waited for, at least its zombie bears the group's number: it is nobody else's."""
        self.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_S):
                await self._over.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self.out.over.wait()
                await self.err.over.wait()
        code = self._bury()
        if code is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_S):
                    while not self.gone:  # noqa: ASYNC110 - what it started is not our child
                        await asyncio.sleep(CHECK_S)
        return code

    def ask_to_end(self) -> None:
        """SIGTERM for all of its group."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def close(self) -> None:
        """Also when the run was abandoned: nothing of it goes on."""
        self.kill()
        self._bury()
        self.out.close()
        self.err.close()
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._loop.remove_writer(self._process.stdin.fileno())
            self._process.stdin.close()

    @property
    def gone(self) -> bool:
        """Whether it and all of its group have ended.  Killed is not ended: a process that is killed in a
        call of the kernel's does what the call does first."""
        if not self._gone:
            self._gone = self._over.is_set() and not group_lives(self._process.pid)
        return self._gone

    def kill(self) -> None:
        """SIGKILL for all of its group."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _bury(self) -> int | None:
        """Never waits: what the kernel still holds is buried when it lets go."""
        if not self._over.is_set():
            self._abandoned = True
            return None
        if self._process.returncode is None:
            self._process.wait()
        return self._process.returncode


async def _feed(pipe: IO[bytes], data: bytes) -> None:
    """An agent may end without reading, or read late."""
    os.set_blocking(pipe.fileno(), False)
    loop, fd = asyncio.get_running_loop(), pipe.fileno()
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            room = asyncio.Event()
            loop.add_writer(fd, room.set)
            try:
                await room.wait()
            finally:
                if not pipe.closed:  # else the number may be another's by now
                    loop.remove_writer(fd)
        except BrokenPipeError:
            break
    pipe.close()


class Tail:
    """The end of a stream; all of it is read, so that a talkative agent never blocks."""

    def __init__(self, pipe: IO[bytes], kept_bytes: int) -> None:
        self._pipe = pipe
        self._kept_bytes = kept_bytes
        self.data = b""
        self.cut = False
        """There was more, which is gone."""
        self.over = asyncio.Event()
        os.set_blocking(pipe.fileno(), False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pipe.fileno(), self._more)

    def _more(self) -> None:
        try:
            chunk = os.read(self._pipe.fileno(), 65536)
        except BlockingIOError:
            return
        self.cut = self.cut or len(self.data) + len(chunk) > self._kept_bytes
        self.data = (self.data + chunk)[-self._kept_bytes :]
        if not chunk:
            self.close()

    def text(self, secrets: dict[str, str]) -> str:
        """Of a cut stream, without what may be the rest of a secret that the cut went through."""
        longest = max((len(value.encode()) for value in secrets.values()), default=0)
        data = self.data[max(longest - 1, 0) :] if self.cut else self.data
        return data.decode(errors="replace")

    def close(self) -> None:
        if not self._pipe.closed:
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()
        self.over.set()
