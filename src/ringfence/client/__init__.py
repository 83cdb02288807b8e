"""The Python API: `connect` blocks, `ringfence.client.aio.connect` is for asyncio."""

from ringfence.client.blocking import Connection, connect
from ringfence.client.handle import LockHandle
from ringfence.client.messages import Notice

__all__ = ["Connection", "LockHandle", "Notice", "connect"]
