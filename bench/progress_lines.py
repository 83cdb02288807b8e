"""What a bench is about, as it goes on: a line each on stderr, with the seconds since it began."""

import sys
import time
from collections.abc import Callable

Say = Callable[[str], None]


def progress() -> Say:
    """It begins now."""
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {line}", file=sys.stderr, flush=True)

    return say
