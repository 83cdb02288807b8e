"""The Python API: `connect` blocks, `ringfence.client.aio.connect` is for asyncio.

Each name is loaded when it is used: a command that asks the daemon one thing (`brief`) needs none of them."""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from typing import Any

    from ringfence.client.blocking import Connection, connect
    from ringfence.client.lock import Lock
    from ringfence.client.lockspace import Lockspace

__all__ = ["Connection", "Lock", "Lockspace", "connect"]

_ROOMS = {"Connection": "blocking", "connect": "blocking", "Lock": "lock", "Lockspace": "lockspace"}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_ROOMS[name]}"), name)
