"""What lvmlockctl shows: one line a thing, `key=value` each, in the order in which it reads them.

lvmlockctl has room for so many clients, so long a line and so many bytes; what is longer overruns its
memory, or is not shown.  So nothing of that is ever sent, and what is left out is told in a line of its own:
it prints those that it does not know behind "UN".

Source: LVM2 daemons/lvmlockd/lvmlockd-core.c (print_client, print_lockspace, print_resource, print_lock,
print_action, dump_info), lvmlockctl.c (format_info, szscanf: a word is never empty; MAX_CLIENTS, MAX_LINE,
DUMP_BUF_SIZE)."""

from collections.abc import Iterable, Iterator

from ringfence.core.locknames import GLOBAL_SPACE, VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine.commands.locking import GLOBAL_RESOURCE, VG_RESOURCE, parse_lvb
from ringfence.engine.context import Context
from ringfence.engine.locker import Locker
from ringfence.engine.lvmlockd.sessions import Session
from ringfence.engine.orders import Command, GoOn
from ringfence.engine.uses import Use
from ringfence.volumes.access import lock_args_of

DUMP_BYTES = 4 << 20
OLD_DUMP_BYTES = 1 << 20
"""Of lvmlockctl before 2.03.26."""
CLIENTS = 100
TOLD_BYTES = 256
"""Room for the line that tells what was left out."""
SLICE = 250
"""How many resources are printed before others have their turn."""
CHEAPER = 8
"""By how much it is cheaper to sort a lock in than to print it."""
_TYPES = {GLOBAL_RESOURCE: "gl", VG_RESOURCE: "vg"}
_PERSISTENT = 1
"""A lock's flag."""


class Info:
    """What is shown of this node, as of now.

    Args:
        spaces: lockspaces of VGs that are started here.
        killed: VGs that an admin has killed here.
        old: the asker is of LVM2 before 2.03.28: its line of a lockspace has a `vg_sysid`."""

    def __init__(
        self,
        context: Context,
        locker: Locker,
        sessions: Iterable[Session],
        spaces: Iterable[str],
        killed: Iterable[str],
        *,
        old: bool,
    ) -> None:
        self._context = context
        self._spaces = list(spaces)
        self._killed = list(killed)
        self._old = old
        self._uses = locker.uses()
        self._is_persistent = locker.is_persistent
        busy = sorted(sessions, key=lambda one: not (one.locks or one.asked))
        self._clients, self._more_clients = busy[:CLIENTS], len(busy) - CLIENTS
        self._owners = {one.owner.name: one.client for one in self._clients}
        self._found: dict[str, dict[str, list[Use]]] = {}

    def print(self) -> Command:
        """Answer: the bytes, no more than lvmlockctl has room for."""
        for number, use in enumerate(self._uses):
            if use.by_lvm2 and use.lockspace in self._spaces:
                self._found.setdefault(use.lockspace, {}).setdefault(use.resource, []).append(use)
            if number % (SLICE * CHEAPER) == SLICE * CHEAPER - 1:
                yield GoOn()
        room = (OLD_DUMP_BYTES if self._old else DUMP_BYTES) - TOLD_BYTES
        parts: list[bytes] = []
        left: dict[str, int] = {}
        for number, (space, lines) in enumerate(self._parts()):
            part = b"" if space in left else "".join(f"{line}\n" for line in lines).encode()
            if not part or len(part) > room:
                left[space] = left.get(space, 0) + 1
            else:
                room -= len(part)
                parts.append(part)
            if number % SLICE == SLICE - 1:
                yield GoOn()
        told = [f"{self._more_clients} more clients"] if self._more_clients > 0 else []
        told += [f"{count} more locks of {space}: ringfence locks {space}" for space, count in left.items()]
        if told:
            parts.append(f"not shown: {'; '.join(told)}\n".encode()[-TOLD_BYTES:])
        return b"".join(parts)

    def _parts(self) -> Iterator[tuple[str, Iterable[str]]]:
        """(lockspace, lines that belong together, which are made when they are gone through)."""
        yield "", [
            "info=structs unused_action_count=0 unused_client_count=0 unused_resource_count=0 "
            "unused_lock_count=0"
        ]
        for one in self._clients:
            name = one.cmd.partition(" ")[0] or "."
            yield "", [f"info=client pid={one.process[0]} fd=0 pi=0 id={_short(one.client)} name={name[:64]}"]
        for space in self._spaces:
            yield "", [self._lockspace(space)]
            for resource, uses in self._found.get(space, {}).items():
                yield space, self._resource(resource, uses)

    def _lockspace(self, space: str) -> str:
        vg = "." if space == GLOBAL_SPACE else space.removeprefix(VG_SPACE)
        args = "." if space == GLOBAL_SPACE else lock_args_of(self._context.config.name)
        uuid = self._context.vg_uuid(space) or "."
        sysid = "vg_sysid=. " if self._old else ""
        return (
            f"info=ls ls_name={space} vg_name={vg} vg_uuid={uuid} {sysid}vg_args={args} lm_type=dlm "
            f"host_id={self._context.me} create_fail=0 create_done=1 thread_work=0 thread_stop=0 "
            f"thread_done=0 kill_vg={int(vg in self._killed)} drop_vg=0 sanlock_gl_enabled=0"
        )

    def _resource(self, name: str, uses: list[Use]) -> Iterator[str]:
        held = [(use, use.held) for use in uses if use.held is not None]
        modes = [one.mode for _, one in held]
        values = [parse_lvb(one.lvb) for _, one in held]
        version = max((one.number for one in values if one is not None), default=0)
        kind = _TYPES.get(name, "lv")
        mode = _mode(max(modes)) if modes else "un"
        shared = sum(one is Mode.PR for one in modes)
        yield f"info=r name={name} type={kind} mode={mode} sh_count={shared} version={version}"
        for use, one in held:
            persistent = self._is_persistent(use.lock)
            client = 0 if persistent else self._client(use)
            flags = _PERSISTENT if persistent else 0
            yield f"info=lk mode={_mode(one.mode)} version={version} flags={flags:#x} client_id={client}"
        for use in uses:
            if use.done is not None and use.wanted is not Mode.UN:
                yield (
                    f"info=r_action client_id={self._client(use)} flags=0x0 version=0 op=lock rt={kind} "
                    f"mode={_mode(use.wanted)} lm_type=dlm result=0 lm_rv=0"
                )

    def _client(self, use: Use) -> int:
        return _short(self._owners.get(use.owner.name, 0)) if use.owner is not None else 0


def _short(client: int) -> int:
    """lvmlockctl reads 32 bits."""
    return client & 0xFFFFFFFF


def _mode(mode: Mode) -> str:
    return "ex" if mode is Mode.EX else "sh"
