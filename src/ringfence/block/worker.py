"""The worker: the process that serves one open LV, and nothing else.

    python -m ringfence.block.worker CHANNEL_FD SERVICE_PID

Its first line on the channel (a socket pair with the service) is its `Order`.  It listens on the
LV's socket with a thread a connection, and ends when told so, or with the service: a path that
nobody could reap must not go on.  It keeps the service's lock open, so that no new service believes
the host is free of workers while one lives.

SIGTERM and SIGINT are the service's business: it ends its workers in order."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import BinaryIO

import msgspec

from ringfence.block.connection import FEWER_LANES, LANES, Connection
from ringfence.block.export import Export, Volume
from ringfence.block.extents import Extents
from ringfence.block.fastpath import FastSeats, load
from ringfence.block.gate import Gate
from ringfence.block.incident_file import IncidentFile
from ringfence.block.mirror import Mirror, check_fits
from ringfence.block.reports import Reports
from ringfence.block.seats import PlainSeats
from ringfence.core.errors import BadInput, DeviceFailed, Refused, RingfenceError, Unavailable
from ringfence.host.clock import wall_ms
from ringfence.host.pages import PageReader
from ringfence.host.parent import end_with
from ringfence.wire import block as wire

MAX_CONNECTIONS = 128
DRAIN_S = 2.0
"""How long clients may take to read their last answers at an orderly end."""


class Worker:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._serving: dict[Connection, threading.Thread] = {}
        self._ending = False
        self._to: tuple[wire.Extent, ...] = ()
        """Where the mirror copies to."""
        self._moved: tuple[wire.Extent, ...] = ()
        """What the LV is made of when that is done."""

    def run(self) -> int:
        """Serve until the service says so.  Returns the exit code."""
        lines = self._channel.makefile("rb")
        try:
            order = wire.decode_order(lines.readline())
        except msgspec.MsgspecError as error:
            self._tell(wire.WorkerFailed(Unavailable(f"the worker got no order: {error}").as_dict()))
            return 1
        try:
            export, reports = self._prepare(order)
            listener = _listen(order)
        except RingfenceError as error:
            self._tell(wire.WorkerFailed(error.as_dict()))
            return 1
        threading.Thread(target=self._accept, args=(listener, export), daemon=True).start()
        extents = export.volume.extents
        fast = isinstance(export.seats, FastSeats)
        self._tell(wire.WorkerReady(extents.direct, extents.block_bytes, fast))
        while (word := _next_word(lines)) is not None:
            if word.word is None:
                return self._end(word, order, listener, export, reports)
            order = self._obey(word.word, order, export, reports)
        return 1  # the service is gone

    def _prepare(self, order: wire.Order) -> tuple[Export, Reports]:
        opened = order.open
        volume = _volume(opened)
        gate = Gate([PageReader(Path(page)) for page in opened.pages], opened.hold_ms)
        gate.held = opened.hold.waits
        try:
            file = IncidentFile(Path(order.incidents))
        except OSError as error:
            raise DeviceFailed(
                f"cannot open {order.incidents}: {error.strerror}",
                next="incidents must have a place before anybody writes",
            ) from None
        name = f"{opened.vg}/{opened.lv}"
        reports = Reports(name, opened.node, uuid.uuid4().hex, file, self._tell, wall_ms)
        return Export(volume, gate, reports, _seats(order)), reports

    def _obey(
        self,
        word: wire.Swap | wire.Mirror | wire.Seal | wire.Unmirror,
        order: wire.Order,
        export: Export,
        reports: Reports,
    ) -> wire.Order:
        """Do it and answer.  Returns what is served then."""
        try:
            match word:
                case wire.Swap():
                    order = self._swap(word, order, export)
                    reports.volume = f"{order.open.vg}/{order.open.lv}"
                case wire.Mirror():
                    self._mirror(word, order, export)
                case wire.Seal():
                    if export.mirror is None or not export.mirror.seal():
                        raise Refused("the copy is not complete", next="wait for it", retry=True)
                case wire.Unmirror():
                    export.stay()
                    self._tell(wire.Moves(None))
        except RingfenceError as error:
            self._tell(wire.Swapped(error=error.as_dict()))
        else:
            self._tell(wire.Swapped(export.volume.extents.direct))
        return order

    def _swap(self, word: wire.Swap, order: wire.Order, export: Export) -> wire.Order:
        """The new extents are open before anybody waits; the socket moves when nothing is under way, and if
        it cannot be, everything stays.  What is being moved may only be swapped for what it was moved to, and
        what it has grown by since."""
        mirror = export.mirror
        if mirror and not (mirror.moving.sealed and wire.begins_with(word.open.extents, self._moved)):
            words = f"{order.open.vg}/{order.open.lv} is being moved"
            raise Refused(words, next="wait until that is over, or end it", retry=True)
        volume = _volume(word.open)
        waits = word.open.hold.waits
        flushes = waits and not export.gate.held and not volume.readonly

        def last() -> None:
            if flushes:
                _flush(order, volume)
            if word.socket != order.socket:
                _move(order.socket, word.socket)

        try:
            export.swap(volume, last, held=waits)
        except RingfenceError:
            volume.extents.close()
            raise
        self._tell(wire.Moves(None))
        return msgspec.structs.replace(order, open=word.open, socket=word.socket)

    def _mirror(self, word: wire.Mirror, order: wire.Order, export: Export) -> None:
        if export.mirror is not None:
            if (export.mirror.moving.offset_bytes, self._to) == (word.offset_bytes, word.to):
                return
            raise Refused(f"{word.vg}/{word.lv} is being moved already", next="wait until that is over")
        to = Extents(word.to)
        try:
            check_fits(export.volume.extents, word.offset_bytes, to)
            self._moved = _moved(order, word)
            mirror = Mirror(word.offset_bytes, to, lambda moving: self._tell(wire.Moves(moving)))
            self._to = word.to
            self._tell(wire.Moves(mirror.moving))
            export.move(mirror)
        except RingfenceError:
            to.close()
            self._tell(wire.Moves(None))
            raise

    def _tell(self, message: wire.FromWorker) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._channel.sendall(wire.encode(message))

    # -- clients ----------------------------------------------------------------

    def _accept(self, listener: socket.socket, export: Export) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                if self._ending:
                    return
                time.sleep(0.1)  # out of file descriptors: some will be free again
                continue
            connection = Connection(sock, export, FEWER_LANES if self._serving else LANES)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                if self._ending or len(self._serving) >= MAX_CONNECTIONS:
                    sock.close()
                    continue
                self._serving[connection] = thread
                thread.start()
                self._tell(wire.Connections(len(self._serving)))

    def _serve(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                del self._serving[connection]
                self._tell(wire.Connections(len(self._serving)))

    # -- the end ----------------------------------------------------------------

    def _end(
        self,
        end: wire.EndWorker,
        order: wire.Order,
        listener: socket.socket,
        export: Export,
        reports: Reports,
    ) -> int:
        """Answer what was begun, flush, go.  What a client sends after this finds nobody."""
        with self._lock:
            self._ending = True
            serving = list(self._serving.items())
        export.gate.ending = True
        with contextlib.suppress(OSError):
            os.unlink(order.socket)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        self._hang_up([connection for connection, _ in serving], socket.SHUT_RD)
        give_up = time.monotonic() + DRAIN_S
        for _, thread in serving:
            thread.join(max(0.0, give_up - time.monotonic()))
        # A client that does not read its answer is cut off; a write on its way to the disk is not.
        self._hang_up([connection for connection, thread in serving if thread.is_alive()], socket.SHUT_RDWR)
        for _, thread in serving:
            thread.join()
        if export.mirror is not None:
            export.mirror.stop()
        reports.close()
        if end.flush and not export.volume.readonly:
            try:
                export.volume.extents.flush()
                if export.mirror is not None:
                    export.mirror.flush()
            except OSError as error:
                words = f"{order.open.vg}/{order.open.lv} could not be flushed: {error.strerror}"
                failed = DeviceFailed(words, next="what was written last may be missing: check the disk")
                self._tell(wire.WorkerFailed(failed.as_dict()))
                return 1
        return 0

    @staticmethod
    def _hang_up(connections: list[Connection], how: int) -> None:
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(how)


def _listen(order: wire.Order) -> socket.socket:
    """Raises Unavailable."""
    if order.listener_fd >= 0:
        return socket.socket(fileno=order.listener_fd)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(order.socket)
        old = os.umask(0o177)
        try:
            listener.bind(order.socket)
        finally:
            os.umask(old)
        if order.group >= 0:
            os.chown(order.socket, -1, order.group)
        os.chmod(order.socket, 0o660)
        listener.listen(MAX_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {order.socket}: {error.strerror or error}", next="check the directory"
        ) from None
    return listener


def _seats(order: wire.Order) -> PlainSeats | FastSeats:
    """The fast ones, where they are built, and every page is there."""
    library = load()
    if library is not None:
        with contextlib.suppress(OSError):
            pages = [Path(page) for page in order.open.pages]
            return FastSeats(library, order.in_flight, pages, [order.lock_fd, order.memory_fd])
    return PlainSeats(order.in_flight)


def _volume(opened: wire.Open) -> Volume:
    """Raises BadInput, DeviceFailed."""
    extents = Extents(opened.extents, opened.readonly)
    return Volume((opened.lv, f"{opened.vg}/{opened.lv}", ""), extents, opened.readonly)


def _moved(order: wire.Order, word: wire.Mirror) -> tuple[wire.Extent, ...]:
    """Raises BadInput."""
    try:
        return wire.moved(order.open.extents, word.offset_bytes, word.to)
    except ValueError:
        raise BadInput("what is to be moved begins or ends within a row of stripes") from None


def _flush(order: wire.Order, volume: Volume) -> None:
    """Raises DeviceFailed."""
    try:
        volume.extents.flush()
    except OSError as error:
        words = f"{order.open.vg}/{order.open.lv} could not be flushed: {error.strerror}"
        raise DeviceFailed(words, next="look at its disk") from None


def _move(old: str, new: str) -> None:
    """Raises Unavailable."""
    try:
        os.rename(old, new)
    except OSError as error:
        words = f"cannot rename {old} to {new}: {error.strerror}"
        raise Unavailable(words, next="look who removed it, or what is in the way") from None


def _next_word(lines: BinaryIO) -> wire.EndWorker | None:
    """Wait for the service.  None: there is none any more."""
    try:
        return wire.decode_end(lines.readline())
    except (OSError, msgspec.MsgspecError):
        return None


def main(argv: list[str]) -> int:
    channel_fd, service_pid = int(argv[0]), int(argv[1])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not end_with(service_pid):
        return 1  # the service ended before it could take us along
    return Worker(socket.socket(fileno=channel_fd)).run()


if __name__ == "__main__":
    # No finalizers: threads that hold locks or buffers must not delay an end that was ordered.
    code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(code)
