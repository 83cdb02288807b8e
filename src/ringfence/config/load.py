"""ringfence.toml -> values.

    [cluster]  name version ring two_node fence_action fencing evidence naive
    [timing]   heartbeat_ms token_ms grant_ms silent_ms write_ms hold_ms grace_ms post_join_delay_ms
               agent_timeout_ms backoff_ms min_hold_ms priority_delay_ms fence_test_ms
    [lvmlockd] serve vg_wait_ms lv_wait_ms
    [volumes] wipe_mib_s
    [node.NAME]            id votes addresses fence_delay_ms fence = "manual"
    [[node.NAME.level]]    devices (names, or {device = NAME, plug = ...}) parallel
    [device.NAME]          agent confirms parameters timeout_ms own_supply
                           sessions settle_ms looks look_every_ms
    [devices]  paths           which devices and files may carry volumes (globs); this host's own
    [socket]   group           who may talk to the daemon besides root; this host's own
    [hub]      socket          where the embedded ring's broker listens; this host's own
    [watchdog] device timeout_ms    what resets this host if its volumes get out of hand; this host's own
    [block]    plane            how LVs reach their users: "nbd", "dm" or "auto"; this host's own
    [lab]      dir             made by `ringfence lab`: this host is a plaything; this host's own

`confirms` may be left out of stock agents' devices; `own_supply` is then as the table of stock agents has it,
too (where `confirms` stands there, as in files that are older than this, it is false unless it is said).

The first six go to all nodes and must be equal everywhere; the last six are this host's own."""

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ringfence.config.agents.stock import NO_PROOF, base_name, stock_agent
from ringfence.config.checks import check_cluster
from ringfence.config.pacemaker import with_pacemaker
from ringfence.config.paths import Paths
from ringfence.config.secrets import check_secret_file, secret_file
from ringfence.core.cluster import (
    ClusterConfig,
    Confirms,
    DeviceConfig,
    Level,
    Lvmlockd,
    NodeConfig,
    Timing,
    Use,
    Volumes,
)
from ringfence.core.errors import ConfigError
from ringfence.core.evidence import DEFAULT_EVIDENCE
from ringfence.wire.block import Plane

T = TypeVar("T")
Table = dict[str, Any]

_TABLES = (
    "cluster", "timing", "lvmlockd", "volumes", "node", "device", "devices", "socket", "hub", "watchdog",
    "block", "lab",
)  # fmt: skip
_CLUSTER = ("name", "version", "ring", "two_node", "fence_action", "fencing", "evidence", "naive")
_NODE = ("id", "votes", "addresses", "fence_delay_ms", "fence", "level")
_DEVICE_MS = ("timeout_ms", "settle_ms", "look_every_ms")
_DEVICE = ("agent", "confirms", "parameters", "own_supply", "sessions", "looks", *_DEVICE_MS)

_KINDS: dict[type, str] = {str: "a string", int: "a whole number", bool: "true or false", dict: "a table"}
_TWICE = re.compile(r"Cannot declare \((.*)\) twice|Cannot overwrite a value")
_AT = re.compile(r"\(at line (\d+)")


class Loaded(msgspec.Struct, frozen=True):
    """What ringfence.toml says: the cluster's part, and this host's own."""

    cluster: ClusterConfig
    devices_paths: tuple[str, ...] = ()
    socket_group: str = ""
    hub_socket: Path | None = None
    """None: the default, Paths.hub_socket."""
    lab: bool = False
    lab_dir: str = ""
    watchdog: Path | None = None
    """The device that the block service feeds; None: there is none."""
    watchdog_ms: int = 0
    """Its timeout; 0: timing.write_ms, in whole seconds."""

    plane: Plane = Plane.NBD
    """How an active LV reaches its user on this host."""

    def hub(self, paths: Paths) -> Path:
        """Where the hub listens."""
        return self.hub_socket or paths.hub_socket


def load(paths: Paths, file: Path | None = None) -> Loaded:
    """Read, check, and look at the secrets' modes.

    Args:
        file: another file than the host's own.

    Raises:
        ConfigError: one line with the file, the key and what to do.
    """
    file = file or paths.file
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {file}", next="write it (`ringfence init`; `man ringfence.toml` shows an example)"
        ) from None
    except OSError as error:
        cure = "check its owner and mode" if isinstance(error, PermissionError) else "name a file"
        raise ConfigError(f"cannot read {file}: {error.strerror}", next=cure) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not UTF-8", next="save it as UTF-8") from None
    loaded = parse(text, str(file))
    for device in loaded.cluster.devices:
        check_secret_file(secret_file(paths, device.name))
    return loaded


