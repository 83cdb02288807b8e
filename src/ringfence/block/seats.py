"""Seats: how many transfers may be on their way to a volume's disks at one time, and when there are none.

Who transfers takes one, and leaves it when the transfer is over; who waits, for authority or for its client
to read, has none.  So the seats bound what a host that freezes may yet write when it thaws."""

import threading
from typing import Protocol


class Seats(Protocol):
    def sit(self) -> None:
        """Returns when there is one."""

    def leave(self) -> None: ...

    def empty(self, wait_s: float) -> bool:
        """True: nobody sits, and nobody can until `fill`.  False: somebody still did after that time."""

    def fill(self) -> None: ...


class PlainSeats:
    """Seats of this process's own threads."""

    def __init__(self, seats: int) -> None:
        self._free = self._seats = seats
        self._emptied = False
        self._changed = threading.Condition()

    def sit(self) -> None:
        with self._changed:
            while self._emptied or not self._free:
                self._changed.wait()
            self._free -= 1

    def leave(self) -> None:
        with self._changed:
            self._free += 1
            if self._emptied:
                self._changed.notify_all()  # among them who empties
            else:
                self._changed.notify()

    def empty(self, wait_s: float) -> bool:
        with self._changed:
            self._emptied = True
            empty = self._changed.wait_for(lambda: self._free == self._seats, wait_s)
            if not empty:
                self._emptied = False
                self._changed.notify_all()
            return empty

    def fill(self) -> None:
        with self._changed:
            self._emptied = False
            self._changed.notify_all()
