"""`ringfence lock`: hold a lock of the cluster while a command runs, in the manner of flock(1)."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import click

from ringfence.cli.answers import one_line, print_error, print_json
from ringfence.cli.options import daemon_options, json_option, open_daemon
from ringfence.client import Connection, Lock
from ringfence.client.messages import lock_lost
from ringfence.core.errors import EXIT_FAILED, EXIT_OK, Deadlock, LockHeld, RingfenceError, TimedOut
from ringfence.core.locknames import unescape
from ringfence.core.modes import Mode

MODES = [mode.name for mode in Mode if mode is not Mode.UN]
NOT_IN_TIME = (LockHeld.code, TimedOut.code, Deadlock.code)
EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127
MOST_WAIT_S = 1e9
"""Thirty years; beyond, milliseconds would not fit what carries them."""
PAUSE_S = 0.1
"""Between two attempts to reach a daemon that is not there."""
CURES = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG), "check its name"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EISDIR), "make it a file that may be executed"),
    errno.ENOEXEC: "make it a program, or a script whose first line names an interpreter",
    errno.ETXTBSY: "try again when it is written",
    errno.E2BIG: "give it less to read in its arguments and environment",
    **dict.fromkeys((errno.ENOMEM, errno.EAGAIN), "try again when this host has more room"),
}
FORWARDED = (signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.argument("lockspace")
@click.argument("resource")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("-m", "--mode", type=click.Choice(MODES, case_sensitive=False), default="EX", show_default=True)
@click.option("-n", "--nonblock", is_flag=True, help="Fail rather than wait.")
@click.option(
    "-w", "--wait", type=click.FloatRange(0), metavar="SECONDS",
    help="Wait no longer than this, also for a daemon that is being restarted.",
)  # fmt: skip
@click.option(
    "-E", "--conflict-exit-code", "conflict", type=click.IntRange(0, 255), default=1, show_default=True,
    help="Exit code when the lock was not had in time.",
)  # fmt: skip
@click.option("-D", "--deadlock", is_flag=True, help="Fail rather than wait in a ring with others.")
@click.option(
    "--owner", envvar="RINGFENCE_OWNER", default="", help="Whose lock it is; default: whoever runs this."
)
@daemon_options
@json_option
def lock(
    lockspace: str, resource: str, command: tuple[str, ...], mode: str, nonblock: bool, wait: float | None,
    conflict: int, deadlock: bool, owner: str, socket: str | None, root: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Hold a lock while COMMAND runs; without one, until Ctrl-C.

    \b
    ringfence lock games chess -- ./move           waits for the lock, then runs ./move
    ringfence lock games chess -n -m PR -- ./look  shared, and now or never
    ringfence lock games chess -w 5                holds it until Ctrl-C

    COMMAND finds the fencing token in $RINGFENCE_TOKEN, the lock's name in $RINGFENCE_LOCKSPACE and
    $RINGFENCE_RESOURCE.  Its exit code is this one's.  It keeps the lock even if this process is killed
    (it inherits the connection).  If the lock is lost it gets SIGTERM, and the exit code is 5.

    With -D, a wait that would never end, because others (on any host) wait for one another in a ring, ends
    as one that was not in time.  COMMAND's own `ringfence lock` belong to it by $RINGFENCE_OWNER.

    Names have 1 to 64 bytes of any content; write \\xHH for a byte and \\\\ for a backslash."""
    if nonblock and wait is not None:
        raise click.UsageError("-n and -w do not go together")
    if wait is not None and not wait <= MOST_WAIT_S:  # nor is nan
        raise click.UsageError(f"-w {wait}: at most {MOST_WAIT_S:.0f} s; to wait for ever leave it out")
    wait_ms = 0 if nonblock else None if wait is None else round(wait * 1000)
    owner = owner or f"lock-{uuid.uuid4().hex[:16]}"
    lost, over = threading.Event(), threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def on_lost() -> None:
        lost.set()
        over.set()
        for process in running:
            process.terminate()

    def ask(daemon: Connection, wait_ms: int | None) -> Lock:
        began_s = time.monotonic()
        space = daemon.lockspace(unescape(lockspace), wait_ms=wait_ms)
        left_ms = wait_ms and max(1, wait_ms - round((time.monotonic() - began_s) * 1000))
        return space.lock(
            unescape(resource), mode.upper(), wait_ms=left_ms, deadlock=deadlock, owner=owner, on_lost=on_lost
        )

    with ExitStack() as connected:
        try:
            held = _had(partial(open_daemon, socket, root), ask, wait_ms, connected)
        except RingfenceError as error:
            if error.code not in NOT_IN_TIME:
                raise
            print_error(error, as_json)
            return conflict
        with held:
            if not command:
                _tell(held, as_json)
                _until(over)
                code = EXIT_OK
            else:
                code = _run(held, command, owner, running, lost, as_json)
            if lost.is_set():
                raise lock_lost(held.what, "this node was given up by the cluster, or its daemon ended")
            return code


