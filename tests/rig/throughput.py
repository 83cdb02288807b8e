"""Inside a guest: reads of 1 MiB without a cache, of two devices in turn; what each takes, in microseconds.

    throughput.py READS MIB DEVICE:OFFSET_MIB DEVICE:OFFSET_MIB

Read by read in turn, and each as often first, so that what else the machine does befalls both; printed is
what a tenth of the reads stay below, which it disturbs least."""

import mmap
import os
import statistics
import sys
import time

MIB = 1 << 20


def main(reads: str, mib: str, *places: str) -> None:
    page = mmap.mmap(-1, MIB)
    taken: dict[str, list[float]] = {place: [] for place in places}
    fds = {place: os.open(place.partition(":")[0], os.O_RDONLY | os.O_DIRECT) for place in places}
    for number in range(int(reads)):
        for place in places if number % 2 else places[::-1]:
            at = (int(place.partition(":")[2]) + number % int(mib)) * MIB
            began = time.perf_counter()
            os.preadv(fds[place], [page], at)
            taken[place].append(time.perf_counter() - began)
    print(*(f"{statistics.quantiles(taken[place], n=10)[0] * 1e6:.1f}" for place in places))


if __name__ == "__main__":
    main(*sys.argv[1:])
