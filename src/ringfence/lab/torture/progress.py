"""How far the clients are: what is new in their logs, counted."""

from collections.abc import Collection
from pathlib import Path

WORDS = {"grants": b'"type":"Granted"', "uses": b'"type":"Used"', "writes": b'"type":"Acknowledged"'}


class Progress:
    """Args: directory: of the histories; the writers' logs are below it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read_bytes: dict[Path, int] = {}
        self._counts = dict.fromkeys(WORDS, 0)
        self._written: set[str] = set()
        """LVs with an acknowledged write."""

    def __str__(self) -> str:
        """Looks first."""
        self._look()
        return ", ".join(f"{count} {what}" for what, count in self._counts.items())

    def begun(self, lvs: Collection[str]) -> bool:
        """Whether locks are used, and each of these LVs was written to.  Looks first."""
        self._look()
        return all(self._counts.values()) and self._written.issuperset(lvs)

    def _look(self) -> None:
        for path in self._directory.rglob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read_bytes.get(path, 0))
                data = file.read()
            data = data[: data.rfind(b"\n") + 1]  # a line that is being written is for the next look
            self._read_bytes[path] = self._read_bytes.get(path, 0) + len(data)
            for what, word in WORDS.items():
                self._counts[what] += data.count(word)
            if WORDS["writes"] in data:
                self._written.add(path.name.partition(".")[0])
