"""What lvmlockctl shows: one line a thing, `key=value` each.

Source: LVM2 daemons/lvmlockd/lvmlockd-core.c (print_client, print_lockspace, print_resource, print_lock,
dump_info), lvmlockctl.c (format_info)."""

from collections.abc import Callable, Iterable

from ringfence.core.locknames import VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine.commands.locking import GLOBAL_RESOURCE, GLOBAL_SPACE, VG_RESOURCE, parse_lvb
from ringfence.engine.context import Context
from ringfence.engine.locker import Locker
from ringfence.engine.lvmlockd.sessions import Session
from ringfence.engine.uses import Use
from ringfence.volumes.access import lock_args_of

_TYPES = {GLOBAL_RESOURCE: "gl", VG_RESOURCE: "vg"}
_PERSISTENT = 1
"""A lock's flag."""


def print_info(
    context: Context, locker: Locker, sessions: Iterable[Session], joined: Callable[[str], bool]
) -> bytes:
    lines = [
        "info=structs unused_action_count=0 unused_client_count=0 unused_resource_count=0 unused_lock_count=0"
    ]
    owners = {}
    for session in sessions:
        name = session.who.partition(" ")[0]
        lines.append(f"info=client pid={session.process[0]} fd=0 pi=0 id={session.client} name={name}")
        owners[session.owner.name] = session.client
    persistent = {use.lock for use in locker.persistent()}
    found: dict[str, dict[str, list[Use]]] = {}
    for use in locker.uses():
        if use.by_lvm2 and use.held is not None:
            found.setdefault(use.lockspace, {}).setdefault(use.resource, []).append(use)
    names = sorted(context.state.lockspaces) if context.state is not None else []
    for name in names:
        if name.startswith(VG_SPACE) and joined(name):
            lines.append(_lockspace(context, name))
            for resource, uses in sorted(found.get(name, {}).items()):
                lines += _resource(resource, uses, persistent, owners)
    return "".join(f"{line}\n" for line in lines).encode()


def _lockspace(context: Context, name: str) -> str:
    vg = "" if name == GLOBAL_SPACE else name.removeprefix(VG_SPACE)
    args = lock_args_of(context.config.name) if vg else ""
    return (
        f"info=ls ls_name={name} vg_name={vg} vg_uuid= vg_sysid=. vg_args={args} lm_type=dlm host_id=0 "
        "create_fail=0 create_done=1 thread_work=0 thread_stop=0 thread_done=0 kill_vg=0 drop_vg=0 "
        "sanlock_gl_enabled=0"
    )


def _resource(name: str, uses: list[Use], persistent: set[int], owners: dict[str, int]) -> list[str]:
    modes = [use.held.mode for use in uses if use.held is not None]
    shared = sum(mode is Mode.PR for mode in modes)
    values = [parse_lvb(use.held.lvb) for use in uses if use.held is not None]
    version = max((one.number for one in values if one is not None), default=0)
    kind = _TYPES.get(name, "lv")
    lines = [
        f"info=r name={name} type={kind} mode={_mode(max(modes))} sh_count={shared} version={version}"
    ]
    for use in uses:
        assert use.held is not None
        held = use.lock in persistent
        client = 0 if held or use.owner is None else owners.get(use.owner.name, 0)
        lines.append(
            f"info=lk mode={_mode(use.held.mode)} version=0 flags={_PERSISTENT if held else 0:#x} "
            f"client_id={client}"
        )
    return lines


def _mode(mode: Mode) -> str:
    return "ex" if mode is Mode.EX else "sh"
