"""The commands beside LVM2's verbs, run by click; its errors made ours."""

import click

from ringfence.cli.answers import one_line, print_error
from ringfence.cli.commands import root
from ringfence.core.errors import EXIT_BAD_COMMAND, EXIT_FAILED, EXIT_OK, BadInput, RingfenceError


def run_tree(words: list[str], as_json: bool) -> int:
    """Returns the exit code.  Raises RingfenceError, ReaderGone, KeyboardInterrupt."""
    try:
        code = root.main(words, prog_name="ringfence", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_BAD_COMMAND
    except click.UsageError as error:
        print_error(_usage(error, words), as_json)
        return EXIT_BAD_COMMAND
    except click.ClickException as error:
        print_error(RingfenceError(one_line(error.format_message())), as_json)
        return EXIT_FAILED
    except click.Abort:
        raise KeyboardInterrupt from None  # click's name for it
    return code if isinstance(code, int) else EXIT_OK


def _usage(error: click.UsageError, words: list[str]) -> RingfenceError:
    path = error.ctx.command_path if error.ctx is not None else _named(words)
    message = one_line(error.format_message()).rstrip(".")
    return BadInput(f"{path}: {message}", next=f"see `{path} --help`", code="bad-command")


def _named(words: list[str]) -> str:
    """The command that they begin with: click leaves it out where an option's value is missing."""
    path: str = "ringfence"
    command: click.Command = root
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        if found is None:
            break
        path, command = f"{path} {word}", found
    return path
