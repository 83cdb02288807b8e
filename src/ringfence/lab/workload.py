"""The "VM" of the lab: writes stamped blocks to a volume for ever, and says what became of them.

    python -m ringfence.lab.workload write --uri URI --log FILE --tag NAME [--token T] [--blocks N] [--rate R]
    python -m ringfence.lab.workload verify (--uri URI | --image PATH:START:LENGTH …) --log FILE …
    python -m ringfence.lab.workload snapshot (--uri URI | --image …) --blocks N

`write` first reads all slots and logs that (its baseline), then writes slot after slot, round and
round, each with FUA, each logged once acknowledged.  Before it writes a slot again it looks whether
its block is still there.  Errors are logged, a lost connection is made again; SIGTERM ends it.

`verify` judges: logs in the order in which their writers took the volume over.  Exit code 0 if
nothing was lost and no block is foreign or damaged, else 1."""

import argparse
import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import msgspec

from ringfence.core.errors import EXIT_BAD_COMMAND, EXIT_FAILED, EXIT_OK
from ringfence.host.clock import boottime_ns
from ringfence.lab import stamps
from ringfence.lab.judge import judge_files
from ringfence.lab.nbd_client import NbdClient
from ringfence.lab.stamps import Found, LogWriter, Read, Stamp

RECONNECT_S = 0.05
PAUSE_AFTER_ERROR_S = 0.02
DEFAULT_SLOTS = 256


class Stop(BaseException):
    """Told to end; also out of a write that is held."""


