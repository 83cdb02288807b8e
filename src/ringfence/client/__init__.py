"""The Python API: `connect` blocks, `ringfence.client.aio.connect` is for asyncio."""

from ringfence.client.blocking import Connection, Lockspace, connect
from ringfence.client.lock import Lock

__all__ = ["Connection", "Lock", "Lockspace", "connect"]
