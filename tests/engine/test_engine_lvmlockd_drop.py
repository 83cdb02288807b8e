"""lvmlockctl --drop and --kill beside one another, and a lock that its command has lost."""

from pathlib import Path

import pytest
from lvm_story import Story

from ringfence.engine.inputs import LvmGone, LvmRequest
from ringfence.locks.outs import ClientLost


@pytest.fixture
def story(tmp_path: Path) -> Story:
    story = Story(tmp_path)
    for line in ("n1 makes vg0/vm1", "n1.1 start_vg vg0", "pass 500"):
        story.do(line)
    return story


def together(story: Story, *requests: tuple[int, str]) -> list[str]:
    """Requests about VG vg0 on n1, each from a connection of its own, before the first has an answer."""
    host = story.hosts["n1"]
    story.pass_over()
    for client, op in requests:
        host.feed(LvmRequest(client, story.asked(client, op, ["vg0"])))
    story.world.run()
    story.world.pass_ms(500)
    story.tell()
    return [line for line in story.lines if line.startswith("n1.")]


def test_two_drops_at_once_end_one_after_the_other(story: Story) -> None:
    answers = together(story, (8, "drop_vg"), (9, "drop_vg"))
    assert sorted(answers) == ["n1.8 drop_vg ok", "n1.9 drop_vg EBUSY"]
    assert story.hosts["n1"].node.context.killed == []


def test_a_kill_stays_when_a_drop_before_it_is_refused(story: Story) -> None:
    for line in ("n1.1 lock_lv ex vg0/vm1 persistent", "n1 table vg0/vm1"):
        story.do(line)
    host = story.hosts["n1"]
    assert together(story, (8, "drop_vg"), (9, "kill_vg")) == ["n1.8 drop_vg EBUSY", "n1.9 kill_vg ok"]
    assert host.node.context.killed == ["vg0"]
    assert story.do("n1.2 lock_vg sh vg0")[0] == "n1.2 lock_vg EVGKILLED"


def test_an_activation_under_way_is_in_the_way_of_a_drop(story: Story) -> None:
    """A command may skip the VG's lock (--lockopt skipvg): that of its LV is all that shows it."""
    host = story.hosts["n1"]
    host.feed(LvmRequest(3, story.asked(3, "lock_lv", ["ex", "vg0/vm1", "persistent"])))
    assert "n1.9 drop_vg EBUSY" in together(story, (9, "drop_vg"))


def test_who_has_lost_its_lock_alone_is_not_let_go_on_to_commit(story: Story) -> None:
    """LVM2 does not look at the answer of vg_update, but it does wait for one."""
    story.do("n1.1 lock_vg ex vg0")
    locker = story.hosts["n1"].node._running.locker
    (use,) = locker.uses()
    locker.take([ClientLost(use.lock)])
    assert story.do("n1.1 vg_update vg0 version=3")[-1] == "n1.1 vg_update waits"


def test_a_process_that_ended_with_one_lock_twice_is_told_of_it_once(story: Story) -> None:
    """It had two connections, say, and the daemon ended both."""
    host = story.hosts["n1"]
    asked = story.asked(8, "lock_gl", ["sh"])
    for client in (8, 9):
        host.processes[asked.pid] = asked.started
        host.feed(LvmRequest(client, asked))
        story.world.run()
        host.feed(LvmGone(client, unread=False, hung_up=True))
    story.do("n1 exits 8")
    (said,) = [event.what for event in host.events if event.kind == "lvm-ended"]
    assert said == "LVM2's process 8 has ended: the global lock is let go of, its value not valid"
