"""A small world for commands: a lock table in memory, real `Storage` on image files.

Locks here never wait: a conflicting request is refused at once, as LockHeld where the command would
not wait either and as TimedOut where it would.  Everything else is as `engine.orders` says."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ringfence.core.errors import DeviceFailed, LockHeld, NotFound, Refused, RingfenceError, TimedOut
from ringfence.core.ids import Token
from ringfence.core.modes import Mode
from ringfence.engine import orders
from ringfence.engine.commands import command_for
from ringfence.lvm2.names import UUID_CHARACTERS
from ringfence.sim.mirrored import Mirrored, read_all, write_lv
from ringfence.storage import Storage
from ringfence.storage.driver import CrashHook
from ringfence.volumes.known import KnownVgs
from ringfence.wire.block import Moving, Plane

MIB = 1 << 20


def read_file(path: str, offset: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def write_file(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


class Crash(Exception):
    """The world ends at a write: nothing of the command runs any more."""


class Resource:
    def __init__(self) -> None:
        self.held: dict[int, tuple[int, Mode, Token, bool]] = {}
        """node -> (lock, mode, token, persistent)."""
        self.lvb: bytes | None = None


class World:
    """What the nodes share: locks, notices, the disks."""

    def __init__(
        self, directory: Path, sizes_bytes: Sequence[int] = (64 * MIB,), cluster: str = "ring"
    ) -> None:
        self.directory = directory
        self.cluster = cluster
        self.paths = [str(directory / "*.img")]
        """Globs of the devices that nodes may use."""
        self.images = []
        for index, size in enumerate(sizes_bytes):
            path = directory / f"disk{index}.img"
            path.touch()
            with path.open("r+b") as file:
                file.truncate(size)
            self.images.append(str(path))
        self.members: dict[str, list[int]] = {}
        self.frozen: set[str] = set()
        self.resources: dict[tuple[str, str], Resource] = {}
        self.position = 0
        self.locks = 0
        self.seeds: dict[int, int] = {}
        """Each node draws from its own, so that what one asks does not change what another gets."""
        self.published: list[orders.Publish] = []
        self.slots = False
        """Whether all nodes know disk slots."""
        self.keeper: Any = None
        """Keeps metadata beside the disks (`daemon.archive`), for tests that want it."""
        self.ended: list[str] = []
        """VGs whose slots all nodes were asked to leave."""

    def node(self, id: int = 1, **options: Any) -> "Node":
        return Node(self, id, **options)

    def purge(self, id: int) -> None:
        """The node was fenced: its locks go; what it held EX leaves value blocks that are not valid."""
        for (space, _), resource in self.resources.items():
            if id in resource.held and resource.held.pop(id)[1] >= Mode.PW:
                resource.lvb = None
            if id in self.members.get(space, []):
                self.members[space].remove(id)

    def end_commands(self, id: int) -> None:
        """The node's daemon ended: what is active stays so, its commands' locks go as in a purge."""
        for resource in self.resources.values():
            if id in resource.held and not resource.held[id][3] and resource.held.pop(id)[1] >= Mode.PW:
                resource.lvb = None

    def locks_of(self, id: int) -> list[tuple[str, str, Mode]]:
        return [(*key, one.held[id][1]) for key, one in sorted(self.resources.items()) if id in one.held]


COMPATIBLE = {Mode.PR: (Mode.NL, Mode.CR, Mode.PR), Mode.EX: (Mode.NL,)}


class Node:
    def __init__(
        self,
        world: World,
        id: int,
        crash_hook: CrashHook | None = None,
        guard: Callable[[str], None] | None = None,
        fail: Callable[[orders.Order], RingfenceError | None] | None = None,
    ) -> None:
        self.world = world
        self.id = id
        self.name = f"an-a01n0{id}"
        self.fail = fail
        self.guards: list[str] = []
        self.storage = Storage(
            world.paths, guard or self.guards.append, crash_hook=crash_hook, keeper=world.keeper
        )
        self.open: dict[tuple[str, str], orders.OpenPath] = {}
        self.clients: dict[str, int] = {}
        """How many are connected to an LV, by its uuid."""
        self.plane = Plane.NBD
        """Of what it has open."""
        self.mirrors: dict[str, Mirrored] = {}
        """LV's uuid -> what is being moved of it."""
        self.trace: list[orders.Order] = []
        self.slots: dict[str, orders.SlotsPlace] = {}
        self.without: dict[str, str] = {}
        self.known_vgs = KnownVgs()
        self.stopped: list[str] = []
        self.renamed: dict[str, str] = {}
        self.unseen: tuple[tuple[str, ...], tuple[str, ...]] = (), ()
        """Of those: name now -> what they were called then."""
        self.unclean: dict[str, tuple[str, ...]] = {}
        self.progress: list[orders.NoteProgress] = []
        self._begun: tuple[Any, ...] | RingfenceError = ()
        """The answers to what was staggered last."""
        self.wanted = False
        """Whether somebody waits for whatever it holds."""
        self.now_wall_s = 1_700_000_000

    def run(self, call: Any) -> Any:
        return self.drive(command_for(call))

    def drive(self, command: orders.Command) -> Any:
        """Run a command to its end; its transient locks end with it.  After a Crash nothing does."""
        self.trace = []
        send: Callable[[], orders.Order] = lambda: next(command)  # noqa: E731
        while True:
            try:
                order = send()
            except StopIteration as stop:
                self._end()
                return stop.value
            except RingfenceError:
                self._end()
                raise
            self.trace.append(order)
            try:
                answer = self._do(order)
            except RingfenceError as error:
                send = lambda error=error: command.throw(error)  # noqa: E731
            else:
                send = lambda answer=answer: command.send(answer)  # noqa: E731

    def _end(self) -> None:
        for resource in self.world.resources.values():
            if self.id in resource.held and not resource.held[self.id][3]:
                del resource.held[self.id]

    def _do(self, order: orders.Order) -> Any:
        if self.fail is not None and (error := self.fail(order)) is not None:
            raise error
        if isinstance(order, orders.StorageOrder):
            return self.storage.do(order)
        return getattr(self, f"_do_{type(order).__name__}")(order)

    def _do_Identity(self, order: orders.Identity) -> orders.Whoami:
        seeds = []
        for _ in range(3):
            drawn = self.world.seeds[self.id] = self.world.seeds.get(self.id, 0) + 1
            digest = hashlib.sha256(f"{self.id} {drawn}".encode()).digest()
            seeds.append("".join(UUID_CHARACTERS[byte % len(UUID_CHARACTERS)] for byte in digest))
        return orders.Whoami(
            self.world.cluster, self.id, self.name, False, self.now_wall_s, tuple(seeds),
            {id: f"an-a01n0{id}" for id in (1, 2)}, self.world.slots,
        )  # fmt: skip

    def _do_Compute(self, order: orders.Compute) -> Any:
        return order.work()

    def _do_Recall(self, order: orders.Recall) -> KnownVgs:
        return self.known_vgs

    def _do_Remember(self, order: orders.Remember) -> None:
        self.known_vgs.put(order.known)

    def _do_Handovers(self, order: orders.Handovers) -> dict[str, orders.OnItsWay]:
        return {}

    def _do_LocksThere(self, order: orders.LocksThere) -> orders.LockNames:
        there = {name: one for (space, name), one in self.world.resources.items() if space == order.lockspace}
        here = [name for name, one in there.items() if self.id in one.held and one.held[self.id][3]]
        return orders.LockNames(frozenset(there), frozenset(here))

    def _do_NoteSlots(self, order: orders.NoteSlots) -> None:
        self.slots = {place.vg: place for place in order.places}
        self.without = order.without

    def _do_EndSlots(self, order: orders.EndSlots) -> None:
        self.world.ended.append(order.vg)

    def _do_Joined(self, order: orders.Joined) -> tuple[str, ...]:
        return tuple(space for space, nodes in sorted(self.world.members.items()) if self.id in nodes)

    def _do_JoinLockspace(self, order: orders.JoinLockspace) -> None:
        nodes = self.world.members.setdefault(order.lockspace, [])
        if self.id not in nodes:
            nodes.append(self.id)

    def _do_LeaveLockspace(self, order: orders.LeaveLockspace) -> None:
        held = [
            key
            for key, one in self.world.resources.items()
            if key[0] == order.lockspace and self.id in one.held
        ]
        if held:
            raise Refused(f"{self.name} still holds locks in {order.lockspace}")
        self.world.members[order.lockspace].remove(self.id)

    def _do_LockspaceMembers(self, order: orders.LockspaceMembers) -> tuple[str, ...]:
        return tuple(f"an-a01n0{id}" for id in self.world.members.get(order.lockspace, []))

    def _resource(self, space: str, name: str) -> Resource:
        if self.id not in self.world.members.get(space, []):
            raise NotFound(f"lockspace {space} is not joined")
        return self.world.resources.setdefault((space, name), Resource())

    def _grant(self, resource: Resource, mode: Mode, persistent: bool) -> orders.Held:
        self.world.locks += 1
        self.world.position += 1
        token = Token(1, 1, self.world.position)
        resource.held[self.id] = (self.world.locks, mode, token, persistent)
        return orders.Held(self.world.locks, mode, token, resource.lvb)

    def _check(self, resource: Resource, space: str, mode: Mode, wait_ms: int | None, what: str) -> None:
        if space in self.world.frozen:
            raise TimedOut(f"{what}: lockspace {space} is frozen until a lost node is fenced")
        for node, (_, held, _, _) in resource.held.items():
            if node != self.id and held not in COMPATIBLE[mode]:
                kind = LockHeld if wait_ms == 0 else TimedOut
                raise kind(f"{what} is held {held.name} by an-a01n0{node}", node=f"an-a01n0{node}")

    def _do_Acquire(self, order: orders.Acquire) -> orders.Held:
        resource = self._resource(order.lockspace, order.resource)
        assert self.id not in resource.held, f"{order} by a node that has it"
        self._check(resource, order.lockspace, order.mode, order.wait_ms, order.what)
        return self._grant(resource, order.mode, order.persistent)

    def _find(self, lock: int) -> tuple[str, Resource]:
        for (space, _), resource in self.world.resources.items():
            if resource.held.get(self.id, (0,))[0] == lock:
                return space, resource
        raise NotFound(f"lock {lock} is not held")

    def _do_Convert(self, order: orders.Convert) -> orders.Held:
        space, resource = self._find(order.lock)
        self._check(resource, space, order.mode, order.wait_ms, f"lock {order.lock}")
        return self._grant(resource, order.mode, resource.held[self.id][3])

    def _do_Release(self, order: orders.Release) -> None:
        _, resource = self._find(order.lock)
        if order.lvb is not None:
            assert len(order.lvb) == 32
            assert resource.held[self.id][1] >= Mode.PW
            resource.lvb = order.lvb
        del resource.held[self.id]

    def _do_FindLock(self, order: orders.FindLock) -> orders.Held | None:
        resource = self.world.resources.get((order.lockspace, order.resource))
        if resource is None or self.id not in resource.held:
            return None
        lock, mode, token, persistent = resource.held[self.id]
        return orders.Held(lock, mode, token, resource.lvb) if persistent else None

    def _do_Holders(self, order: orders.Holders) -> tuple[orders.Holder, ...]:
        resource = self.world.resources.get((order.lockspace, order.resource))
        return tuple(
            orders.Holder(node, f"an-a01n0{node}", mode, token, 1_700_000_000_000)
            for node, (_, mode, token, _) in (sorted(resource.held.items()) if resource else ())
        )

    def _do_NoteStopped(self, order: orders.NoteStopped) -> None:
        self.stopped.append(order.vg)

    def _do_NoteRenamed(self, order: orders.NoteRenamed) -> None:
        self.renamed |= order.names

    def _do_NoteUnseen(self, order: orders.NoteUnseen) -> None:
        self.unseen = order.vgs, order.removed

    def _do_NoteUnclean(self, order: orders.NoteUnclean) -> None:
        self.unclean[order.vg] = order.uuids

    def _do_NoteProgress(self, order: orders.NoteProgress) -> None:
        self.progress.append(order)

    def _do_Wanted(self, order: orders.Wanted) -> bool:
        return self.wanted

    def _do_Pause(self, order: orders.Pause) -> None:
        """No time passes here."""

    def _do_SeqnoHeard(self, order: orders.SeqnoHeard) -> int:
        return next((one.seqno for one in reversed(self.world.published) if one.vg == order.vg), 0)

    def _do_AskReload(self, order: orders.AskReload) -> None:
        """Nobody has anything active through LVM2."""

    def _do_Handovers(self, order: orders.Handovers) -> dict[str, orders.OnItsWay]:
        return {}

    def _do_GoOn(self, order: orders.GoOn) -> None:
        """Nobody else is here."""

    def _do_Publish(self, order: orders.Publish) -> None:
        self.world.published.append(order)

    def _do_PathsTogether(self, order: orders.PathsTogether) -> tuple[Any, ...]:
        return tuple(self._each(one) for one in order.orders)

    def _do_LocksTogether(self, order: orders.LocksTogether) -> tuple[Any, ...]:
        return tuple(self._each(one) for one in order.orders)

    def _do_Staggered(self, order: orders.Staggered) -> tuple[Any, Any]:
        before, self._begun = self._begun, self._each(order.paths) if order.paths.orders else ()
        return self._each(order.locks) if order.locks.orders else (), before

    def _each(self, order: orders.Order) -> Any:
        try:
            return self._do(order)
        except RingfenceError as error:
            return error

    def _do_FindLocks(self, order: orders.FindLocks) -> dict[str, orders.Held]:
        found = {
            name: self._do_FindLock(orders.FindLock(space, name))
            for space, name in self.world.resources
            if space == order.lockspace
        }
        return {name: held for name, held in found.items() if held is not None}

    def _do_OpenPath(self, order: orders.OpenPath) -> orders.Opened:
        if (order.vg, order.lv) in self.open:
            raise DeviceFailed(f"{order.vg}/{order.lv} is open already")
        self.open[order.vg, order.lv] = order
        return self._path(order)

    def _path(self, order: orders.OpenPath) -> orders.Opened:
        path = f"/run/ringfence/dev/{order.vg}/{order.lv}"
        return orders.Opened(path, f"nbd+unix:///{order.lv}?socket={path}")

    def _do_ReloadPath(self, order: orders.ReloadPath) -> orders.Opened:
        path = self.open.get((order.vg, order.lv))
        if path is None or path.uuid != order.uuid:
            raise NotFound(f"{order.vg}/{order.lv} is not open here")
        assert path.token == order.token
        if order.name != order.lv and (order.vg, order.name) in self.open:
            raise Refused(f"{order.vg}/{order.name} is open: it is another LV")
        if order.uuid in self.mirrors:
            self.mirrors[order.uuid].check_becomes(order.extents)
            del self.mirrors[order.uuid]
        changes = {"lv": order.name, "extents": order.extents, "readonly": order.readonly}
        del self.open[order.vg, order.lv]
        self.open[order.vg, order.name] = msgspec.structs.replace(path, **changes)
        return self._path(self.open[order.vg, order.name])

    def _do_MirrorPath(self, order: orders.MirrorPath) -> Moving:
        path = self.open.get((order.vg, order.lv))
        if path is None or path.uuid != order.uuid:
            raise NotFound(f"{order.vg}/{order.lv} is not open here")
        assert path.token == order.token
        if order.uuid in self.mirrors:
            raise Refused(f"{order.vg}/{order.lv} is being moved already")
        self.mirrors[order.uuid] = Mirrored(path.extents, order, read_file, write_file)
        return self.mirrors[order.uuid].moving

    def _do_SealPath(self, order: orders.SealPath) -> Moving:
        if order.uuid not in self.mirrors:
            raise Refused("the copy is not complete")
        return self.mirrors[order.uuid].seal()

    def _do_UnmirrorPath(self, order: orders.UnmirrorPath) -> None:
        self.mirrors.pop(order.uuid, None)

    def write(self, vg: str, lv: str, offset: int, data: bytes) -> None:
        """As a client of an open path."""
        path = self.open[vg, lv]
        if path.uuid in self.mirrors:
            self.mirrors[path.uuid].write(offset, data)
        else:
            write_lv(path.extents, offset, data, write_file)

    def read(self, vg: str, lv: str) -> bytes:
        """All of an open LV."""
        extents = self.open[vg, lv].extents
        return read_all(extents, read_file)

    def _do_ClosePath(self, order: orders.ClosePath) -> None:
        assert order.uuid
        self.mirrors.pop(order.uuid, None)
        for key, path in list(self.open.items()):
            if (path.vg, path.uuid) == (order.vg, order.uuid):
                del self.open[key]

    def _do_OpenPaths(self, order: orders.OpenPaths) -> tuple[orders.OpenVolume, ...]:
        for mirror in self.mirrors.values():
            mirror.go_on()
        return tuple(
            orders.OpenVolume(
                one.vg, one.lv, one.uuid, self._path(one).path, self._path(one).uri,
                connections=self.clients.get(one.uuid, 0), readonly=one.readonly, extents=one.extents,
                plane=self.plane,
                moving=self.mirrors[one.uuid].moving if one.uuid in self.mirrors else None,
            )
            for one in self.open.values()
        )
