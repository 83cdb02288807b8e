"""Runs on a lab host: takes lock after lock, as fast as it can, and writes down what it was granted and when.

    python faults_flood.py LOG

Each of another resource, for those that its node keeps would not go through the ring.  A line a grant: its
token, SEQ.REP.POSITION, and CLOCK_BOOTTIME in ms.  Ends with its host, or when its locks are lost."""

import sys

from ringfence.client import connect
from ringfence.core.errors import RingfenceError
from ringfence.host.clock import boottime_ns
from ringfence.wire import client as calls


def main(log: str) -> None:
    with connect() as daemon, open(log, "w", buffering=1) as out:
        daemon.call(calls.JoinSpace("flood"), timeout_ms=60_000)
        space = daemon.lockspace("flood")
        for number in range(1_000_000):
            lock = space.lock(f"r{number}", "EX")
            out.write(f"{lock.token} {boottime_ns() // 1_000_000}\n")
            lock.unlock()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except RingfenceError as error:
        print(error)
