"""On whose behalf the asyncio client asks for locks: see `ringfence.client.owners`."""

import asyncio
import weakref
from typing import Any

from ringfence.client.owners import Names


class TaskNames(Names):
    def __init__(self) -> None:
        super().__init__()
        # Not a context variable: a task inherits those of the one that began it.
        self._tasks: weakref.WeakKeyDictionary[asyncio.Task[Any], str] = weakref.WeakKeyDictionary()

    def own(self) -> str:
        """The task's that calls."""
        task = asyncio.current_task()
        assert task is not None, "nothing but a task awaits a lock"
        name = self._tasks.get(task)
        if name is None:
            name = self._tasks[task] = self.new()
        return name
