"""Inside a guest: write block after block to a device without a cache, and note when each was answered.

    writer.py DEVICE SIZE_BYTES LOG

A line a write, of BOOTTIME seconds: "began ended errno".  It goes on after errors, one in 50 ms."""

import mmap
import os
import sys
import time

BLOCK_BYTES = 4096


def main(device: str, size_bytes: str, path: str) -> None:
    os.nice(19)  # the guest has one slow processor, and its daemon needs it
    page = mmap.mmap(-1, BLOCK_BYTES)
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT)
    with open(path, "w", buffering=1) as log:
        number = 0
        while True:
            page[:8] = number.to_bytes(8, "little")
            began = time.clock_gettime(time.CLOCK_BOOTTIME)
            error = 0
            try:
                os.pwrite(fd, page, number * BLOCK_BYTES % int(size_bytes))
            except OSError as failed:
                error = failed.errno or -1
            log.write(f"{began:.6f} {time.clock_gettime(time.CLOCK_BOOTTIME):.6f} {error}\n")
            number += 1
            time.sleep(0.05 if error else 0.004)


if __name__ == "__main__":
    main(*sys.argv[1:])
