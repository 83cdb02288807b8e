"""What every ring engine must do for the engine above it (`ring.port`)."""

from ring_engines import AnyWorld


def test_all_members_deliver_everything_in_one_order_the_sender_too(world: AnyWorld) -> None:
    members = world.ring(1, 2, 3)
    for member in members:
        member.burst(300)
    for member in members:
        for sender in (1, 2, 3):
            member.wait_count(sender, 300)
    epoch = members[0].epoch
    first = members[0].since(epoch)
    assert [member.since(epoch) for member in members] == [first] * 3
    for sender in (1, 2, 3):
        own = [text for kind, who, text in first[1:] if who == sender]
        assert own == [f"{sender}:{number}" for number in range(300)]


def test_views_stand_at_the_same_place_in_the_order(world: AnyWorld) -> None:
    one, two = world.ring(1, 2)
    start = one.epoch
    for member in (one, two):
        member.burst(2000)
    three = world.member(3)
    three.wait_view(1, 2, 3)
    for member in (one, two, three):
        member.burst(500)
    three.kill()
    for member in (one, two):
        member.send("end")
        member.wait_view(1, 2, after=three.epoch)
        member.send("end after")
    for member in (one, two):
        member.wait(lambda events: sum(e[0] == "got" and e[2] == "end after" for e in events) == 2)
    story = one.since(start)
    assert story == two.since(start)
    three_saw = three.since(three.epoch)
    at = story.index(three_saw[0])
    assert three_saw == story[at : at + len(three_saw)]


def test_view_says_who_joined_and_who_left(world: AnyWorld) -> None:
    one, two = world.ring(1, 2)
    _, epoch, _, joined, left, how = one.wait_view(1, 2)
    assert (joined, left, how) == ((2,), (), {})
    assert epoch.rep == 1
    assert two.wait_view(1, 2)[3] == (1, 2)
    one.leave()
    _, later, _, joined, left, how = two.wait_view(2)
    assert (joined, left, how) == ((), (1,), {1: "leave"})
    assert later > epoch
    assert later.rep == 2


def test_epochs_increase_over_cut_heal_and_restart(world: AnyWorld) -> None:
    one, two, three = world.ring(1, 2, 3)
    whole = one.epoch
    world.cut((1,), (2, 3))
    alone = one.wait_view(1, after=whole)[1]
    others = two.wait_view(2, 3, after=whole)[1]
    assert three.wait_view(2, 3)[1] == others
    assert alone > whole
    assert others > whole
    assert alone != others
    world.heal()
    healed = [member.wait_view(1, 2, 3, after=max(alone, others))[1] for member in (one, two, three)]
    assert healed[0] == healed[1] == healed[2]
    world.lose()
    for member in (one, two, three):
        member.wait_lost()
    world.restore()
    for member in (one, two, three):
        member.wait_view(1, 2, 3, after=healed[0])
    for member in (one, two, three):
        seqs = [view[1].seq for view in member.views]
        assert seqs == sorted(set(seqs)), "an epoch came twice or went back"


def test_sides_of_a_cut_do_not_hear_each_other_and_have_orders_of_their_own(world: AnyWorld) -> None:
    one, two, three = world.ring(1, 2, 3)
    whole = one.epoch
    world.cut((1,), (2, 3))
    one.wait_view(1, after=whole)
    two.wait_view(2, 3, after=whole)
    three.wait_view(2, 3, after=whole)
    for member in (one, two, three):
        member.burst(100)
    one.wait_count(1, 100)
    for member in (two, three):
        member.wait_count(2, 100)
        member.wait_count(3, 100)
    assert two.since(two.epoch) == three.since(three.epoch)
    assert {event[1] for event in two.events if event[0] == "got"} == {2, 3}
    assert {event[1] for event in one.events if event[0] == "got"} == {1}
    assert one.views[-1][4:] == ((2, 3), {2: "nodedown", 3: "nodedown"})
    world.heal()
    assert one.wait_view(1, 2, 3, after=whole)[3] == (2, 3)
    assert two.wait_view(1, 2, 3, after=whole)[3] == (1,)


def test_frozen_host_is_removed_in_time_and_told_when_it_thaws(world: AnyWorld) -> None:
    one, two, three = world.ring(1, 2, 3, host=True)
    before = one.epoch
    frozen_at = world.now_s
    three.freeze()
    how = two.wait_view(1, 2, after=before)[5]
    took_s = world.now_s - frozen_at
    assert how == {3: "nodedown"}
    assert world.detection_s * 0.5 < took_s < world.detection_s * 2 + world.late_s
    one.send("meanwhile")
    two.wait_payload("meanwhile")
    gone = two.epoch
    three.thaw()
    # Whatever it is told first (that it was removed, or a view of itself alone), it learns that it was out.
    assert {1, 2} <= set(three.wait_view(1, 2, 3, after=gone)[3])
    one.wait_view(1, 2, 3, after=gone)
    assert not any(event[0] == "got" and event[2] == "meanwhile" for event in three.events)


def test_daemon_that_ends_while_its_host_lives_is_procdown(world: AnyWorld) -> None:
    one, two = world.ring(1, 2, host=True)
    two.kill()
    assert one.wait_view(1, after=one.epoch)[5] == {2: "procdown"}


def test_host_that_ends_takes_its_daemon_along(world: AnyWorld) -> None:
    one, two = world.ring(1, 2, host=True)
    before = one.epoch
    two.kill_host()
    assert one.wait_view(1, after=before)[5] == {2: "nodedown"}
    if two.survives_its_host:
        two.wait_lost()


def test_power_cut_is_nodedown_whichever_process_ends_first(world: AnyWorld) -> None:
    one, two = world.ring(1, 2, host=True)
    before = one.epoch
    two.power_off()
    assert one.wait_view(1, after=before)[5] == {2: "nodedown"}
    assert one.views[-1][2] == (1,)


def test_payload_without_a_view_is_dropped_and_nobody_is_harmed(world: AnyWorld) -> None:
    (one,) = world.ring(1)
    world.lose()
    one.wait_lost()
    one.send("into the void")
    world.restore()
    one.wait_view(1, after=one.epoch)
    one.send("back")
    one.wait_payload("back")
    assert not any(event[0] == "got" and event[2] == "into the void" for event in one.events)
