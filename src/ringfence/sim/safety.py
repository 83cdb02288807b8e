"""What a checker raises."""


class SafetyViolation(Exception):
    """An invariant does not hold.  The message begins with its number in the architecture's list."""
