"""Puts one host's daemon together and runs it: the real clock, ring, disks, block service and sockets.

The order is the safety.  The lock comes before anything is read, so that two daemons of one root
never share a life.  Then the block service does nothing more for an earlier daemon, and says what that
has left open (`daemon.inheritance`).  Whatever authority does not belong to a path that may be adopted
is taken away; if any path may not be, all authority is, and then all paths are closed.  All this before
the engine begins.  What the state directory cannot keep now it
could not keep later either: that is found out here, while nothing depends on it.

The engine and the agents' runner come as arguments, so that tests can put scripted ones in."""

import asyncio
import contextlib
import faulthandler
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ringfence.agents.process import no_core
from ringfence.agents.supplies import SupplyReader
from ringfence.block.control import BlockService
from ringfence.config import Loaded, Paths, load, read_secrets, render
from ringfence.core.cluster import ClusterConfig, DeviceConfig, NodeConfig
from ringfence.core.errors import (
    ConfigError,
    NoAuthority,
    RingfenceError,
    Unavailable,
)
from ringfence.daemon.archive import Archive
from ringfence.daemon.checkup import HostLook
from ringfence.daemon.devices import warn_of_devices
from ringfence.daemon.driver import Driver, Ports
from ringfence.daemon.inheritance import reap, revoke, take_over
from ringfence.daemon.lock import DaemonLock
from ringfence.daemon.log import Log
from ringfence.daemon.lvm import LvmHost
from ringfence.daemon.paths import BlockPaths, DaemonPages
from ringfence.daemon.ports import Agents, Engine
from ringfence.daemon.slots import SlotThreads
from ringfence.daemon.stock_lvm import LvmCommands
from ringfence.daemon.supervisor import Supervisor, misfit
from ringfence.engine.inputs import DiskState, Started
from ringfence.engine.orders import StorageOrder
from ringfence.history.kinds import INCIDENT
from ringfence.history.store import History
from ringfence.host import kept, loop
from ringfence.host.clock import HostClock, boottime_ns, wall_ms
from ringfence.host.hardware import hardware
from ringfence.host.identity import boot_id, machine_id
from ringfence.host.lvm_locks import LvmLocks
from ringfence.host.mapper import Mapper
from ringfence.host.pages import Authority, Pages, state_of
from ringfence.ring.hub_client import HubRing
from ringfence.ring.port import Ring
from ringfence.servers.client_socket import ClientSocket
from ringfence.servers.lvmlockd_socket import LvmSocket
from ringfence.storage.driver import Keeper, Storage
from ringfence.wire.entries import Incident

FILES = 65536
"""Descriptors that a daemon asks for, where its hard limit allows so many."""
SWITCH_S = 0.001
"""How long a thread may keep the interpreter to itself while another wants it; Python's own is 5 ms."""


class Current:
    """The configuration as it stands now: an ordered entry may change it while the daemon runs.

    Fulfils `ports.Kept`."""

    def __init__(self, paths: Paths, loaded: Loaded) -> None:
        self._paths = paths
        self._loaded = loaded

    def device(self, name: str) -> DeviceConfig:
        """Raises KeyError if no such device is configured."""
        return self._loaded.cluster.device(name)

    def secrets(self, name: str) -> dict[str, str]:
        """Read afresh at each use: a password may be changed without a restart.  Raises ConfigError."""
        return read_secrets(self._paths, name)

    def keep(self, disk: DiskState) -> None:
        kept.keep(self._paths.disk_state, disk)

    def keep_config(self, config: ClusterConfig) -> None:
        """Over this host's file; what is this host's own in it stays."""
        self._loaded = msgspec.structs.replace(self._loaded, cluster=config)
        kept.keep_bytes(self._paths.file, render(self._loaded).encode(), 0o644)


class Makers(msgspec.Struct, frozen=True):
    """The parts that tests replace."""

    engine: Callable[[], Engine]
    agents: Callable[[Current], Agents]


def run(root: Path, node: str, makers: Makers) -> int:
    """Run this root's daemon until it ends.  Returns the exit code.

    Raises RingfenceError, one clear line, when it cannot start; nothing was changed then."""
    no_core()
    faulthandler.enable()  # a watchdog ends a loop that stands still by SIGABRT: say where
    allow_files()
    paths = Paths(root)
    loaded = load(paths)
    me = _node_named(loaded.cluster, node)
    for directory in (paths.var, paths.run):
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"cannot make {directory}: {error.strerror}", next="check its parent's owner and mode"
            ) from None
    lock = DaemonLock(paths.lock)
    try:
        machine, boot = machine_id(root), boot_id(root)
        disk = kept.load(paths.disk_state, DiskState) or DiskState()
        kept.keep(paths.disk_state, disk)
        log = Log(node)
        try:
            return loop.run(_drive(paths, loaded, me, (machine, boot), disk, makers, log))
        finally:
            log.close()
    except RingfenceError:  # it has not begun
        lock.release()
        raise
    # Else it is held until the process is gone, with its threads: one of them may be writing yet, for as long
    # as a disk hangs, and the next daemon says that all is closed.


