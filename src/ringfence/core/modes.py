"""Lock modes, with the DLM's numbers (Linux include/uapi/linux/dlmconstants.h)."""

import enum
from typing import Final


class Mode(enum.IntEnum):
    UN = -1
    """Not held."""
    NL = 0
    CR = 1
    CW = 2
    PR = 3
    PW = 4
    EX = 5


UN: Final = Mode.UN
EX: Final = Mode.EX
"""By their names alone: Python 3.11 takes ten times as long to find a member in its enum, and the rules of
locks ask at every turn whether there is one."""

MODE_NAMES: dict[Mode, str] = {mode: mode.name for mode in Mode}
MODES: dict[str, Mode] = {name: mode for mode, name in MODE_NAMES.items() if name != "UN"}
"""By name, those that can be asked for.  A table: to ask the enum itself takes ten times as long."""
