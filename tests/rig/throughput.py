"""Inside a guest: MiB/s of sequential reads of 1 MiB without a cache, of several devices in turn.

    throughput.py ROUNDS MIB DEVICE:OFFSET_MIB...

In turn, for what else the machine does then befalls all of them; printed is each one's best round."""

import mmap
import os
import sys
import time

MIB = 1 << 20


def main(rounds: str, mib: str, *places: str) -> None:
    page = mmap.mmap(-1, MIB)
    best = dict.fromkeys(places, 0.0)
    for _ in range(int(rounds)):
        for place in places:
            device, _, offset = place.partition(":")
            fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
            began = time.monotonic()
            for number in range(int(mib)):
                os.preadv(fd, [page], (int(offset) + number) * MIB)
            best[place] = max(best[place], int(mib) / (time.monotonic() - began))
            os.close(fd)
    print(*(f"{best[place]:.2f}" for place in places))


if __name__ == "__main__":
    main(*sys.argv[1:])
