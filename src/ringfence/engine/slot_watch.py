"""What this node sees of others' disk slots: whether they still write, and since when they do not.

A change between two reads is a write that landed after the earlier one was ordered.  One such write may have
been on its way when its host ended; of two, the later was ordered by a host that had the earlier one's
answer, after that moment."""

import msgspec

from ringfence.core.ids import Life
from ringfence.wire.slots import Own


class _Watch(msgspec.Struct):
    own: Own
    since_ns: int
    """When this node first saw it so."""
    read_ns: int
    """When the newest read was ordered."""
    moved_ns: int = 0
    """When the last change was seen."""
    changes_ns: tuple[int, int] = (0, 0)
    """Of the last two changes, when the read before each was ordered; 0: there was none."""


class Watches:
    def __init__(self) -> None:
        self._watches: dict[tuple[str, int], _Watch] = {}

    def keep(self, vg: str, nodes: tuple[int, ...]) -> None:
        """Forget nodes of this VG that are not watched any more."""
        for key in [key for key in self._watches if key[0] == vg and key[1] not in nodes]:
            del self._watches[key]

    def forget(self, vg: str) -> None:
        """What is read from now on is read elsewhere."""
        self.keep(vg, ())

    def saw(self, vg: str, node: int, own: Own | None, ordered_ns: int, now_ns: int) -> None:
        if own is None:
            return
        watch = self._watches.get((vg, node))
        if watch is None or not watch.own.life.same_boot(own.life):
            self._watches[vg, node] = _Watch(own, now_ns, ordered_ns)
            return
        if _place(watch.own) != _place(own):
            watch.changes_ns = watch.changes_ns[1], watch.read_ns
            watch.own, watch.since_ns, watch.moved_ns = own, now_ns, now_ns
        watch.read_ns = ordered_ns

    def still_since_ns(self, vg: str, node: int, own: Own | None) -> int:
        """Since when the slot reads as it does now; 0: it was not seen so before."""
        watch = self._watches.get((vg, node))
        if watch is None or own is None or _place(watch.own) != _place(own):
            return 0
        return watch.since_ns

    def moved_ns(self, node: int) -> int:
        """When a slot of the node was last seen to move; 0: never."""
        return max((one.moved_ns for key, one in self._watches.items() if key[1] == node), default=0)

    def moved_twice(self, node: int, moment_ns: int) -> str:
        """The VG on which the node has written, and written again, after that moment; "": on none."""
        for (vg, other), watch in sorted(self._watches.items()):
            if other == node and moment_ns and watch.changes_ns[0] >= moment_ns:
                return vg
        return ""

    def lives(self) -> list[tuple[str, int, Life]]:
        """(VG, node, life) of each slot that is watched."""
        return [(*key, watch.own.life) for key, watch in sorted(self._watches.items())]


def _place(own: Own) -> tuple[Life, int]:
    return own.life, own.counter
