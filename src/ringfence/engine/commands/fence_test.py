"""One member's test of its ways to fence: it only looks, and gives way to whoever fences.

A power that reads "off" for a node that is up is looked at again when a loss of that node would have been
noticed: else each crash in the middle of a test would make a liar of an honest device."""

from collections.abc import Callable, Sequence

from ringfence.core.cluster import ClusterConfig
from ringfence.core.evidence import Power
from ringfence.engine.inputs import AgentExited
from ringfence.engine.orders import CallAgent, Command, Pause
from ringfence.fencing.proving import Answers, Subject, judge, skipped
from ringfence.wire.proving import UseTest


def fence_test(
    config: ClusterConfig,
    subjects: Sequence[Subject],
    hold: Callable[[Subject], str],
    up: Callable[[], tuple[int, ...]],
    wall_ms: Callable[[], int],
) -> Command:
    """Args:
        hold: why this one cannot be tested now; empty: it can.
        up: ready members.

    Returns: tuple[UseTest, ...], one for each subject."""
    found: list[UseTest] = []
    for subject in subjects:
        why = hold(subject)
        if not why:
            answers = yield from _look(config, subject)
            if answers.power is Power.OFF and subject.node in up() and not hold(subject):
                yield Pause(2 * config.timing.detection_ms)
                answers = yield from _look(config, subject)
            why = hold(subject)
        if why:
            found.append(skipped(subject, why, wall_ms()))
        else:
            found.append(judge(config, subject, answers, up(), wall_ms()))
    return tuple(found)


def _look(config: ClusterConfig, subject: Subject) -> Command:
    """Returns: Answers."""
    status: AgentExited = yield _call(config, subject, "status")
    plugs = None
    if status.power is not Power.UNKNOWN:
        listed: AgentExited = yield _call(config, subject, "list")
        plugs = listed.plugs
    return Answers(status.power, status.words, status.took_ms, plugs)


def _call(config: ClusterConfig, subject: Subject, action: str) -> CallAgent:
    return CallAgent(subject.use, action, subject.node, config.device(subject.use.device).timeout_ms)