class Writer:
    """One run.

    Args:
        connect: a new connection to the volume.  Raises OSError.
        log: goes on with what is in it.
        slots: how many blocks to use; 0: as many as there are, up to DEFAULT_SLOTS.
        rate: writes a second; 0: as fast as it goes.
    """

    def __init__(
        self,
        connect: Callable[[], NbdClient],
        log: Path,
        tag: str,
        token: str = "",
        slots: int = 0,
        block_bytes: int = 4096,
        rate: float = 0.0,
    ) -> None:
        self._connect = connect
        self._tag = tag
        self._token = token
        self._slots = slots
        self._block_bytes = block_bytes
        self._rate = rate
        self._run = uuid.uuid4().hex
        before = stamps.read_log(log) if log.exists() else []
        last = stamps.last_sequence(before)
        self._seq = last + stamps.RESUME_GAP if before else 0
        self._log = LogWriter(log)
        self._client: NbdClient | None = None
        self._expected: list[tuple[Found, ...]] = []
        """For each slot, what it may hold: more than one where a write had no answer."""

    def run(self, count: int = 0, ready: Callable[[], None] = lambda: None) -> None:
        """Write until Stop is raised, or `count` attempts were made.  Calls `ready` after the baseline."""
        try:
            self._begin()
            ready()
            due = time.monotonic()
            done = 0
            while not count or done < count:
                slot = done % self._slots
                if self._attempt(slot):
                    done += 1
                if self._rate:
                    due = max(due + 1 / self._rate, time.monotonic() - 1)
                    time.sleep(max(0.0, due - time.monotonic()))
        finally:
            with contextlib.suppress(OSError):
                self._log.append(stamps.Stopped(boottime_ns()))
            if self._client is not None:
                self._client.close()

    def _begin(self) -> None:
        """The baseline."""
        while True:
            try:
                client = self._connected()
                self._slots = self._fitting(client.size_bytes)
                began_ns = boottime_ns()
                found = stamps.snapshot(client.read, self._slots, self._block_bytes)
                break
            except OSError as error:
                if error.errno is None:
                    raise  # no answer of anybody, but an address that cannot be right
                self._disconnect()
                time.sleep(RECONNECT_S)
        now_ns = boottime_ns()
        self._log.append(
            stamps.Started(self._tag, self._run, self._token, self._slots, self._block_bytes, now_ns)
        )
        self._log.append(stamps.Baseline(began_ns, now_ns, found))
        self._expected = [(one,) for one in found]

    def _fitting(self, size_bytes: int) -> int:
        slots = self._slots or min(DEFAULT_SLOTS, size_bytes // self._block_bytes)
        if not slots or slots * self._block_bytes > size_bytes:
            raise ValueError(f"{slots} blocks of {self._block_bytes} do not fit {size_bytes} bytes")
        return slots

    def _attempt(self, slot: int) -> bool:
        """Look, write, log.  False: not even tried, for nobody listens."""
        try:
            client = self._connected()
        except OSError:
            time.sleep(RECONNECT_S)
            return False
        try:
            self._look(client, slot)
        except OSError as error:
            if not _reply_errno(error):
                self._disconnect()
                time.sleep(RECONNECT_S)
                return False
            # The volume refuses to be read: a VM would try to write all the same.
        self._seq += 1
        seq = self._seq
        stamp = Stamp(self._tag, self._run, self._token, seq, slot, time.time_ns(), boottime_ns())
        mine = Found(slot, self._tag, seq)
        try:
            client.write(slot * self._block_bytes, stamps.render(stamp, self._block_bytes), fua=True)
        except OSError as error:
            self._log.append(stamps.Failed(seq, slot, _reply_errno(error), boottime_ns()))
            torn = Found(slot, odd=stamps.Odd.DAMAGED.value)
            self._expected[slot] = (*self._expected[slot], mine, torn)
            # An error that the volume answered leaves the connection whole.
            if not _reply_errno(error):
                self._disconnect()
            time.sleep(PAUSE_AFTER_ERROR_S)
        else:
            self._log.append(stamps.Acknowledged(seq, slot, boottime_ns()))
            self._expected[slot] = (mine,)
        return True

    def _look(self, client: NbdClient, slot: int) -> None:
        """Is there still what we left there?"""
        block = client.read(slot * self._block_bytes, self._block_bytes)
        found = Found.of(slot, stamps.parse(block, slot))
        if found not in self._expected[slot]:
            self._log.append(stamps.Mismatch(found, self._expected[slot], boottime_ns()))
            self._expected[slot] = (found,)

    def _connected(self) -> NbdClient:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _reply_errno(error: OSError) -> int:
    """The errno that the volume answered with; 0: it did not answer."""
    if isinstance(error, ConnectionError | TimeoutError | FileNotFoundError):
        return 0
    return error.errno or 0


# -- reading a volume -----------------------------------------------------------------


def image_reader(segments: Sequence[str]) -> Read:
    """Reads a volume straight from its segments: PATH:START_BYTES:LENGTH_BYTES, one after the other.

    Raises ValueError for anything else."""
    table: list[tuple[str, int, int]] = []
    for segment in segments:
        path, start, length = segment.rsplit(":", 2)
        table.append((path, int(start), int(length)))

    def read(offset_bytes: int, length_bytes: int) -> bytes:
        data = b""
        for path, start, length in table:
            inside = min(length_bytes, length - offset_bytes)
            if inside > 0:
                data += _read_file(path, start + offset_bytes, inside)
                length_bytes -= inside
            offset_bytes = max(0, offset_bytes - length)
        if length_bytes:
            raise ValueError("the segments are shorter than the blocks")
        return data

    return read


def _read_file(path: str, at: int, length_bytes: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        # What lies on the disk, not what an earlier look left in this host's cache.
        os.posix_fadvise(file.fileno(), at, length_bytes, os.POSIX_FADV_DONTNEED)
        return os.pread(file.fileno(), length_bytes, at)


def _reader(asked: argparse.Namespace) -> Read:
    if asked.uri:
        return NbdClient(asked.uri, timeout_s=30).read
    return image_reader(asked.image)


# -- command line -------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    asked = _parser().parse_args(argv)
    try:
        command: Callable[[argparse.Namespace], int] = asked.command
        return command(asked)
    except (OSError, ValueError) as error:
        print(f"workload: {error}", file=sys.stderr)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ringfence.lab.workload", description="the lab's stand-in for a VM")
    verbs = parser.add_subparsers(required=True)
    write = verbs.add_parser("write", help="write stamped blocks until SIGTERM")
    write.set_defaults(command=_write)
    write.add_argument("--uri", required=True)
    write.add_argument("--log", type=Path, required=True)
    write.add_argument("--tag", required=True, help="who writes; each writer of a volume has its own")
    write.add_argument("--token", default="", help="the lock's fencing token, for the stamps")
    slots_help = f"slots to use (default: all, up to {DEFAULT_SLOTS})"
    write.add_argument("--blocks", type=int, default=0, help=slots_help)
    write.add_argument("--block-size", type=int, default=4096)
    write.add_argument("--rate", type=float, default=0.0, help="writes a second (default: no limit)")
    write.add_argument("--count", type=int, default=0, help="end after so many writes")
    verify = verbs.add_parser("verify", help="judge a volume by its writers' logs")
    verify.set_defaults(command=_verify)
    verify.add_argument("--log", type=Path, action="append", required=True, help="in order of take-over")
    show = verbs.add_parser("snapshot", help="what every slot holds, as JSON")
    show.set_defaults(command=_snapshot)
    show.add_argument("--blocks", type=int, default=DEFAULT_SLOTS)
    show.add_argument("--block-size", type=int, default=4096)
    for verb in (verify, show):
        where = verb.add_mutually_exclusive_group(required=True)
        where.add_argument("--uri", default="")
        where.add_argument("--image", action="append", metavar="PATH:START:LENGTH")
    return parser


def _write(asked: argparse.Namespace) -> int:
    if asked.block_size < stamps.MIN_BLOCK_BYTES or asked.blocks < 0 or asked.rate < 0:
        print(f"workload: blocks have at least {stamps.MIN_BLOCK_BYTES} bytes", file=sys.stderr)
        return EXIT_BAD_COMMAND

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stop

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    writer = Writer(
        lambda: NbdClient(asked.uri),
        asked.log,
        asked.tag,
        asked.token,
        asked.blocks,
        asked.block_size,
        asked.rate,
    )
    with contextlib.suppress(Stop):
        writer.run(asked.count, lambda: print("ready", flush=True))
    return EXIT_OK


def _verify(asked: argparse.Namespace) -> int:
    starts = [one for one in stamps.read_log(asked.log[0]) if isinstance(one, stamps.Started)]
    if not starts:
        raise ValueError(f"{asked.log[0]} tells of no start")
    final = stamps.snapshot(_reader(asked), starts[0].slots, starts[0].block_bytes)
    verdict = judge_files(asked.log, final)
    print(msgspec.json.encode(verdict.as_dict()).decode())
    return EXIT_OK if verdict.clean else 1


def _snapshot(asked: argparse.Namespace) -> int:
    final = stamps.snapshot(_reader(asked), asked.blocks, asked.block_size)
    print(msgspec.json.encode([one for one in final if one.odd != stamps.Odd.EMPTY.value]).decode())
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
