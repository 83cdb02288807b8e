"""A torture run, from an empty directory to the verdict.

A lab of its own; clients on all hosts; the plan; then everything is mended, and every host must get
every lock and every volume in bounded time; then all clients' words are held against each other and
against the disk."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ringfence.client import connect
from ringfence.core.errors import RingfenceError
from ringfence.lab import stamps
from ringfence.lab.cluster import Lab
from ringfence.lab.nbd_client import NbdClient
from ringfence.lab.stamps import Found
from ringfence.lab.torture.check import check
from ringfence.lab.torture.evidence import collect, crashes
from ringfence.lab.torture.hands import Client, Hands
from ringfence.lab.torture.history import read_logs
from ringfence.lab.torture.names import (
    COUNTER,
    LV_SIZE_BYTES,
    LVS,
    SLOTS,
    VG,
)
from ringfence.lab.torture.plan import plan
from ringfence.lab.torture.progress import Progress
from ringfence.lab.torture.recover import ASK_MS, Recovery
from ringfence.lab.torture.report import Report
from ringfence.lab.torture.volumes import check_volume
from ringfence.wire import client as calls

DISK_BYTES = 128 << 20
PROGRESS_S = 5.0
CLIENTS_S = 60.0
"""So long clients may take to be at work: on a busy machine faults would find nothing to strike."""
NAIVE_BOUND_S = 10.0
LOCKERS = 2
"""On each host."""
BLOCK_BYTES = 4096

Say = Callable[[str], None]


def torture(report: Report, parent: Path | None, keep: bool, say: Say) -> None:
    """Run and judge; fills the report.

    Args:
        report: seed, minutes, nodes, faults, naive, ring are its parameters.
        parent: where the run's directory is made; None: the system's place for such.
        keep: leave the directory behind in any case.  Otherwise it stays if something is wrong.

    Raises RingfenceError: the run did not come about; the directory stays, and is named."""
    directory = Path(tempfile.mkdtemp(prefix="rftort", dir=parent))
    try:
        _Run(report, directory, say).all()
    except RingfenceError as error:
        raise RingfenceError(error.message, next=f"see the logs in {directory}") from error
    except BaseException:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
        raise
    (directory / "report.json").write_bytes(msgspec.json.encode(report.as_dict()))
    if keep or report.exit_code:
        report.directory = str(directory)
    else:
        shutil.rmtree(directory, ignore_errors=True)


class _Run:
    def __init__(self, report: Report, directory: Path, say: Say) -> None:
        self._report = report
        self._directory = directory
        self._histories = directory / "history"
        (self._histories / "writes").mkdir(parents=True)
        self._began_s = time.monotonic()
        self._say_line = say
        self._told_s = 0.0

    def _say(self, line: str) -> None:
        self._say_line(f"{time.monotonic() - self._began_s:7.1f} s  {line}")

    def all(self) -> None:
        """Raises RingfenceError."""
        report = self._report
        lab = Lab.up(
            self._directory / "lab", report.nodes, DISK_BYTES, naive=report.naive, ring=report.ring
        )
        finals: dict[str, tuple[Found, ...]] = {}
        try:
            self._furnish(lab)
            hands = self._hands(lab)
            self._suffer(lab, hands)
            hands.mend()
            self._recover(Recovery(lab, hands, self._say))
            finals = self._read_volumes(lab)
            report.struck = hands.struck
        finally:
            lab.down()
        self._judge(lab, finals)

    def _furnish(self, lab: Lab) -> None:
        """A shared VG with the LVs, none of them active."""
        with connect(lab.socket(lab.nodes[0])) as daemon:
            daemon.call(calls.VgCreate(VG, (str(lab.disk),), shared=True))
            for lv in LVS:
                daemon.call(calls.LvCreate(VG, lv, LV_SIZE_BYTES, activate="n"))

    def _hands(self, lab: Lab) -> Hands:
        clients = []
        for number, node in enumerate(lab.nodes, 1):
            for letter in "abcdefgh"[:LOCKERS]:
                clients.append(Client(node, f"n{number}{letter}", "ringfence.lab.torture.locker"))
            for letter, lv in zip("vwxyz", LVS, strict=False):
                clients.append(Client(node, f"n{number}{letter}", "ringfence.lab.torture.vm", (lv,)))
        return Hands(lab, self._report.seed, clients, self._histories, self._say)

    def _suffer(self, lab: Lab, hands: Hands) -> None:
        report = self._report
        duration_ms = int(report.minutes * 60_000)
        faults = plan(report.seed, duration_ms, lab.nodes, report.faults, lab.ring.is_corosync)
        text = "".join(f"{fault}\n" for fault in faults)
        (self._directory / "plan").write_text(text)
        progress = Progress(self._histories)
        if not hands.keep_until(lambda: progress.begun(LVS), CLIENTS_S):
            raise RingfenceError(f"after {CLIENTS_S:g} s not every client is at work: {progress}")
        self._say_line(f"{len(faults)} faults, in seconds after the clients' first writes:\n{text.rstrip()}")
        self._began_s = time.monotonic()
        hands.run(faults, report.minutes * 60, lambda: self._look(progress))

    def _look(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s >= PROGRESS_S:
            self._told_s = now_s
            self._say(f"so far {progress}")

    def _recover(self, recovery: Recovery) -> None:
        report = self._report
        if report.naive:  # a host that is given up on a lie stays as it is: nothing is promised
            recovery.end_clients(NAIVE_BOUND_S)
            return
        self._say("all is mended; every host must get every lock and volume")
        recovery.demand()
        report.late, report.well_ms = recovery.late, recovery.well_ms

    def _read_volumes(self, lab: Lab) -> dict[str, tuple[Found, ...]]:
        """What each of them holds at last, as far as any host can read it."""
        finals: dict[str, tuple[Found, ...]] = {}
        for lv in LVS:
            for node in lab.nodes:
                with contextlib.suppress(RingfenceError, OSError, LookupError):
                    finals.setdefault(lv, _read(lab.socket(node), lv))
                    break
        return finals

    # -- the verdict ------------------------------------------------------------------------

    def _judge(self, lab: Lab, finals: dict[str, tuple[Found, ...]]) -> None:
        report = self._report
        evidence = collect([lab.root(node) for node in lab.nodes])
        report.fences, report.lies = evidence.fences, evidence.lies
        report.crashes = crashes(self._directory)
        report.locks = check(read_logs(self._histories), (COUNTER,))
        for lv in LVS:
            if lv in finals:
                paths = sorted((self._histories / "writes").glob(f"{lv}.*.jsonl"))
                logs = [stamps.read_log(path) for path in paths]
                report.volumes[lv] = check_volume(f"{VG}/{lv}", logs, finals[lv], evidence.incidents)
            else:
                report.late.append(f"{VG}/{lv} cannot be read at the end")


def _read(socket: Path, lv: str) -> tuple[Found, ...]:
    """Raises RingfenceError, OSError; LookupError: it is closed again already."""
    with connect(socket) as daemon:
        daemon.call(calls.LvChange(VG, lv, "ey", ASK_MS), timeout_ms=2 * ASK_MS)
        try:
            uris = [one["uri"] for one in daemon.status()["exports"] if (one["vg"], one["lv"]) == (VG, lv)]
            with NbdClient(uris[0], timeout_s=ASK_MS / 1000) as client:
                return stamps.snapshot(client.read, SLOTS, BLOCK_BYTES)
        finally:
            daemon.call(calls.LvChange(VG, lv, "n", 0, disconnect=True), timeout_ms=ASK_MS)