def allow_files() -> None:
    """Raise the soft limit of open files towards the hard one.

    Each client takes one, and at the usual 1024 clients alone could leave none to keep the state with and
    to start fence agents."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _drive(
    paths: Paths,
    loaded: Loaded,
    me: NodeConfig,
    identity: tuple[str, str],
    disk: DiskState,
    makers: Makers,
    log: Log,
) -> int:
    def say(kind: str) -> Callable[[str], None]:
        return lambda line: log.line(kind, line, wall_ms())

    config = loaded.cluster
    service = BlockService(paths.block_socket, me.id, config.timing.hold_ms, loaded.plane)
    history = History(paths.history, {one.id: one.name for one in config.nodes}, say("history"))
    try:
        same_boot = disk.boot == identity[1]
        last = disk.incarnation if same_boot and not config.naive else 0
        mapper = Mapper(by_name=paths.root == Path("/"))
        lvm = LvmHost(LvmLocks(paths.lvm_locks, identity[1]), mapper)
        in_paths = await take_over(service, paths.authority, last, say("drop-paths"))
        of_lvm2 = lvm.left(adoptable=last > 0)
        left_open = () if in_paths is None or of_lvm2 is None else (*in_paths, *of_lvm2)  # all, or none
        revoke(paths.authority, [page for one in left_open for page in one.pages])
        reaped = not left_open and await reap(service, say("drop-paths")) and lvm.empty
        current = Current(paths, loaded)
        pages = DaemonPages(Pages(paths.authority))
        reader = Storage(loaded.devices_paths, _reads_only)
        archive = Archive(paths.archive, paths.backup, me.name, reader.read, say("archive"))
        ports = Ports(
            clock=HostClock(),
            ring=_ring(paths, loaded, me, disk),
            agents=makers.agents(current),
            storage=LifeStorage(loaded.devices_paths, pages, say("storage"), archive),
            block=BlockPaths(service, pages, lambda incident: _keep_incident(history, incident)),
            pages=pages,
            kept=current,
            history=history,
            log=log,
            watch=Supervisor(),
            look=HostLook(paths, me.name),
            supplies=SupplyReader(current.device, current.secrets),
            slots=SlotThreads(boottime_ns),
            stock_lvm=LvmCommands(os.environ),
            lvm=lvm,
        )
        if wrong := misfit(config.timing):
            say("watchdog")(wrong)
        warning = asyncio.ensure_future(warn_of_devices(paths, config, _warner(history, say("device"))))
        driver = Driver(makers.engine(), ports, config, me.name)
        socket = ClientSocket(paths.socket, driver.asked, driver.gone, group=loaded.socket_group)
        lvm_socket = LvmSocket(paths.lvmlockd_socket, paths.lvmlockd_pid, driver)
        machine, boot = identity
        started = Started(
            config, me.id, machine, boot, disk, reaped, left_open=left_open, hardware=hardware(paths.root)
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, driver.leave, number.name)
        # All modules and tables made so far live as long as the daemon: a full collection would walk
        # them while authority runs out.
        gc.collect()
        gc.freeze()
        # A worker that parses a long text must not keep the loop waiting after each system call.
        sys.setswitchinterval(SWITCH_S)
        try:
            return await driver.run(started, socket, lvm_socket if config.lvmlockd.serve else None)
        finally:
            warning.cancel()
            archive.close()
    finally:
        history.close()


def _ring(paths: Paths, loaded: Loaded, me: NodeConfig, disk: DiskState) -> Ring:
    """Raises Unavailable if what the ring needs is not on this host."""
    if loaded.cluster.ring == "hub":
        return HubRing(loaded.hub(paths), me.id, seen=disk.epoch.seq)
    from ringfence.ring.corosync import CorosyncRing  # needs libraries that only its users have

    return CorosyncRing(me.id, loaded.cluster.timing, seen=disk.epoch.seq)


class LifeStorage:
    """Fulfils `ports.Storage`: each order is guarded by the pages of the life that gave it.

    A thread may stand still in the middle of an order while its life goes stale and another begins;
    the new life's authority says nothing about the old one's locks."""

    def __init__(
        self,
        devices: tuple[str, ...],
        pages: DaemonPages,
        say: Callable[[str], None],
        keeper: Keeper | None = None,
    ) -> None:
        self._devices = devices
        self._pages = pages
        self._say = say
        self._keeper = keeper
        self._said: set[str] = set()
        self._life: int | None = None
        self._storage: Storage | None = None

    def bound(self) -> Callable[[StorageOrder], Any]:
        if self._storage is None or self._life != self._pages.incarnation:
            self._life = self._pages.incarnation
            self._storage = Storage(self._devices, guard_of(self._pages), say=self._once, keeper=self._keeper)
        return self._storage.do

    def _once(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._say(line)


def _reads_only(vg: str) -> None:
    raise NoAuthority(f"nothing is written to VG {vg} by who reads it for the archive")


def guard_of(pages: DaemonPages) -> Callable[[str], None]:
    """The storage guard of the life that is current now.  It raises NoAuthority."""
    deadline_ns = pages.reader()

    def guard(vg: str) -> None:
        state = state_of(deadline_ns(f"vg/{vg}" if vg else "grant"), boottime_ns())
        if state is not Authority.VALID:
            what = f"VG {vg}" if vg else "grants"
            raise NoAuthority(
                f"this host's authority for {what} is {state.value}: nothing is written",
                next="ringfence why",
                retry=state is Authority.LAPSED,
            )

    return guard


def _node_named(config: ClusterConfig, name: str) -> NodeConfig:
    try:
        return config.node_named(name)
    except KeyError:
        known = ", ".join(node.name for node in config.nodes)
        raise ConfigError(f"no node is called {name!r}", next=f"choose one of: {known}") from None


def _warner(history: History, say: Callable[[str], None]) -> Callable[[str], None]:
    """To the log and to the history, which a failing disk may refuse."""

    def warn(line: str) -> None:
        say(line)
        with contextlib.suppress(RingfenceError):
            history.append("device", line, {}, wall_ms(), boottime_ns())

    return warn


def _keep_incident(history: History, incident: Incident) -> bool:
    try:
        history.append(INCIDENT, incident.what, msgspec.to_builtins(incident), wall_ms(), boottime_ns())
    except RingfenceError:
        return False
    return True
