"""A host that sends and does not receive.  Over udpu: knet would find it out by its pings."""

from collections.abc import Sequence

from faults_lab import eventually, running

from ringfence.lab.network import Way


def test_the_others_re_form_again_and_again_say_so_and_fence_it() -> None:
    """They hold on while nobody can fence it; when somebody can, it is fenced and the ring is calm."""
    with running(3, "udpu") as cluster:
        cluster.take_volume(2)
        cluster.dead_devices(2)
        cluster.lab.cut(cluster.name(2), way=Way.INBOUND)
        eventually(lambda: "the ring re-formed" in cluster.why(3), what=cluster.tell)
        # Between two of its views a host waits for the next one, and says that alone.
        words = (
            "the ring re-formed",
            "and nobody joined it or ended",
            "messages get lost, or a node sends and does not receive",
            f"{cluster.name(2)} suspected since",
        )
        eventually(lambda: _all_in(words, cluster.why(1)), what=cluster.tell)
        eventually(
            lambda: any("the ring re-formed" in line for line in cluster.status(1)["blocked_by"]),
            what=cluster.tell,
        )
        eventually(lambda: cluster.status(2)["state"] == "suspended", what=cluster.tell)
        assert f"no quorum: {cluster.name(1)}, {cluster.name(3)} missing" in cluster.why(2)
        asked = cluster.ask_for_volume(1)
        cluster.honest_devices()
        eventually(lambda: asked.granted, what=cluster.tell)
        assert cluster.off(2)
        eventually(lambda: cluster.ready(1, 3) and cluster.ready(3, 1), what=cluster.tell)


def _all_in(words: Sequence[str], said: str) -> bool:
    return all(one in said for one in words)
