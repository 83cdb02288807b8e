"""What a process that did not start has said."""

import os
from pathlib import Path


def last_line(log: Path) -> str:
    """For an error: the log's last line; of a log that could not be written, why."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    if lines:
        return lines[-1][:200]
    where = os.statvfs(log.parent)
    return f"there is no room left in {log.parent}" if where.f_bavail == 0 else "its log is empty"
