"""A host that sends and does not receive.  Over udpu: knet would find it out by its pings."""

from faults_lab import eventually, running

from ringfence.lab.network import Way


def test_the_others_re_form_again_and_again_say_so_and_fence_it() -> None:
    """They hold on while nobody can fence it; when somebody can, it is fenced and the ring is calm."""
    with running(3, "udpu") as cluster:
        cluster.take_volume(2)
        cluster.dead_devices(2)
        cluster.lab.cut(cluster.name(2), way=Way.INBOUND)
        for one in (1, 3):
            eventually(lambda one=one: "the ring re-formed" in cluster.why(one), what=cluster.tell)
        said = cluster.why(1)
        assert "and nobody joined it or ended" in said
        assert "messages get lost, or a node sends and does not receive" in said
        assert f"{cluster.name(2)} suspected since" in said
        assert any("the ring re-formed" in line for line in cluster.status(1)["blocked_by"])
        eventually(lambda: cluster.status(2)["state"] == "suspended", what=cluster.tell)
        assert f"no quorum: {cluster.name(1)}, {cluster.name(3)} missing" in cluster.why(2)
        asked = cluster.ask_for_volume(1)
        cluster.honest_devices()
        eventually(lambda: asked.granted, what=cluster.tell)
        assert cluster.off(2)
        eventually(lambda: cluster.ready(1, 3) and cluster.ready(3, 1), what=cluster.tell)
