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
