"""Lock modes, with the DLM's numbers (Linux include/uapi/linux/dlmconstants.h)."""

import enum


class Mode(enum.IntEnum):
    UN = -1
    """Not held."""
    NL = 0
    CR = 1
    CW = 2
    PR = 3
    PW = 4
    EX = 5


MODE_NAMES: dict[Mode, str] = {mode: mode.name for mode in Mode}
MODES: dict[str, Mode] = {name: mode for mode, name in MODE_NAMES.items() if name != "UN"}
"""By name, those that can be asked for.  A table: to ask the enum itself takes ten times as long."""
