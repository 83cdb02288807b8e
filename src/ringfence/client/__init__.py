"""The Python API: `connect` blocks, `ringfence.client.aio.connect` is for asyncio."""

from ringfence.client.blocking import Connection, connect
from ringfence.client.lock import Lock
from ringfence.client.lockspace import Lockspace

__all__ = ["Connection", "Lock", "Lockspace", "connect"]
