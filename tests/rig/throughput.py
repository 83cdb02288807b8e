"""Inside a guest: reads of 1 MiB without a cache, one after the other, of two devices; what each takes.

    throughput.py ROUNDS READS MIB DEVICE:OFFSET_MIB DEVICE:OFFSET_MIB

Each round reads a stretch of the one device, then of the other, the next round in the other order.  Printed
is, for each device, the median of its rounds in microseconds a read."""

import mmap
import os
import statistics
import sys
import time

MIB = 1 << 20


def main(rounds: str, reads: str, mib: str, *places: str) -> None:
    page = mmap.mmap(-1, MIB)
    taken: dict[str, list[float]] = {place: [] for place in places}
    for number in range(int(rounds)):
        for place in places if number % 2 else places[::-1]:
            device, _, start_mib = place.partition(":")
            fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
            began = time.perf_counter()
            for read in range(int(reads)):
                os.preadv(fd, [page], (int(start_mib) + read % int(mib)) * MIB)
            taken[place].append((time.perf_counter() - began) / int(reads))
            os.close(fd)
    print(*(f"{statistics.median(taken[place]) * 1e6:.1f}" for place in places))


if __name__ == "__main__":
    main(*sys.argv[1:])
