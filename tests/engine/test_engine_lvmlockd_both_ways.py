"""An LV is never active on a host through LVM2 and through ringfence's own path at once."""

import contextlib
from pathlib import Path
from typing import Any

from engine_ring import Host
from lvm_story import Story

from ringfence.core.errors import RingfenceError
from ringfence.engine.inputs import LvmRequest
from ringfence.wire import client as calls

MOST_READS = 20


def interrupted(story: Story, host: Host, client: int, after: int) -> int:
    """Activate vg0/vm1 by ringfence, and by LVM2 in the middle of its `after`-th look at the disks.

    Returns how often it looked."""
    looks, do = 0, host.storage.do

    def look(order: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == after:
            host.feed(LvmRequest(client, story.asked(client, "lock_lv", ["sh", "vg0/vm1", "persistent"])))
        return do(order)

    host.storage.do = look
    with contextlib.suppress(RingfenceError):
        story.done(host, calls.LvChange("vg0", "vm1", activate="sy", wait_ms=2000))
    host.storage.do = do
    return looks


def test_both_ask_at_once(tmp_path: Path) -> None:
    story = Story(tmp_path)
    for line in ("n1 makes vg0/vm1", "n1.1 start_vg vg0", "pass 500"):
        story.do(line)
    host, came_first = story.hosts["n1"], set()
    for after in range(1, MOST_READS):
        looks = interrupted(story, host, after, after)
        if looks < after:
            break
        story.world.pass_ms(500)
        locker = host.node._running.locker
        ways = ["LVM2" if use.by_lvm2 else "ringfence" for use in locker.persistent()]
        assert len(ways) == 1, f"interrupted at its look {after}"
        came_first.add(ways[0])
        story.do(f"n1.{after} lock_lv un vg0/vm1 persistent" if ways == ["LVM2"] else "n1 deactivate vg0/vm1")
        story.world.pass_ms(500)
        assert locker.persistent() == []
    assert "LVM2" in came_first