def parse(text: str, file: str = "ringfence.toml") -> Loaded:
    """As `load`, for text; looks at no other file."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(file, text, error) from None
    try:
        loaded = _loaded(tree)
        check_cluster(loaded.cluster, lab=loaded.lab)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.message}", next=error.next) from None
    return loaded


def _syntax(file: str, text: str, error: tomllib.TOMLDecodeError) -> ConfigError:
    at = _AT.search(str(error))
    number = int(at[1]) if at else 0
    where = f"{file} line {number}" if number else file
    twice = _TWICE.search(str(error))
    if twice is None:
        return ConfigError(f"{where}: {error}", next="mend the TOML")
    parts = re.findall(r"'([^']*)'", twice[1] or "")
    if len(parts) == 2 and parts[0] in ("node", "device"):
        what = f"{parts[0]} {parts[1]} is configured twice"
    elif parts:
        what = f"[{'.'.join(parts)}] stands there twice"
    else:
        lines = text.splitlines()
        line = lines[min(number, len(lines)) - 1].strip() if lines else ""
        what = f"set a second time: {line}"
    return ConfigError(f"{where}: {what}", next="remove one of the two")


# -- tables -------------------------------------------------------------------


def _loaded(tree: Table) -> Loaded:
    _known("", tree, _TABLES)
    lab = _table(tree, "lab")
    devices, socket, hub = _table(tree, "devices"), _table(tree, "socket"), _table(tree, "hub")
    _known("[devices]", devices, ("paths",))
    _known("[socket]", socket, ("group",))
    _known("[hub]", hub, ("socket",))
    _known("[lab]", lab, ("dir",))
    hub_socket = _get("[hub]", hub, "socket", str, "")
    if hub_socket and not hub_socket.startswith("/"):
        raise ConfigError(f"[hub] socket = {hub_socket!r} is not absolute", next="begin it with /")
    watchdog = _table(tree, "watchdog")
    _known("[watchdog]", watchdog, ("device", "timeout_ms"))
    watchdog_device = _get("[watchdog]", watchdog, "device", str, "")
    if "watchdog" in tree and not watchdog_device.startswith("/"):
        raise ConfigError(
            f"[watchdog] device = {watchdog_device!r} is not absolute", next='write device = "/dev/watchdog"'
        )
    block = _table(tree, "block")
    _known("[block]", block, ("plane",))
    plane = _get("[block]", block, "plane", str, Plane.NBD.value)
    if plane not in [one.value for one in Plane]:
        raise ConfigError(
            f'[block] plane = "{plane}" is not known', next='give "nbd", "dm" or "auto"'
        )
    paths = _strings("[devices]", devices, "paths")
    for path in paths:
        if not path.startswith("/"):
            raise ConfigError(f"[devices] paths: {path!r} is not absolute", next="begin it with /")
    return Loaded(
        cluster=_cluster(tree),
        devices_paths=paths,
        socket_group=_get("[socket]", socket, "group", str, ""),
        hub_socket=Path(hub_socket) if hub_socket else None,
        watchdog=Path(watchdog_device) if watchdog_device else None,
        watchdog_ms=_get("[watchdog]", watchdog, "timeout_ms", int, 0),
        plane=Plane(plane),
        lab="lab" in tree,
        lab_dir=_get("[lab]", lab, "dir", str, ""),
    )


def _cluster(tree: Table) -> ClusterConfig:
    if "cluster" not in tree:
        raise ConfigError("there is no [cluster]", next='add [cluster] with name = "..."')
    table = _table(tree, "cluster")
    _known("[cluster]", table, _CLUSTER)
    nodes = [_node(name, body) for name, body in _table(tree, "node").items()]
    devices = [_device(name, body) for name, body in _table(tree, "device").items()]
    said = ClusterConfig(
        name=_need("[cluster]", table, "name", str, 'name = "..."'),
        version=_get("[cluster]", table, "version", int, 1),
        ring=_get("[cluster]", table, "ring", str, "hub"),
        two_node=_get("[cluster]", table, "two_node", bool, False),
        naive=_get("[cluster]", table, "naive", bool, False),
        fence_action=_get("[cluster]", table, "fence_action", str, "off"),
        fencing=_get("[cluster]", table, "fencing", str, "ringfence"),
        evidence=_strings("[cluster]", table, "evidence") if "evidence" in table else DEFAULT_EVIDENCE,
        timing=_timing(_table(tree, "timing")),
        lvmlockd=_lvmlockd(_table(tree, "lvmlockd")),
        volumes=_volumes(_table(tree, "volumes")),
        nodes=tuple(sorted(nodes, key=lambda node: (node.id, node.name))),
        devices=tuple(sorted(devices, key=lambda device: device.name)),
    )
    return with_pacemaker(said)


def _timing(table: Table) -> Timing:
    _known("[timing]", table, Timing.__struct_fields__)
    return Timing(**{key: _get("[timing]", table, key, int, 0) for key in table})


def _lvmlockd(table: Table) -> Lvmlockd:
    _known("[lvmlockd]", table, Lvmlockd.__struct_fields__)
    default = Lvmlockd()
    return Lvmlockd(
        serve=_get("[lvmlockd]", table, "serve", bool, default.serve),
        vg_wait_ms=_get("[lvmlockd]", table, "vg_wait_ms", int, default.vg_wait_ms),
        lv_wait_ms=_get("[lvmlockd]", table, "lv_wait_ms", int, default.lv_wait_ms),
    )


def _volumes(table: Table) -> Volumes:
    _known("[volumes]", table, Volumes.__struct_fields__)
    return Volumes(wipe_mib_s=_get("[volumes]", table, "wipe_mib_s", int, Volumes().wipe_mib_s))


def _node(name: str, body: Any) -> NodeConfig:
    where = f"[node.{name}]"
    table = _is(where, "", body, dict)
    _known(where, table, _NODE)
    fence = _get(where, table, "fence", str, "")
    if fence not in ("", "manual"):
        raise ConfigError(f'{where} fence = "{fence}" is not known', next='give "manual" or fence levels')
    levels = table.get("level", [])
    if not isinstance(levels, list) or not all(isinstance(level, dict) for level in levels):
        raise ConfigError(f"{where} level is not a list of tables", next=f"write [[node.{name}.level]]")
    return NodeConfig(
        id=_need(where, table, "id", int, "id = NUMBER, each node its own"),
        name=name,
        votes=_get(where, table, "votes", int, 1),
        addresses=_strings(where, table, "addresses"),
        levels=tuple(_level(name, level) for level in levels),
        manual=fence == "manual",
        fence_delay_ms=_get(where, table, "fence_delay_ms", int, 0),
    )


def _level(node: str, table: Table) -> Level:
    where = f"[[node.{node}.level]]"
    _known(where, table, ("devices", "parallel"))
    devices = table.get("devices", [])
    if not isinstance(devices, list):
        raise ConfigError(f"{where} devices is not a list", next='write devices = ["NAME", ...]')
    return Level(tuple(_use(where, one) for one in devices), _get(where, table, "parallel", bool, False))


def _use(where: str, one: Any) -> str | Use:
    if isinstance(one, str) and one:
        return one
    if not isinstance(one, dict):
        raise ConfigError(
            f"{where} devices: {one!r} is no device", next='write "NAME" or {device = "NAME", plug = "5"}'
        )
    given = dict(one)
    name = _need(where, given, "device", str, 'device = "NAME" to each table of devices')
    del given["device"]
    return Use(name, {key: _parameter(where, key, value) for key, value in given.items()})


def _device(name: str, body: Any) -> DeviceConfig:
    where = f"[device.{name}]"
    table = _is(where, "", body, dict)
    _known(where, table, _DEVICE)
    agent = _need(where, table, "agent", str, 'agent = "fence_..."')
    stock = stock_agent(agent) if "confirms" not in table else None
    confirms = stock.confirms if stock is not None else _confirms(where, table, agent)
    parameters = _get(where, table, "parameters", dict, {})
    return DeviceConfig(
        name=name,
        agent=agent,
        confirms=confirms,
        parameters={key: _parameter(where, key, value) for key, value in parameters.items()},
        own_supply=_get(where, table, "own_supply", bool, stock is not None and stock.own_supply),
        sessions=_get(where, table, "sessions", int, 1),
        looks=_get(where, table, "looks", int, 2),
        **{key: _get(where, table, key, int, 0) for key in _DEVICE_MS},
    )


def _confirms(where: str, table: Table, agent: str) -> Confirms:
    """What the file says; of stock agents it may be left out."""
    words = " or ".join(f'"{one.value}"' for one in Confirms)
    name = base_name(agent)
    if "confirms" not in table and name in NO_PROOF:
        raise ConfigError(
            f"{where}: {name} proves nothing: {NO_PROOF[name]}",
            next="name a device that switches power; confirms = ... if you know better",
        )
    confirms = _need(where, table, "confirms", str, f"confirms = {words}: what its off proves")
    if confirms not in [one.value for one in Confirms]:
        raise ConfigError(f'{where} confirms = "{confirms}" is not known', next=f"give {words}")
    return Confirms(confirms)


def _parameter(where: str, key: str, value: Any) -> str:
    """As fence agents read them: numbers as they stand, booleans as 1 and 0."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, int | str):
        return str(value)
    raise ConfigError(f"{where} parameters: {key} is neither string nor number", next="quote it")


# -- keys ---------------------------------------------------------------------


def _known(where: str, table: Table, known: Sequence[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            cure = f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
            what = f"{where} has an unknown key {key!r}" if where else f"unknown table [{key}]"
            raise ConfigError(what, next=cure)


def _table(tree: Table, name: str) -> Table:
    return _is(f"[{name}]", "", tree.get(name, {}), dict)


def _is(where: str, key: str, value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise ConfigError(f"{where} {key} is not {_KINDS[kind]}".replace("  ", " "), next="mend its value")
    return value


def _get(where: str, table: Table, key: str, kind: type[T], default: T) -> T:
    return _is(where, key, table[key], kind) if key in table else default


def _need(where: str, table: Table, key: str, kind: type[T], example: str) -> T:
    if key not in table:
        raise ConfigError(f"{where} has no {key}", next=f"add {example}")
    return _is(where, key, table[key], kind)


def _strings(where: str, table: Table, key: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ConfigError(f"{where} {key} is not a list of strings", next=f'write {key} = ["..."]')
    return tuple(value)
