"""The plane as the block service has it: which LVs it serves, what an earlier service left, and the guard.

Devices of LVs are named and numbered as LVM2 does it, so that `lvs` and `dmsetup info` show them as
active."""

import asyncio
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from ringfence.block.dm.control import Control
from ringfence.block.dm.counters import BLOCK, Written
from ringfence.block.dm.device import Mapped
from ringfence.block.dm.guard import Guard
from ringfence.block.dm.handle import MappedHandle
from ringfence.block.dm.mapper import Mapper, lines_of, mapper_uuid
from ringfence.block.dm.stock import Stock, StockVg
from ringfence.block.incident_file import IncidentFile
from ringfence.core.errors import BadInput, RingfenceError, Unavailable
from ringfence.host.clock import wall_ms
from ringfence.host.mapper import SharedVg
from ringfence.wire import block as wire
from ringfence.wire.entries import Incident

Told = Callable[[wire.IncidentStored], None]


class DmPlane:
    """
    Args:
        run: RUN; records of what is open lie in RUN/mapped.
        dev: where the LVs' links appear: DEV/VG/LV.
        boot: this boot's id; empty: stock LVM2's tables are not looked after.
        group: of the devices' nodes; -1: unchanged.
        file: where incidents are stored first.
        told: hears of each, in the event loop.
        say: a line each, for people.
        make: device-mapper; raises Unavailable where there is none.
    """

    def __init__(
        self, run: Path, dev: Path, boot: str, group: int, file: IncidentFile, told: Told,
        say: Callable[[str], None], make: Callable[[], Mapper] = Control, block: Path = BLOCK,
    ) -> None:  # fmt: skip
        self._run, self._dev, self._group, self._block = run, dev, group, block
        self._file = file
        self._told = told
        self._say = say
        self._make = make
        self._mapper: Mapper | None = None
        self._guard: Guard | None = None
        self._stock: Stock | None = None
        self._boot = boot
        self._hold_ms = 60_000
        self._handles: list[MappedHandle] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- life -------------------------------------------------------------------------

    async def start(self, hold_ms: int) -> list[MappedHandle]:
        """Begin to guard.  Returns what an earlier service of this host has left open, guarded from now on.

        Args: hold_ms: how long stock LVM2's tables may be held."""
        self._loop = asyncio.get_running_loop()
        self._hold_ms = hold_ms
        try:
            mapper = self._device_mapper()
        except Unavailable:
            return []
        assert self._guard is not None
        return await asyncio.to_thread(self._left, mapper, self._guard)

    def close(self) -> None:
        """Tables stay as they are, unguarded: close them first."""
        if self._stock is not None:
            self._stock.close()
        if self._guard is not None:
            self._guard.close()

    def _device_mapper(self) -> Mapper:
        """Raises Unavailable.  Looked for again at each need: its module may be loaded later."""
        if self._mapper is None:
            self._mapper = self._make()
            self._guard = Guard()
            self._guard.start()
            if self._boot:
                authority = self._run / "authority"
                self._stock = Stock(
                    self._run / "lvm-locks", authority, self._boot, self._guard, self._stock_vg, self._say
                )
                self._stock.start()
        return self._mapper

    def _left(self, mapper: Mapper, guard: Guard) -> list[MappedHandle]:
        handles = []
        for record in sorted((self._run / "mapped").glob("LVM-*")):
            try:
                call = wire.decode_request(record.read_bytes()).call
                assert isinstance(call, wire.Open)
                mapped = self._mapped(call, mapper)
                if mapped.adopt():
                    handles.append(self._handle(mapped, guard))
            except (OSError, RingfenceError, msgspec.MsgspecError, AssertionError) as error:
                self._say(f"what {record} tells of cannot be taken up again: {error}")
        return handles

    # -- opening ----------------------------------------------------------------------

    def serves(self, call: wire.Open) -> bool:
        """Whether this LV is to be a device.  Raises Unavailable, BadInput: it must be, and cannot."""
        if call.plane is wire.Plane.NBD:
            return False
        try:
            if not call.vg_uuid:
                raise BadInput(f"{call.vg}/{call.lv} came without its VG's uuid")
            if any(not place.path for extent in call.extents for place in extent.places):
                raise BadInput(
                    f"{call.vg}/{call.lv} lacks pieces whose PVs are missing: it is no device here",
                    next='activate it with [block] plane = "nbd" or "auto"',
                )
            self._device_mapper()
            lines_of(call.extents)
        except RingfenceError:
            if call.plane is wire.Plane.DM:
                raise
            return False
        return True

    def handle(self, call: wire.Open) -> MappedHandle:
        """Not open yet.  Only for what this plane serves."""
        mapper = self._device_mapper()
        assert self._guard is not None
        return self._handle(self._mapped(call, mapper), self._guard)

    def _handle(self, mapped: Mapped, guard: Guard) -> MappedHandle:
        handle = MappedHandle(mapped, guard)
        self._handles = [one for one in self._handles if not one.gone] + [handle]
        return handle

    def _mapped(self, call: wire.Open, mapper: Mapper) -> Mapped:
        record = self._run / "mapped" / mapper_uuid(call.vg_uuid, call.uuid)
        return Mapped(
            call, mapper, self._dev, record, self._mapped_late, self._say, self._group, self._block
        )

    # -- what was late ------------------------------------------------------------------

    def _stock_vg(self, vg: SharedVg) -> StockVg:
        assert self._mapper is not None
        return StockVg(vg, self._mapper, self._hold_ms, self._ours, self._stock_late, self._say, self._block)

    def _ours(self) -> list[str]:
        return [handle.mapped.uuid for handle in self._handles if not handle.gone]

    def _mapped_late(self, mapped: Mapped, written: Written | None, late_ms: int) -> None:
        self._late(mapped.name, written, late_ms, mapped.call.node, mapped.size_bytes)

    def _stock_late(self, volume: str, written: Written, late_ms: int) -> None:
        self._late(f"{volume} (LVM2's)", written, late_ms)

    def _late(
        self, volume: str, written: Written | None, late_ms: int, node: int = 0, size_bytes: int = 0
    ) -> None:
        much = "an unknown number of writes"
        if written is not None:
            much = f"up to {written.requests} writes ({written.sectors * 512} bytes)"
        what = (
            f"{much} to {volume} may have reached the disk through device-mapper without authority:"
            f" its table was suspended {late_ms} ms after the deadline (the host stood still or was slow)"
        )
        incident = Incident(
            "write-late", node, what, volume=volume, length_bytes=size_bytes, at_wall_ms=wall_ms()
        )
        id, durable = uuid.uuid4().hex, True
        try:
            self._file.store(id, incident)
        except OSError:
            durable = False
        assert self._loop is not None
        self._loop.call_soon_threadsafe(partial(self._told, wire.IncidentStored(id, incident, durable)))
