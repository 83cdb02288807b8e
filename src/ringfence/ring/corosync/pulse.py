"""Whether this process has just stood still: a host that was frozen finds itself alone for a moment.

Its corosync has missed so many tokens that it first forms a ring of its own, and meets the others some
tenths of a second later.  With three nodes and more such a ring has no majority.  One of two has: it would
take the other for lost, and become a stranger to a cluster that has long gone on without it.

Pure: time comes in."""

NS_PER_MS = 1_000_000


class Pulse:
    """Args: most_ms: a longer time between two beats is a stillness."""

    def __init__(self, most_ms: int, now_ns: int) -> None:
        self.most_ms = most_ms
        self._beat_ns = now_ns
        self._still_until_ns = now_ns - (1 << 62)

    def beat(self, now_ns: int) -> None:
        if now_ns - self._beat_ns > self.most_ms * NS_PER_MS:
            self._still_until_ns = now_ns
        self._beat_ns = now_ns

    def stood_still(self, now_ns: int, within_ms: int) -> bool:
        """A stillness goes on, or ended no longer ago than this."""
        self.beat(now_ns)
        return now_ns - self._still_until_ns < within_ms * NS_PER_MS
