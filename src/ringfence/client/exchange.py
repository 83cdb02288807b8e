"""`exchange.c`, where it is built: what a link does for the usual lock, in three calls.

Whoever installs ringfence from its source with a C compiler and Python's headers has it (`hatch_build.py`).
Without it, or for what is not the usual case, all is the same and slower: `Link` does it.  To do without it,
set `say`, `hear` and `peek` of `link` to None before the first connection, or remove the library."""

from collections.abc import Callable
from typing import Any

from ringfence.client.messages import Grant
from ringfence.core.ids import Token
from ringfence.core.modes import MODES
from ringfence.locks.queues import EMPTY_LVB
from ringfence.wire.client import NO_VALUE

Way = tuple[Any, ...]
"""`Link._way`."""

say: Callable[[Way, bytes], bool] | None = None
hear: Callable[[Way, str, Any, int], Grant | None] | None = None
peek: Callable[[Way], bool] | None = None
try:
    from ringfence.client import _exchange

    _say, _hear, _peek = _exchange.say, _exchange.hear, _exchange.peek
except (ImportError, AttributeError):  # not built; or of another version
    IN_C = False
else:
    _exchange.bind(Grant, Token, MODES, NO_VALUE.encode(), EMPTY_LVB)
    say, hear, peek = _say, _hear, _peek
    IN_C = True
