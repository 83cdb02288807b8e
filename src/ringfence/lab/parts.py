"""The services of a lab host, each by its name: how it is started, and how it is found again."""

import enum
import sys

from ringfence.lab.corosync import CorosyncFiles
from ringfence.lab.layout import Layout


class Part(enum.Enum):
    COROSYNC = "corosync"
    """On labs whose ring it is; the others' is the hub."""
    BLOCK = "block"
    DAEMON = "daemon"

    def argv(self, places: Layout, node: str) -> list[str]:
        root = places.root(node)
        if self is Part.COROSYNC:
            return CorosyncFiles(root).argv()
        if self is Part.BLOCK:
            return [sys.executable, "-m", "ringfence.block", "--root", str(root)]
        return [sys.executable, "-m", "ringfence", "daemon", "--node", node, "--root", str(root)]

    @property
    def words(self) -> str:
        """What is in its command line, and in no other of its host."""
        return _WORDS[self]

    @property
    def log(self) -> str:
        """Its file in the host's root."""
        return f"{self.value}.out" if self is Part.COROSYNC else f"{self.value}.log"


_WORDS = {
    Part.COROSYNC: "corosync -f -c",
    Part.BLOCK: "ringfence.block --root",
    Part.DAEMON: "ringfence daemon --node",
}
