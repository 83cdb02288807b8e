"""The last exchanges with stock commands, for `lvmlockctl --dump`.

They come by the thousand, so they are kept as they are and put into words when somebody asks."""

from collections import deque
from datetime import UTC, datetime

from ringfence.wire.lvmlockd import LvmAsked

MOST = 4000
"""A line has 250 bytes at most: they fit into what lvmlockctl has room for (`info.OLD_DUMP_BYTES`)."""
LINE_BYTES = 250


class Recent:
    def __init__(self) -> None:
        self._told: deque[tuple[int, str, LvmAsked, int]] = deque(maxlen=MOST)

    def answered(self, wall_ms: int, who: str, asked: LvmAsked, result: int) -> None:
        self._told.append((wall_ms, who, asked, result))

    def print(self) -> bytes:
        lines = [f"the last requests, at most {MOST} (UTC); why they were refused: journalctl -u ringfence"]
        lines += [_line(*one) for one in self._told]
        return b"".join(line.encode()[: LINE_BYTES - 1] + b"\n" for line in lines)


def _line(wall_ms: int, who: str, asked: LvmAsked, result: int) -> str:
    when = datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    volume = f"{asked.vg_name}/{asked.lv_name or asked.lv_uuid}" if asked.lv_uuid else asked.vg_name
    words = (asked.op, asked.mode, volume, ",".join(asked.opts))
    return f"{when} {who}: {' '.join(word for word in words if word)} = {result}"
