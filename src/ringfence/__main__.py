"""The command `ringfence`, and `python -m ringfence`.

Ctrl-C may come at any time, and first of all while what a command needs is being loaded."""

import os
import sys


def main() -> int:
    """Returns the exit code."""
    try:
        from ringfence import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130  # as `cli.EXIT_INTERRUPTED`, which may not be there yet


def run() -> None:
    """The whole life of the process.  Does not return."""
    code = main()
    if "ringfence.cli.verbs.run" in sys.modules:
        # LVM2's verbs leave nothing that somebody would have to close; to take Python apart piece by piece
        # takes a tenth of such a command.
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
