"""What a checker raises."""


class SafetyViolation(Exception):
    """An invariant does not hold.  The message begins with its number in the architecture's list."""


class LivenessViolation(Exception):
    """Invariant 11 does not hold."""
