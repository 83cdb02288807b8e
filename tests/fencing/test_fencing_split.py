"""Where an attempt's time goes: each moment counts once."""

from ringfence.fencing.split import Split


def test_one_after_the_other():
    split = Split(1000)
    split.agent(1010, 200)
    split.wait(1215, 6215)
    split.agent(6220, 300)
    assert split.ended(6530) == (500, 5000, 30)


def test_side_by_side_counts_once():
    split = Split(0)
    split.agent(0, 200)
    split.agent(5, 300)
    assert split.ended(310) == (305, 0, 5)


def test_a_wait_for_a_session_counts_where_no_other_agent_of_the_attempt_ran():
    split = Split(0)
    split.agent(0, 200)
    split.wait(0, 200)
    split.agent(200, 100)
    assert split.ended(300) == (300, 0, 0)
    split = Split(0)
    split.wait(0, 200)
    split.agent(200, 100)
    assert split.ended(310) == (100, 200, 10)


def test_an_agent_that_took_longer_by_its_own_measure_leaves_nothing_for_us():
    split = Split(0)
    split.agent(0, 210)
    assert split.ended(200) == (210, 0, 0)
