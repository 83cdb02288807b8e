"""What a command line that ran in this process has printed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


Run = Callable[..., Ran]
