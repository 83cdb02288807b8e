"""The ways in which a lab's fence devices lie and fail."""

import enum

DELAY_S = 3.0
"""How long after its word a device of mode `late` or `pending` acts, and for how long `lag` shows the past,
where nobody says otherwise."""


class Lie(enum.Enum):
    """What a device does with an order.  Without one it obeys and tells the truth."""

    NONE = "none"
    ACK_IGNORE = "ack-ignore"
    """Says done, does nothing; status tells the truth."""
    ECHO = "echo"
    """Says done, does nothing; the next status repeats the order, those after it tell the truth."""
    PERFECT = "perfect"
    """Says done, does nothing; from then on status says what was ordered."""
    LATE = "late"
    """Says done; does it a while later."""
    LAG = "lag"
    """Does it at once; its status says for a while what was before."""
    PENDING = "pending"
    """Accepts; status says at once what was ordered, marked as pending, until it is done a while later."""
    SAY_OFF = "say-off"
    """Says off whatever is true, and does nothing."""
    WRONG_HOST = "wrong-host"
    """Is wired to the next host."""
    HANG = "hang"
    """Never answers."""
    NO_LOGIN = "no-login"
    """Refuses its credentials."""
    UNREACHABLE = "unreachable"
    """Hangs up at once; its port is closed."""
    GARBAGE = "garbage"
    """Answers nonsense, where it can, 10 MB of it."""


OF_THE_LINE = frozenset({Lie.HANG, Lie.NO_LOGIN, Lie.UNREACHABLE, Lie.GARBAGE})
"""Those of a device as a whole, whoever of its hosts is meant: it does not get so far as to hear an order."""
PLAIN = frozenset(Lie) - {Lie.PENDING, Lie.GARBAGE}
"""What the lab's own agents' devices can do."""
