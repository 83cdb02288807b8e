"""Stories: the few faults, at the right moments, that reach a rule which chance alone seldom needs.

Each is told once, in a world that is at work; then there is peace.  Moments and lengths vary with the
seed: what is too early or too late by a little is another story.  Whoever finds a rule that no story
needs writes one; a mutant without that rule shows that it is reached."""

from ringfence.sim.stories import cluster, slots, volumes
from ringfence.sim.stories.story import RINGS, STORIES, Story, draw_story

__all__ = ["RINGS", "STORIES", "Story", "cluster", "draw_story", "slots", "volumes"]
