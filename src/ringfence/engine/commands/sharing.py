"""May several hosts have this LV open at once?  By what is on it.

A file system of one host, swap, an encrypted volume, a guest's own partition table or PV: each has one writer
that believes to be alone, and two destroy it without a word.  A cluster's file system (GFS2, OCFS2) is made
for it, and what nobody writes (iso9660, squashfs) bears it; what is empty, or not known, passes.

This is for ringfence's own path.  Stock LVM2's `lvchange -asy` has no way to be told what is on the LV, nor
to be asked again with force: it is given the lock (docs/lvm2.md)."""

from collections.abc import Generator
from typing import Any

from ringfence.core.errors import Refused
from ringfence.engine.orders import Order, Probe
from ringfence.volumes.signatures import SHAREABLE, Probed
from ringfence.wire.block import Extent


def check_shareable(vg: str, name: str, extents: tuple[Extent, ...]) -> Generator[Order, Any, None]:
    """Raises Refused, with what was found and by whom; DeviceFailed if it cannot be read."""
    found: Probed = yield Probe(extents)
    alone = [one for one in found.signatures if one.use not in SHAREABLE]
    if alone:
        raise Refused(
            f"Logical volume {vg}/{name} carries {', '.join(map(str, alone))}, as {found.by.value} says: "
            "two hosts that have it open at once would destroy that",
            next=f"lvchange -aey {vg}/{name}; if its users really take turns: lvchange -asy --force",
        )
