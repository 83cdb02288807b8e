"""A guest: writes to a volume ten times a second and notes how each went, until SIGTERM and a second more.

guest.py LOG.  A line a write: its number, or the error that ended it all."""

import signal
import sys
import time

from ringfence.lab.nbd_client import NbdClient

stopping: list[float] = []
signal.signal(signal.SIGTERM, lambda *_: stopping.append(time.monotonic()))
with open(sys.argv[1], "a", buffering=1) as log:
    try:
        disk = NbdClient("/run/ringfence/dev/vg0/vm1", "vm1")
        number = 0
        while not stopping or time.monotonic() < stopping[0] + 1:
            number += 1
            disk.write(0, number.to_bytes(8) * 512, fua=True)
            log.write(f"{number}\n")
            time.sleep(0.1)
        log.write("shut down\n")
    except OSError as error:
        log.write(f"error {error}\n")
