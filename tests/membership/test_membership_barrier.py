"""What a complete barrier means: tables, and the same verdict whatever order the words came in."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from ringfence.core.cluster import ClusterConfig, NodeConfig
from ringfence.core.ids import Epoch, Life
from ringfence.membership.barrier import Barrier, Verdict
from ringfence.wire import LEAVE_OUT, RAGGED_ENDS, UNSAID, WHOLE_PREFIX, Speaks
from ringfence.wire.ring import Ready


def cluster(count: int, two_node: bool = False) -> ClusterConfig:
    return ClusterConfig(
        "c", two_node=two_node, nodes=tuple(NodeConfig(id, f"n{id}") for id in range(1, count + 1))
    )


def life(node: int, boot: str = "b1", incarnation: int = 1) -> Life:
    return Life(node, f"m{node}", boot, incarnation)


def has(epoch: int, position: int = 0, digest: str = "d", **more: object) -> Ready:
    fields = {"disk_epoch": Epoch(epoch, 1), "speaks": Speaks(1, 1), **more}
    return Ready(has_state=True, primary=Epoch(epoch, 1), position=position, digest=digest, **fields)


def none(disk: int = 0, **more: object) -> Ready:
    on_disk = Epoch(disk, 1) if disk else Epoch()
    fields = {"disk_epoch": on_disk, "speaks": Speaks(1, 1), **more}
    return Ready(has_state=False, primary=Epoch(), position=0, digest="", **fields)


def verdict(words: dict[int, Ready], config: ClusterConfig | None = None) -> Verdict:
    barrier = Barrier(Epoch(20, 1), tuple(words))
    for node, ready in words.items():
        assert not barrier.complete
        barrier.add(node, life(node), ready)
    assert barrier.complete
    return barrier.verdict(config or cluster(3))


TWO = cluster(2, two_node=True)
A2 = life(2)
OLD, NEW = {"speaks": Speaks(1, 1)}, {"speaks": Speaks(1, 2)}
STOPS = {"speaks": Speaks(1, 3)}


def told(*counts: int) -> dict[str, object]:
    """Of n1, n2, ...: how many entries were applied."""
    heard = {node: (1, count) for node, count in enumerate(counts, 1)}
    return {"told": heard, "speaks": Speaks(1, RAGGED_ENDS)}


TABLE = {
    "equal members go on": (
        {1: has(5, 9), 2: has(5, 9), 3: has(5, 9)}, None,
        Verdict(primary=True, carriers=(1, 2, 3)),
    ),
    "a newcomer takes the snapshot": (
        {1: none(), 2: has(5, 9), 3: has(5, 9)}, None,
        Verdict(primary=True, carriers=(2, 3), empty=(1,), sender=2),
    ),
    "a lower position in the same primary epoch keeps its life": (
        {1: has(5, 8), 2: has(5, 9)}, None,
        Verdict(primary=True, carriers=(2,), behind=(1,), sender=2),
    ),
    "nothing but the last entries is missing: it keeps its life": (
        {1: has(5, 8, **told(3, 5)), 2: has(5, 9, **told(4, 5))}, None,
        Verdict(primary=True, carriers=(2,), behind=(1,), sender=2),
    ),
    "a longer state that only one has heard does not outweigh what two have": (
        {1: has(5, 12, "x", **told(9, 2, 1)), 2: has(5, 9, **told(4, 4, 1)),
         3: has(5, 9, **told(4, 4, 1))}, None,
        Verdict(primary=True, carriers=(2, 3), stale=(1,), protocol=7),
    ),
    "a beginning of both stands by neither; the longer one goes on": (
        {1: has(5, 12, "x", **told(9, 2, 1)), 2: has(5, 7, "y", **told(3, 2, 1)),
         3: has(5, 9, "z", **told(4, 4, 1))}, None,
        Verdict(primary=True, carriers=(1,), behind=(2,), stale=(3,), sender=1, protocol=7),
    ),
    "of two that each heard what the other did not, the longer goes on": (
        {1: has(5, 12, "x", **told(9, 2)), 2: has(5, 9, "y", **told(4, 4))}, TWO,
        Verdict(primary=True, carriers=(1,), stale=(2,), protocol=7),
    ),
    "of several ends, each heard by as many and as long, the lowest member's goes on": (
        {1: has(5, 9, "w", **told(4, 2, 2)), 2: has(5, 10, "x", **told(4, 3, 2)),
         3: has(5, 10, "y", **told(4, 2, 3))}, None,
        Verdict(primary=True, carriers=(2,), behind=(1,), stale=(3,), sender=2, protocol=7),
    ),
    "two and two likewise": (
        {1: has(5, 9, "x", **told(4, 3, 2, 2)), 2: has(5, 9, "y", **told(4, 2, 3, 2)),
         3: has(5, 9, "x", **told(4, 3, 2, 2)), 4: has(5, 9, "y", **told(4, 2, 3, 2))}, cluster(4),
        Verdict(primary=True, carriers=(1, 3), stale=(2, 4), protocol=7),
    ),
    "who has heard the same and differs is in error: all freeze, whatever others have heard": (
        {1: has(5, 9, "x", **told(4, 3, 2, 2)), 2: has(5, 9, "y", **told(4, 3, 2, 2)),
         3: has(5, 9, "z", **told(4, 2, 2, 3)), 4: has(5, 9, "z", **told(4, 2, 2, 3))}, cluster(4),
        Verdict(primary=False, divergent=True, protocol=7),
    ),
    "beside a node that does not know of it all stand still": (
        {1: has(5, 9, "x", **(told(4, 3) | {"speaks": Speaks(1, WHOLE_PREFIX)})),
         2: has(5, 9, "y", **told(3, 4))}, None,
        Verdict(primary=False, divergent=True, protocol=4),
    ),
    "who was let in, or left, in between is in one state alone: that is no gap": (
        {1: has(5, 8, told={1: (1, 3), 2: (1, 5), 3: (1, 7)}, speaks=Speaks(1, WHOLE_PREFIX)),
         2: has(5, 9, told={1: (2, 1), 2: (1, 5)}, speaks=Speaks(1, WHOLE_PREFIX))}, None,
        Verdict(primary=True, carriers=(2,), behind=(1,), sender=2),
    ),
    "beside a node that does not say what it has applied all judge by the length": (
        {1: has(5, 12, "x", **told(9, 2, 1)), 2: has(5, 9, **told(4, 4, 1)), 3: has(5, 9)}, None,
        Verdict(primary=True, carriers=(1,), behind=(2, 3), sender=1),
    ),
    "an earlier primary epoch is stale, however far it got": (
        {1: has(4, 99), 2: has(5, 1)}, None,
        Verdict(primary=True, carriers=(2,), stale=(1,)),
    ),
    "an earlier primary epoch is stale, not behind, at a lower position too": (
        {1: has(4, 8), 2: has(5, 9)}, None,
        Verdict(primary=True, carriers=(2,), stale=(1,)),
    ),
    "a minority's digest is stale": (
        {1: has(5, 9, "x"), 2: has(5, 9), 3: has(5, 9)}, None,
        Verdict(primary=True, carriers=(2, 3), stale=(1,)),
    ),
    "no majority among digests: all freeze": (
        {1: has(5, 9, "x"), 2: has(5, 9, "y")}, None,
        Verdict(primary=False, divergent=True),
    ),
    "a lower position does not vote on digests": (
        {1: has(5, 8, "x"), 2: has(5, 8, "x"), 3: has(5, 9, "y")}, None,
        Verdict(primary=True, carriers=(3,), behind=(1, 2), sender=3),
    ),
    "one of three is suspended and nobody takes or drops anything": (
        {1: has(5, 9)}, None,
        Verdict(primary=False, carriers=(1,)),
    ),
    "not primary: a stale member keeps its state": (
        {1: has(4, 9), 2: has(5, 9)}, cluster(5),
        Verdict(primary=False, carriers=(2,)),
    ),
    "first start: a majority without state begins": (
        {1: none(), 2: none()}, None,
        Verdict(primary=True, empty=(1, 2), fresh=True),
    ),
    "first start of two: both must be there": (
        {1: none()}, TWO,
        Verdict(primary=False),
    ),
    "first start of two, both there": (
        {1: none(), 2: none()}, TWO,
        Verdict(primary=True, empty=(1, 2), fresh=True),
    ),
    "the lone half of two goes on with state": (
        {2: has(5, 9)}, TWO,
        Verdict(primary=True, carriers=(2,)),
    ),
    "a later epoch on a restarted member's disk voids older state": (
        {1: has(5, 9), 2: none(disk=6)}, None,
        Verdict(primary=True, stale=(1,), empty=(2,), fresh=True),
    ),
    "the same in a lone half of two: nobody may act": (
        {1: has(5, 9, disk_epoch=Epoch(6, 1))}, TWO,
        Verdict(primary=False),
    ),
    "an older epoch on a newcomer's disk is history": (
        {1: has(5, 9), 2: none(disk=4)}, None,
        Verdict(primary=True, carriers=(1,), empty=(2,), sender=1),
    ),
    "a victim that returns with state is stale, though its epoch is later": (
        {1: has(5, 9, victims=(A2,)), 2: has(5, 12)}, None,
        Verdict(primary=True, carriers=(1,), stale=(2,), victims=(A2,)),
    ),
    "so is one that was given up for fenced": (
        {1: has(5, 9, fenced=(A2,)), 2: has(5, 12)}, None,
        Verdict(primary=True, carriers=(1,), stale=(2,)),
    ),
    "a disk remembers what was given up in the very view that a member carries": (
        {1: none(disk=5, fenced=(A2,)), 2: has(5, 9)}, None,
        Verdict(primary=True, stale=(2,), empty=(1,), fresh=True),
    ),
    "and not what an earlier view has given up": (
        {1: none(disk=4, fenced=(A2,)), 2: has(5, 9)}, None,
        Verdict(primary=True, carriers=(2,), empty=(1,), sender=2),
    ),
    "a victim's own later epoch still voids what is older": (
        {1: has(5, 9, victims=(A2,)), 2: has(6, 1)}, None,
        Verdict(primary=True, stale=(1, 2), fresh=True, again=True, victims=(A2,)),
    ),
    "two that call each other victims: nobody begins before all have spoken again": (
        {1: has(5, 9, victims=(A2,)), 2: has(6, 1, victims=(life(1),))}, TWO,
        Verdict(primary=True, stale=(1, 2), fresh=True, again=True, victims=(life(1), A2)),
    ),
    "all have yet to close what they had open": (
        {1: none(reaped=False), 2: none(reaped=False)}, TWO,
        Verdict(primary=True, empty=(1, 2), fresh=True, again=True),
    ),
    "one that has closed its paths can begin": (
        {1: none(reaped=False), 2: none()}, TWO,
        Verdict(primary=True, empty=(1, 2), fresh=True),
    ),
    "another life of a victim's node is no victim": (
        {1: has(5, 9, victims=(life(2, "b0"),)), 2: none()}, None,
        Verdict(primary=True, carriers=(1,), empty=(2,), sender=1, victims=(life(2, "b0"),)),
    ),
    "victims are united and sorted; they make nobody else stale": (
        {1: has(5, 9, victims=(life(3, "b3"),)), 2: has(5, 9, victims=(life(3, "b1"), life(3, "b3")))}, None,
        Verdict(primary=True, carriers=(1, 2), victims=(life(3, "b1"), life(3, "b3"))),
    ),
    "a daemon's end counts only if every carrier's ring says so": (
        {1: has(5, 9, procdown=(3, 4)), 2: has(5, 9, procdown=(3,)), 3: none()}, None,
        Verdict(primary=True, carriers=(1, 2), empty=(3,), sender=1, procdown=(3,)),
    ),
    "another configuration than the carriers': named, not ready, no role": (
        {1: none(config_digest="c1"), 2: has(5, config_digest="c2"), 3: has(5, config_digest="c2")}, None,
        Verdict(primary=True, carriers=(2, 3), differs=(1,)),
    ),
    "who differs holds no vote in this view": (
        {1: has(5, 9, config_digest="c1"), 2: none(config_digest="c2")}, None,
        Verdict(primary=False, carriers=(1,), differs=(2,)),
    ),
    "without state the most votes are right": (
        {1: none(config_digest="c1"), 2: none(config_digest="c2"), 3: none(config_digest="c2")}, None,
        Verdict(primary=True, empty=(2, 3), fresh=True, differs=(1,)),
    ),
    "without state and even: the lowest is right, and alone": (
        {1: none(config_digest="c1"), 2: none(config_digest="c2")}, None,
        Verdict(primary=False, differs=(2,)),
    ),
    "the carried state's protocol stays while one cannot do more": (
        {1: has(5, **OLD), 2: has(5, **NEW), 3: has(5, **NEW)}, None,
        Verdict(primary=True, carriers=(1, 2, 3)),
    ),
    "it is raised when every configured node can do more": (
        {1: has(5, **NEW), 2: has(5, **NEW), 3: none(**NEW)}, None,
        Verdict(primary=True, carriers=(1, 2), empty=(3,), sender=1, protocol=2),
    ),
    "not while one of them is away": (
        {1: has(5, **NEW), 2: has(5, **NEW)}, None,
        Verdict(primary=True, carriers=(1, 2)),
    ),
    "who does not speak it has no role": (
        {1: has(5, protocol=2, **NEW), 2: has(5, protocol=2, **NEW), 3: none(**OLD)}, None,
        Verdict(primary=True, carriers=(1, 2), protocol=2, foreign=(3,)),
    ),
    "and no vote": (
        {1: has(5, protocol=2, **NEW), 3: none(**OLD)}, None,
        Verdict(primary=False, carriers=(1,), protocol=2, foreign=(3,)),
    ),
    "it is never lowered while a state is carried": (
        {1: has(5, protocol=2, **NEW), 2: none(**OLD), 3: none(**OLD)}, None,
        Verdict(primary=False, carriers=(1,), protocol=2, foreign=(2, 3)),
    ),
    "without state it is what most votes speak, the newest of that": (
        {1: none(**OLD), 2: none(**NEW), 3: none(speaks=Speaks(2, 3))}, None,
        Verdict(primary=True, empty=(2, 3), fresh=True, protocol=2, foreign=(1,)),
    ),
    "a fresh start may go back": (
        {1: none(**OLD), 2: none(disk=5, **NEW), 3: none(**NEW)}, None,
        Verdict(primary=True, empty=(1, 2, 3), fresh=True),
    ),
    "the half of two that lost, and is back, says nothing against the one that went on": (
        {1: has(5, 9), 2: none(6, victims=(life(1),))}, TWO,
        Verdict(primary=True, carriers=(1,), empty=(2,), sender=1, victims=(life(1),)),
    ),
    "unless it had proof, and may have granted": (
        {1: has(5, 9), 2: none(6, victims=(life(1),), fenced=(life(1),))}, TWO,
        Verdict(primary=True, stale=(1,), empty=(2,), fresh=True, victims=(life(1),)),
    ),
    "or suspected an earlier life": (
        {1: has(5, 9), 2: none(6, victims=(life(1, "b0"),))}, TWO,
        Verdict(primary=True, stale=(1,), empty=(2,), fresh=True, victims=(life(1, "b0"),)),
    ),
    "of three none acts alone": (
        {1: has(5, 9), 2: none(6, victims=(life(1),))}, None,
        Verdict(primary=True, stale=(1,), empty=(2,), fresh=True, victims=(life(1),)),
    ),
    "a fresh start knows who had left cleanly": (
        {1: none(5, out=(A2,), **STOPS), 3: none(5, out=(A2,), **STOPS)}, None,
        Verdict(primary=True, empty=(1, 3), fresh=True, protocol=3, out=(A2,)),
    ),
    "from those who know of the highest epoch": (
        {1: none(5, out=(A2,), **STOPS), 3: none(4, **STOPS)}, None,
        Verdict(primary=True, empty=(1, 3), fresh=True, protocol=3, out=(A2,)),
    ),
    "not from who has missed its return": (
        {1: none(5, **STOPS), 3: none(4, out=(A2,), **STOPS)}, None,
        Verdict(primary=True, empty=(1, 3), fresh=True, protocol=3),
    ),
    "nor if one that came as far has seen it let in again": (
        {1: none(5, out=(A2,), **STOPS), 3: none(5, **STOPS)}, None,
        Verdict(primary=True, empty=(1, 3), fresh=True, protocol=3),
    ),
    "but for who had left before, as another saw": (
        {1: none(5, out=(life(1),), **STOPS), 3: none(5, out=(life(1), A2), **STOPS)}, None,
        Verdict(primary=True, empty=(1, 3), fresh=True, protocol=3, out=(life(1), A2)),
    ),
    "as the same life": (
        {1: none(5, out=(life(1),), **STOPS), 3: none(5, out=(life(1, "b0"), A2), **STOPS)}, None,
        Verdict(primary=True, empty=(1, 3), fresh=True, protocol=3),
    ),
    "nor where one would not understand": (
        {1: none(5, out=(A2,), **STOPS), 3: none(5, **NEW)}, None,
        Verdict(primary=True, empty=(1, 3), fresh=True, protocol=2),
    ),
    "what is raised is spoken by all": (
        {1: has(5, **NEW), 2: has(5, **NEW), 3: none(speaks=Speaks(3, 4))}, None,
        Verdict(primary=True, carriers=(1, 2), foreign=(3,)),
    ),
    "who does not say what it speaks has no role either": (
        {1: has(5), 2: has(5), 3: none(speaks=UNSAID)}, None,
        Verdict(primary=True, carriers=(1, 2), foreign=(3,)),
    ),
    "and no vote, whatever its configuration": (
        {1: has(5), 3: none(speaks=UNSAID, config_digest="other")}, None,
        Verdict(primary=False, carriers=(1,), foreign=(3,)),
    ),
    "beside a state that nobody understands none is begun": (
        {1: none(), 2: none(), 3: has(5, 9, speaks=UNSAID)}, None,
        Verdict(primary=False, foreign=(3,)),
    ),
    "nor is an older one gone on with": (
        {1: has(4), 2: has(4), 3: has(5, speaks=UNSAID)}, None,
        Verdict(primary=False, foreign=(3,)),
    ),
    "and its digest is compared with none": (
        {1: has(5, 8), 2: has(5, 8), 3: has(5, 9, "other", speaks=UNSAID)}, None,
        Verdict(primary=True, carriers=(1, 2), foreign=(3,)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_verdict(name: str):
    words, config, expected = TABLE[name]
    assert verdict(words, config) == expected


def test_a_word_may_be_replaced_until_the_barrier_is_complete():
    barrier = Barrier(Epoch(20, 1), (1, 2))
    barrier.add(1, life(1), has(5, 9))
    barrier.add(1, life(1, "b1", 2), none(disk=5))
    assert (barrier.missing, barrier.life(1), barrier.life(2)) == ((2,), life(1, "b1", 2), None)
    barrier.add(2, life(2), has(5, 9))
    assert barrier.complete
    first = barrier.verdict(cluster(3))
    barrier.add(2, life(2, "b1", 2), none(disk=9))
    assert barrier.verdict(cluster(3)) == first
    assert barrier.ready(2) == has(5, 9)


def test_strangers_do_not_complete_a_barrier():
    barrier = Barrier(Epoch(20, 1), (1, 2))
    barrier.add(3, life(3), none())
    barrier.add(1, life(1), none())
    assert not barrier.complete
    with pytest.raises(AssertionError, match="still misses"):
        barrier.verdict(cluster(3))


epochs = st.integers(1, 3).map(lambda seq: Epoch(seq, 1))
lives = st.builds(life, st.integers(1, 5), st.sampled_from(["b1", "b2"]))
readies = st.builds(
    Ready,
    has_state=st.booleans(),
    primary=epochs,
    position=st.integers(0, 2),
    digest=st.sampled_from(["x", "y"]),
    disk_epoch=epochs,
    victims=st.lists(lives, max_size=2).map(tuple),
    fenced=st.lists(lives, max_size=1).map(tuple),
    procdown=st.lists(st.integers(1, 5), max_size=2).map(tuple),
    config_digest=st.sampled_from(["c", "c", "c", "d"]),
    speaks=st.sampled_from([Speaks(1, 2), Speaks(1, 2), Speaks(1, 1), Speaks(2, 2), UNSAID]),
).map(lambda one: replace(one, protocol=max(one.speaks.high, 1), digest=f"{one.digest}{one.speaks.high}"))


@given(st.dictionaries(st.integers(1, 5), readies, min_size=1), st.randoms(use_true_random=False))
def test_the_verdict_is_one_of_all_and_its_roles_are_disjoint(words, random):
    config = cluster(5)
    assume(any(ready.speaks != UNSAID for ready in words.values()))  # who reckons has said it
    first = verdict(words, config)
    order = list(words)
    random.shuffle(order)
    assert verdict({node: words[node] for node in order}, config) == first
    roles = [*first.carriers, *first.behind, *first.stale, *first.empty, *first.differs, *first.foreign]
    assert len(roles) == len(set(roles))
    if first.primary:
        assert sorted(roles) == sorted(words)
        assert bool(first.carriers) != first.fresh
        assert not first.divergent
    else:
        assert (first.behind, first.stale, first.empty) == ((), (), ())
        assert (first.fresh, first.sender) == (False, None)
    for node in roles:
        ready = words[node]
        assert (first.protocol in ready.speaks) or node in (*first.foreign, *first.differs)
    for node in first.carriers:
        carried = words[node]
        assert first.protocol >= carried.protocol
        assert carried.has_state
        assert all(other.disk_epoch <= carried.primary for other in words.values())
        for other in words.values():
            # What only a disk remembers is overtaken by a later primary view that the member was in.
            if other.has_state or other.disk_epoch >= carried.primary:
                assert life(node) not in (*other.victims, *other.fenced)
        assert {words[other].digest for other in first.carriers} == {carried.digest}
    for node in first.behind:
        assert words[node].primary == words[first.carriers[0]].primary


# -- who does not speak -----------------------------------------------------------------------------------


def waiting(words: dict[int, Ready], *silent: int) -> Barrier:
    barrier = Barrier(Epoch(20, 1), (*words, *silent))
    for node, ready in words.items():
        barrier.add(node, life(node), ready)
    return barrier


LATE = {"speaks": Speaks(1, LEAVE_OUT), "protocol": LEAVE_OUT}


@pytest.mark.parametrize(
    ("words", "silent", "config", "left_out"),
    [
        pytest.param({2: has(5, **LATE), 3: has(5, **LATE)}, (1,), None, (1,), id="two of three go on"),
        pytest.param({2: has(5, **LATE)}, (1, 3), None, (), id="one of three does not"),
        pytest.param({2: has(5, **LATE), 3: none(**LATE)}, (1,), None, (1,), id="one of them has the state"),
        pytest.param({2: none(**LATE), 3: none(**LATE)}, (1,), None, (), id="who may have it is waited for"),
        pytest.param({2: has(5, **LATE), 3: none(6, **LATE)}, (1,), None, (), id="it may be newer"),
        pytest.param({1: has(5, **LATE)}, (2,), TWO, (2,), id="one of two goes on"),
        pytest.param({2: has(5, **STOPS), 3: has(5, **STOPS)}, (1,), None, (), id="it would not understand"),
        pytest.param({1: has(5, **LATE), 2: has(5, **LATE), 3: has(5, **LATE)}, (), None, (), id="all speak"),
    ],
)
def test_who_can_be_left_out(
    words: dict[int, Ready], silent: tuple[int, ...], config: ClusterConfig | None, left_out: tuple[int, ...]
) -> None:
    assert waiting(words, *silent).silent(config or cluster(3)) == left_out


def test_who_is_left_out_is_as_if_absent() -> None:
    words = {2: has(5, **LATE), 3: has(5, **LATE)}
    barrier = waiting(words, 1)
    barrier.leave_out((1, 2))
    assert barrier.complete
    assert (barrier.members, barrier.left_out) == ((2, 3), (1,))
    assert barrier.verdict(cluster(3)) == verdict(words)
    barrier.add(1, life(1), has(5, **LATE))
    assert barrier.members == (2, 3), "the verdict stands"


def test_who_is_heard_while_others_are_missing_is_in_again() -> None:
    barrier = waiting({3: has(5, **LATE)}, 1, 2)
    barrier.leave_out((1,))
    assert not barrier.complete
    barrier.add(1, life(1), has(5, **LATE))
    assert (barrier.members, barrier.left_out, barrier.missing) == ((1, 2, 3), (), (2,))
