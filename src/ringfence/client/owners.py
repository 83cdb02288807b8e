"""On whose behalf locks are asked for: what ties them together in the search for deadlocks.

A thread that waits for one of its locks lets go of no other, whatever connections to the daemon carry
them; so does a task.  Each has a name here (`wire.client.Lock.thread`), which is given to no other, in this
process or another one.

A cached lock goes from user to user, and the daemon hears of none but the first: it bears nobody's name
and stands for itself.  So a ring through one may be missed, and none is made up."""

import itertools
import os
import threading


class Names:
    """Of one Connection.  A child process cannot use its parent's, and so gives none of its names."""

    def __init__(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count(1)

    def new(self) -> str:
        """A name that nobody else has: 18 bytes and more, far less than the daemon's 64."""
        return f"{self._prefix}-{next(self._numbers)}"


class ThreadNames(Names):
    def __init__(self) -> None:
        super().__init__()
        self._local = threading.local()

    def own(self) -> str:
        """The thread's that calls."""
        try:
            name: str = self._local.name
        except AttributeError:
            name = self._local.name = self.new()
        return name
