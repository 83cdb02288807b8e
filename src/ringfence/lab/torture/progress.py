"""How far the clients are: what is new in their logs, counted."""

from pathlib import Path

WORDS = {"grants": b'"type":"Granted"', "uses": b'"type":"Used"', "writes": b'"type":"Acknowledged"'}


class Progress:
    """Args: directory: of the histories; the writers' logs are below it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read_bytes: dict[Path, int] = {}
        self._counts = dict.fromkeys(WORDS, 0)

    def __str__(self) -> str:
        """Looks first."""
        for path in self._directory.rglob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read_bytes.get(path, 0))
                data = file.read()
            data = data[: data.rfind(b"\n") + 1]  # a line that is being written is for the next look
            self._read_bytes[path] = self._read_bytes.get(path, 0) + len(data)
            for what, word in WORDS.items():
                self._counts[what] += data.count(word)
        return ", ".join(f"{count} {what}" for what, count in self._counts.items())
