"""The command `ringfence`, and `python -m ringfence`.

Ctrl-C may come at any time, and first of all while what a command needs is being loaded."""

import sys


def main() -> int:
    """Returns the exit code."""
    try:
        from ringfence import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130  # as `cli.EXIT_INTERRUPTED`, which may not be there yet


if __name__ == "__main__":
    sys.exit(main())
