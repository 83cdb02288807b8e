"""The daemon's hold on the block service: orders go in, incidents come out.

The pages a path needs are those of the incarnation that opens it: the one whose deadlines the engine
set last."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from ringfence.block.control import BlockService
from ringfence.core.errors import Refused
from ringfence.daemon.ports import Feed
from ringfence.engine.inputs import PathIncident
from ringfence.engine.orders import (
    BlockOrder,
    ClosePath,
    MirrorPath,
    OpenPath,
    OpenPaths,
    PathsTogether,
    ReloadPath,
    SealPath,
    UnmirrorPath,
)
from ringfence.host.pages import Pages
from ringfence.wire.entries import Incident

RECORDED_S = 60.0
"""How long an incident may take through the cluster before its own host's history is enough."""


class BlockPaths:
    """Fulfils `ports.Block`.

    Args:
        keep: records an incident in this host's own history, if the cluster does not in time.  False:
            it could not; it is asked again, and the block service keeps the incident until then.
    """

    def __init__(self, service: BlockService, pages: "DaemonPages", keep: Callable[[Incident], bool]) -> None:
        self._service = service
        self._pages = pages
        self._keep = keep
        self._watching: asyncio.Task[None] | None = None
        self._awaited: Incident | None = None
        self._seen = asyncio.Event()

    async def start(self, feed: Feed) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch(feed), name="block incidents")

    def do(self, order: BlockOrder) -> Coroutine[Any, Any, Any]:
        """The page is chosen now, not when the coroutine runs: by then another life may have begun."""
        match order:
            case OpenPath():
                return self._service.open(order, [self._pages.write_page(order.vg)])
            case PathsTogether():
                vgs = dict.fromkeys(one.vg for one in order.orders if isinstance(one, OpenPath))
                return self._service.together(order, {vg: [self._pages.write_page(vg)] for vg in vgs})
            case ReloadPath():
                return self._service.reload(order)
            case MirrorPath():
                return self._service.mirror(order)
            case SealPath():
                return self._service.seal(order)
            case UnmirrorPath():
                return self._service.unmirror(order)
            case ClosePath():
                return self._service.close(order.vg, order.lv, uuid=order.uuid)
            case OpenPaths():
                return self._service.list()

    async def drop_all(self) -> None:
        await self._service.drop_all()

    def recorded(self, fields: dict[str, Any]) -> None:
        if self._awaited is not None and _same(self._awaited, fields):
            self._seen.set()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._service.aclose()

    async def _watch(self, feed: Feed) -> None:
        """One at a time: to ask for the next acknowledges this one, so it is recorded before that."""
        async for incident in self._service.incidents():
            self._awaited = incident
            self._seen.clear()
            feed(PathIncident(incident))
            try:
                await asyncio.wait_for(self._seen.wait(), RECORDED_S)
            except TimeoutError:
                while not self._keep(incident):  # noqa: ASYNC110 - nobody tells when a disk has room again
                    await asyncio.sleep(RECORDED_S)


def _same(incident: Incident, fields: dict[str, Any]) -> bool:
    """The cluster may add to an incident (whose life it was), never change what happened."""
    told = msgspec.to_builtins(incident)
    return all(fields.get(name) == told[name] for name in ("kind", "what", "volume", "at_wall_ms"))


class DaemonPages:
    """Fulfils `ports.Pages`: authority pages, and which incarnation writes them now."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._incarnation: int | None = None

    def set(self, incarnation: int, page: str, deadline_ns: int) -> None:
        self._incarnation = max(self._incarnation or 0, incarnation)  # pages of earlier ones may be inherited
        self._pages.set(incarnation, page, deadline_ns)

    def lose_all(self) -> None:
        self._pages.lose_all()

    @property
    def incarnation(self) -> int | None:
        """None before the engine has set anything."""
        return self._incarnation

    def reader(self) -> Callable[[str], int]:
        """Reads deadlines of the incarnation that is current now, also when another has begun.

        0 (lost) for a page that does not exist; all of them, before the engine has set anything."""
        incarnation = self._incarnation
        if incarnation is None:
            return lambda page: 0
        return lambda page: self._pages.deadline(incarnation, page)

    def write_page(self, vg: str) -> Path:
        """The page that a path of this VG needs.  Raises Refused before there is authority at all."""
        if self._incarnation is None:
            raise Refused("this node has no authority yet", next="wait until it is ready", retry=True)
        return self._pages.path(self._incarnation, f"vg/{vg}")
