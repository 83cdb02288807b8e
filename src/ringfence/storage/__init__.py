"""This host's devices: scan, read and write them, directly and behind a guard.

`Storage(paths, guard).do(order)` carries out the storage orders of `engine.orders`; it blocks and
belongs in a worker thread.  `direct` is one open device, `scan` finds what the configuration allows."""

from ringfence.storage.driver import CrashHook, Guard, Moment, Storage

__all__ = ["CrashHook", "Guard", "Moment", "Storage"]
