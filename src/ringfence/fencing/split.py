"""Where an attempt's time goes: to the agents, to what is waited for as configured, and to us."""


class Split:
    """Told of spans as they end; what two of them share counts once, for the first.

    Args:
        began_ms: when the attempt began."""

    def __init__(self, began_ms: float) -> None:
        self._began_ms = self._covered_ms = began_ms
        self._agents_ms = self._waits_ms = 0.0

    def agent(self, began_ms: float, took_ms: float) -> None:
        """An agent ran, by its runner's own measure."""
        self._agents_ms += self._cover(began_ms, began_ms + took_ms)

    def wait(self, began_ms: float, until_ms: float) -> None:
        """A device settles, is left alone between looks, or has no session free."""
        self._waits_ms += self._cover(began_ms, until_ms)

    def ended(self, now_ms: float) -> tuple[int, int, int]:
        """(agents, waits, ours) of the whole, in ms."""
        whole_ms = now_ms - self._began_ms
        ours_ms = max(0.0, whole_ms - self._agents_ms - self._waits_ms)
        return round(self._agents_ms), round(self._waits_ms), round(ours_ms)

    def _cover(self, began_ms: float, ended_ms: float) -> float:
        new_ms = max(0.0, ended_ms - max(began_ms, self._covered_ms))
        self._covered_ms = max(self._covered_ms, ended_ms)
        return new_ms
