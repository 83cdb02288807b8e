"""Inside a guest whose clock counts instructions: reads of 1 MiB without a cache, of a disk, and of the same
through device-mapper, by a table that `dmsetup` made and by ours.

    throughput.py READS DISK_US...

DISK_US: what the disk takes for one.  It is null_blk's, which ends a request so much later by the guest's
own clock, and has no data.  Printed is a line for each: the medians, in us, of the disk, through dmsetup's
table and through ours."""

import mmap
import os
import statistics
import subprocess
import sys
import time

from ringfence.block.dm.control import Control
from ringfence.block.dm.mapper import lines_of
from ringfence.wire.block import Extent

MIB = 1 << 20
DISK = "/dev/nullb0"
LV = Extent(DISK, MIB, 64 * MIB)
STOCK, OURS = "stock", "LVM-ours"


def main(reads: str, *disks_us: str) -> None:
    mapper = Control()
    for disk_us in disks_us:
        options = ("nr_devices=1", "gb=1", "bs=512", "max_sectors=2560", "irqmode=2")
        run("modprobe", "null_blk", *options, f"completion_nsec={disk_us}000")
        length, start = LV.length_bytes // 512, LV.start_bytes // 512
        run("dmsetup", "create", STOCK, "--table", f"0 {length} linear {DISK} {start}")
        ours = mapper.create("ours", OURS).kernel
        mapper.load(OURS, lines_of([LV]))
        mapper.resume(OURS)
        places = ((DISK, LV.start_bytes), (f"/dev/mapper/{STOCK}", 0), (f"/dev/{ours}", 0))
        print(*taken_us(int(reads), *places))
        mapper.remove(OURS)
        run("dmsetup", "remove", STOCK)
        run("rmmod", "null_blk")


def taken_us(reads, *places):
    """The median of each (device, offset), in turn, and each as often first."""
    page = mmap.mmap(-1, MIB)
    fds = [os.open(path, os.O_RDONLY | os.O_DIRECT) for path, _ in places]
    taken = [[] for _ in places]
    for number in range(reads):
        for turn in range(len(places)):
            which = (number + turn) % len(places)
            at = places[which][1] + number * MIB % LV.length_bytes
            began = time.perf_counter()
            os.preadv(fds[which], [page], at)
            taken[which].append(time.perf_counter() - began)
    for fd in fds:
        os.close(fd)
    return [f"{statistics.median(one) * 1e6:.2f}" for one in taken]


def run(*words: str) -> None:
    subprocess.run(words, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
