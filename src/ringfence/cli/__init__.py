"""The command line: words typed, tables printed, exit codes kept.

Exit codes are LVM2's: 0 done, 3 bad command line, 5 refused or failed; `status` says 1 when anything
is blocked.  An error is one line on stderr, or with --json one object on stdout."""

import os
import signal
import sys
from collections.abc import Sequence

import click

from ringfence.cli.answers import json_asked, print_error
from ringfence.cli.commands import ReaderGone, root
from ringfence.core.errors import EXIT_BAD_COMMAND, EXIT_FAILED, EXIT_OK, BadInput, RingfenceError

EXIT_INTERRUPTED = 128 + signal.SIGINT


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.  Returns the exit code; prints everything there is to say."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = json_asked(words)
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
        return _reader_gone()
    return code if isinstance(code, int) else EXIT_OK


def _reader_gone() -> int:
    """The reader has seen enough (`ringfence events | head`).  Python must not say so at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_OK


def _usage(error: click.UsageError) -> RingfenceError:
    path = error.ctx.command_path if error.ctx is not None else "ringfence"
    message = error.format_message().rstrip(".")
    return BadInput(f"{path}: {message}", next=f"see `{path} --help`", code="bad-command")
