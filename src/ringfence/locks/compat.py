"""Which lock modes agree with one another.

The table is VMS's, as the Linux DLM has it (fs/dlm/lock.c, `__dlm_compat_matrix`); it is
symmetric.  By what they shut out, the modes form a lattice: UN < NL < CR < {CW, PR} < PW < EX,
where CW and PR shut out one another and PW is the weakest mode that stands in for both."""

from ringfence.core.modes import UN, Mode

_EVERY = (UN, Mode.NL, Mode.CR, Mode.CW, Mode.PR, Mode.PW, Mode.EX)

_AGREES: dict[Mode, tuple[Mode, ...]] = {
    UN: _EVERY,
    Mode.NL: _EVERY,
    Mode.CR: (UN, Mode.NL, Mode.CR, Mode.CW, Mode.PR, Mode.PW),
    Mode.CW: (UN, Mode.NL, Mode.CR, Mode.CW),
    Mode.PR: (UN, Mode.NL, Mode.CR, Mode.PR),
    Mode.PW: (UN, Mode.NL, Mode.CR),
    Mode.EX: (UN, Mode.NL),
}


def _weakest_over(a: Mode, b: Mode) -> Mode:
    return Mode.PW if {a, b} == {Mode.CW, Mode.PR} else max(a, b)


_SUPREMUM = {(a, b): _weakest_over(a, b) for a in _EVERY for b in _EVERY}
"""A table, for these three are asked a dozen times for each lock."""


def compatible(a: Mode, b: Mode) -> bool:
    """Whether two holders may hold these modes of one resource at the same time."""
    return b in _AGREES[a]


def supremum(a: Mode, b: Mode) -> Mode:
    """The weakest mode that covers both: the greater, but PW for CW with PR."""
    return _SUPREMUM[a, b]


def covers(held: Mode, wanted: Mode) -> bool:
    """Whether a holder of `held` may act as if it held `wanted`."""
    return _SUPREMUM[held, wanted] is held
