"""Inside a guest: tell the story to the kernel; standard output gets each ioctl, request and answer."""

import fcntl
import json
import os
import sys

sys.path[:0] = ["/proj/tests/block"]

from fake_dm import story  # noqa: E402

from ringfence.block.dm.control import Control  # noqa: E402
from ringfence.block.dm.mapper import Line  # noqa: E402

DISK = "/dev/vdb"
conversation = []


def recorded(fd, request, buffer, mutate):
    asked = bytes(buffer)
    entry = {"request": request, "asked": _hex(asked), "size": len(asked)}
    conversation.append(entry)
    try:
        result = fcntl.ioctl(fd, request, buffer, mutate)
    except OSError as error:
        entry["errno"] = error.errno
        raise
    entry["answered"] = _hex(bytes(buffer))
    return result


def users(kernel):
    fd = os.open(f"/dev/{kernel}", os.O_RDONLY)
    return lambda: os.close(fd)


def _hex(data):
    return data.rstrip(b"\0").hex()


number = os.stat(DISK).st_rdev
place = f"{os.major(number)}:{os.minor(number)}"
lines = [
    Line(0, 8192, "linear", f"{place} 2048"),
    Line(8192, 4096, "striped", f"2 128 {place} 20480 {place} 40960"),
]
other = [*lines, Line(12288, 8192, "linear", f"{place} 81920")]
told = story(Control(ioctl=recorded), lines, other, users)
json.dump({"disk": place, "told": told, "conversation": conversation}, sys.stdout)
