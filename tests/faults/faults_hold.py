"""Runs on a lab host: takes so many locks, says in how many seconds, and holds them until it is ended.

    python faults_hold.py COUNT LOG"""

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ringfence.client import aio
from ringfence.wire import client as calls

AT_ONCE = 256


async def main(count: int, taken: Callable[[float], None]) -> None:
    daemon = await aio.connect()
    await daemon.call(calls.JoinSpace("many"), timeout_ms=60_000)
    space = await daemon.lockspace("many")
    held, left = [], iter(range(count))
    began = time.monotonic()

    async def take() -> None:
        for number in left:
            held.append(await space.lock(f"r{number}", "EX"))

    await asyncio.gather(*(take() for _ in range(AT_ONCE)))
    taken(time.monotonic() - began)
    await asyncio.Event().wait()


if __name__ == "__main__":
    log = Path(sys.argv[2])
    asyncio.run(main(int(sys.argv[1]), lambda took_s: print(f"{took_s:.1f}", file=log.open("w"), flush=True)))