def _had(
    connect: Callable[[], Connection],
    ask: Callable[[Connection, int | None], Lock],
    wait_ms: int | None,
    connected: ExitStack,
) -> Lock:
    """The lock, had of whichever daemon is there within wait_ms: one that is restarted forgets who waited.

    Raises what the last one said, or that there is none."""
    until_s = time.monotonic() + (wait_ms or 0) / 1000
    silent = not sys.stderr.isatty()
    while True:
        try:
            daemon = connected.enter_context(connect())
            left_ms = wait_ms and max(1, round((until_s - time.monotonic()) * 1000))
            return ask(daemon, left_ms)
        except RingfenceError as error:  # one that leaves cleanly refuses first, and then is not there
            again = error.retry and error.code not in NOT_IN_TIME
            if not again or time.monotonic() + PAUSE_S > until_s:
                raise
            if not silent:
                click.echo(f"  {one_line(error.message)}; trying again", err=True)
                silent = True
            connected.close()
        time.sleep(PAUSE_S)


def _tell(held: Lock, as_json: bool) -> None:
    told = {"lockspace": held.lockspace, "resource": held.resource, "mode": held.mode.name}
    if as_json:
        print_json({**told, "token": str(held.token)})
    else:
        click.echo(f"{held.what} is held {held.mode.name}, token {held.token}; Ctrl-C releases it")
    sys.stdout.flush()


def _until(over: threading.Event) -> None:
    """Ctrl-C, or what else ends a process, sets it too."""
    with _handled((signal.SIGINT, *FORWARDED), lambda number: over.set()):
        over.wait()


def _run(
    held: Lock,
    command: Sequence[str],
    owner: str,
    running: list[subprocess.Popen[bytes]],
    lost: threading.Event,
    as_json: bool,
) -> int:
    """The command's exit code, as a shell has it."""
    env = {
        **os.environb,
        # As UTF-8, whatever the locale: it may have no way to write a name's characters.
        b"RINGFENCE_LOCKSPACE": held.lockspace.encode(),
        b"RINGFENCE_RESOURCE": held.resource.encode(),
        b"RINGFENCE_TOKEN": str(held.token).encode(),
        b"RINGFENCE_OWNER": os.fsencode(owner),
    }

    def forward(number: int) -> None:
        """Who ends this process means the command.  Ctrl-C reaches that from the terminal."""
        for process in running if number != signal.SIGINT else []:
            process.send_signal(number)

    with _handled((signal.SIGINT, *FORWARDED), forward):
        try:
            process = subprocess.Popen(command, env=env, pass_fds=(held.fileno(),))
        except OSError as error:
            words = f"cannot run {command[0] or repr('')}: {error.strerror}"
            print_error(RingfenceError(words, next=_cure(error, command[0])), as_json)
            return EXIT_NOT_FOUND if isinstance(error, FileNotFoundError) else EXIT_CANNOT_RUN
        running.append(process)
        if lost.is_set():
            process.terminate()
        code = process.wait()
    if lost.is_set():
        return EXIT_FAILED
    return code if code >= 0 else 128 - code


def _cure(error: OSError, command: str) -> str:
    """What makes a command run that could not be; empty where the error says it all."""
    if error.errno == errno.ENOENT and os.path.exists(command):
        return "check the interpreter that its first line names"
    return CURES.get(error.errno or 0, "") if command else CURES[errno.ENOENT]


@contextmanager
def _handled(numbers: Sequence[signal.Signals], handle: Callable[[int], None]) -> Iterator[None]:
    """These signals call `handle`.  (A handler, unlike SIG_IGN, is not inherited by the command.)"""
    before = {number: signal.signal(number, lambda number, frame: handle(number)) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
