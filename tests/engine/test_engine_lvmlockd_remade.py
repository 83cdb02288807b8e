"""A VG that is removed, and made anew under the same name: what this host knew of the old one is over."""

from pathlib import Path

import pytest
from lvm_story import Story

OLD = "old-uuid"


def noted_uuid(story: Story) -> str:
    (lock,) = story.hosts["n2"].lvm_locks.values()
    return lock.vg_uuid


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """n2 has not left the lockspace of vg0."""
    story = Story(tmp_path)
    for host in ("n1", "n2"):
        story.do(f"{host}.1 start_vg vg0 vg_uuid={OLD}")
    story.do("pass 500")
    return story


def test_locks_are_noted_with_the_uuid_of_their_vg(story: Story) -> None:
    story.do("n2.2 lock_lv ex vg0/vm1 persistent")
    assert noted_uuid(story) == OLD


def test_the_uuid_of_a_vg_that_was_made_anew_elsewhere_is_forgotten(story: Story) -> None:
    """Tables would be looked for by it, and those of the new VG be left standing."""
    removed = ("lock_vg ex vg0", "vg_update vg0 version=5", "free_vg vg0", "lock_vg un vg0")
    made = ("vg_update vg0 version=2", "start_vg vg0 vg_uuid=new-uuid")
    for line in (*removed, *made):
        story.do(f"n1.2 {line}")
        story.do("pass 500")
    story.do("n2.2 lock_lv ex vg0/vm1 persistent")
    assert noted_uuid(story) == ""
