"""The command line: words typed, tables printed, exit codes kept.

Exit codes are LVM2's: 0 done, 3 bad command line, 5 refused or failed; `status` says 1 when anything
is blocked.  130 and 141 are a shell's for Ctrl-C and for a reader that went away.  An error is one
line on stderr, or with --json one object on stdout."""

import errno
import os
import signal
import sys
from collections.abc import Sequence

import click

from ringfence.cli.answers import json_asked, print_error
from ringfence.cli.commands import ReaderGone, root
from ringfence.core.errors import EXIT_BAD_COMMAND, EXIT_FAILED, EXIT_OK, BadInput, RingfenceError

EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_NO_READER = 128 + signal.SIGPIPE
NOT_WRITTEN = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.  Returns the exit code; prints everything there is to say."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = json_asked(words)
    if sys.stdout is None:  # closed (>&-): the exit code is still worth having
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    try:
        code = root.main(words, prog_name="ringfence", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_BAD_COMMAND
    except click.UsageError as error:
        print_error(_usage(error), as_json)
        return EXIT_BAD_COMMAND
    except click.ClickException as error:
        print_error(RingfenceError(error.format_message()), as_json)
        return EXIT_FAILED
    except RingfenceError as error:
        print_error(error, as_json)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
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
    return code if isinstance(code, int) else EXIT_OK


def _write_no_more() -> None:
    """What is left in Python's buffer cannot be written either, which it must not say at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.UsageError) -> RingfenceError:
    path = error.ctx.command_path if error.ctx is not None else "ringfence"
    message = error.format_message().rstrip(".")
    return BadInput(f"{path}: {message}", next=f"see `{path} --help`", code="bad-command")
