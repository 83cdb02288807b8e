"""A plan as files: a directory a host, the secrets once beside them, and what to do next."""

import msgspec

from ringfence.config.corosync_conf import render_corosync
from ringfence.config.load import Loaded
from ringfence.config.render import render
from ringfence.config.setup.next_steps import next_steps
from ringfence.config.setup.plan import Plan

KEY_BYTES = 256
"""Of authkey.  knet takes 128 to 4096 bytes."""
OPEN, CLOSED = 0o644, 0o600


class File(msgspec.Struct, frozen=True):
    path: str
    """Below the cluster's directory."""
    data: bytes
    mode: int


def files_of(plan: Plan, authkey: bytes, where: str) -> list[File]:
    """
    Args:
        authkey: random bytes, `KEY_BYTES` of them.
        where: the cluster's directory as the user would type it.
    """
    toml = render(Loaded(plan.config, plan.disks)).encode()
    corosync = render_corosync(plan.config).encode()
    files = [File("NEXT.txt", next_steps(plan, where).encode(), OPEN)]
    for node in plan.config.nodes:
        files += [
            File(f"{node.name}/corosync.conf", corosync, OPEN),
            File(f"{node.name}/authkey", authkey, CLOSED),
            File(f"{node.name}/ringfence.toml", toml, OPEN),
        ]
    return files + [File(f"secrets/{one.device}", one.text.encode(), CLOSED) for one in plan.secrets]
