"""Reloading the device-mapper tables of LVs that stock LVM2 has active here, by stock LVM2 itself.

Only linear and striped LVs are active on several hosts at once: LVM2 shares none that is made of others."""

from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from typing import Any

from ringfence.core.errors import LocksLost, RingfenceError
from ringfence.engine.commands.disks import find_text
from ringfence.engine.orders import GoOn, LvmRan, Order, RefreshLvs
from ringfence.lvm2.images import LvImage, lv_images
from ringfence.lvm2.names import check_name

LIMIT_MS = 30_000
"""How long one process may take: it waits for writes that are under way."""
AT_ONCE = 100
"""How many LVs one process reloads: it reads the metadata once for all of them."""
STEP = 500
"""How many LVs are looked at before others have their turn."""
WORDS = 200


def look_at(vg: str, uuids: Collection[str]) -> Generator[Order, Any, dict[str, LvImage]]:
    """What the metadata says now of these LVs, those that are not there left out.

    Raises NotFound, Damaged."""
    text = yield from find_text(vg)
    found = {}
    for number, (uuid, image) in enumerate(lv_images(text, uuids), 1):
        found[uuid] = image
        if number % STEP == 0:
            yield GoOn()
    return found


def refresh(
    vg: str, lvs: Iterable[str], allowed: Callable[[], bool]
) -> Generator[Order, Any, dict[str, str]]:
    """Reload these LVs, by name; those that failed, each with why.

    allowed: asked before each process.  Raises LocksLost."""
    names = list(lvs)
    failed: dict[str, str] = {}
    for at in range(0, len(names), AT_ONCE):
        some = names[at : at + AT_ONCE]
        why = (yield from _run(vg, some)) if allowed() else "this node has no authority now"
        failed.update(dict.fromkeys(some, why) if why else {})
    return failed


def _run(vg: str, names: Sequence[str]) -> Generator[Order, Any, str]:
    try:
        check_name(vg)
        for name in names:
            check_name(name, "LV")
        ran: LvmRan = yield RefreshLvs(vg, tuple(names), LIMIT_MS)
    except LocksLost:
        raise  # and nothing more is loaded
    except RingfenceError as error:
        return str(error)
    if ran.code == 0:
        return ""
    lines = [line.strip() for line in ran.words.splitlines() if line.strip()]
    ended = f"exit code {ran.code}" if ran.code is not None else f"it did not end within {LIMIT_MS // 1000} s"
    return f"lvchange --refresh: {lines[-1][:WORDS] if lines else ended}"
