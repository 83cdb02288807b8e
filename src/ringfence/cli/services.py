"""Services whose own entry point is not click's."""

import click

from ringfence.block.__main__ import main


@click.command(
    add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
@click.pass_context
def block(ctx: click.Context) -> int:
    """Run the service that serves active LVs as NBD exports, in the foreground until SIGTERM.

    Options: `ringfence block --help`."""
    return main(ctx.args)
