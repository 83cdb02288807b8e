"""The command line: words typed, tables printed, exit codes kept.

LVM2's verbs are carried out by `verbs`, all else by `tree`, which loads click: the verbs start quickly.

Exit codes are LVM2's: 0 done, 3 bad command line, 5 refused or failed; `status` says 1 when anything
is blocked.  130 and 141 are a shell's for Ctrl-C and for a reader that went away.  An error is one
line on stderr, or with --json one object on stdout."""

from __future__ import annotations

import errno
import os
import sys

from ringfence.cli.answers import json_asked, print_error
from ringfence.cli.verbs import ROOMS
from ringfence.cli.verbs.stock import refuse_stock_command
from ringfence.core.errors import EXIT_BAD_COMMAND, EXIT_FAILED, RingfenceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_INTERRUPTED = 128 + 2
"""SIGINT."""
EXIT_NO_READER = 128 + 13
"""SIGPIPE."""
NOT_WRITTEN = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)


class Interrupted(RingfenceError):
    """Ctrl-C, where a command has something to say to that: what goes on without it, and what to do."""

    code = "interrupted"
    exit_code = EXIT_INTERRUPTED


class ReaderGone(BaseException):
    """Whoever read our output has seen enough."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.  Returns the exit code; prints everything there is to say."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = json_asked(words)
    if sys.stdout is None:  # closed (>&-): the exit code is still worth having
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    try:
        code = _run(words, as_json)
        sys.stdout.flush()
    except RingfenceError as error:
        print_error(error, as_json)
        return EXIT_BAD_COMMAND if error.code in ("bad-command", "left-to-lvm2") else error.exit_code
    except KeyboardInterrupt:
        told = _interrupted(words)
        if told is not None or as_json:
            print_error(told or Interrupted("Interrupted"), as_json)
        return EXIT_INTERRUPTED
    except (BrokenPipeError, ReaderGone):
        # It has seen enough (`ringfence events | head`): as any tool that SIGPIPE ends.
        _write_no_more()
        return EXIT_NO_READER
    except OSError as error:
        # An error that names a file is not about the answer.
        if error.filename is not None or error.errno not in NOT_WRITTEN:
            raise
        _write_no_more()
        print_error(RingfenceError(f"cannot write the answer: {error.strerror}"), False)
        return EXIT_FAILED
    return code


def _run(words: list[str], as_json: bool) -> int:
    if words and "_RINGFENCE_COMPLETE" not in os.environ:
        if words[0] in ROOMS:
            from ringfence.cli.verbs.run import run

            return run(words[0], words[1:])
        refuse_stock_command(words)
    from ringfence.cli.tree import run_tree

    return run_tree(words, as_json)


def _interrupted(words: Sequence[str]) -> Interrupted | None:
    """What a command that changes something leaves behind; None: nothing."""
    match ROOMS.get(words[0] if words else "", "reports"):
        case "reports":
            return None
        case "pvmove":
            return Interrupted("The hosts go on with it", next="wait: pvmove; give it up: pvmove --abort")
        case "handover":
            volume = _volume(words)
            cure = f"the hosts may go on with it: ringfence why {volume}; take it back: "
            return Interrupted("Interrupted", next=f"{cure}ringfence handover {volume} --abort")
        case _:
            return Interrupted("Interrupted", next="what the daemon had begun may be done: see lvs -a, vgs")


def _volume(words: Sequence[str]) -> str:
    """The VG/LV that a verb's line is about: an option's value may have a slash as well."""
    from ringfence.cli.verbs import verb
    from ringfence.cli.verbs.words import understand

    try:
        names = understand(verb(words[0]), words[1:]).names
    except RingfenceError:
        names = ()
    return names[0] if names else "VG/LV"


def _write_no_more() -> None:
    """What is left in Python's buffer cannot be written either, which it must not say at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
