"""Request ids: what repeats see."""

import pytest

from ringfence.daemon.replies import ReplyBook, Step
from ringfence.wire import client as calls
from ringfence.wire.client import Reply, Request

CREATE = Request("id1", calls.LvCreate("vg0", "a", extents=1))


def test_a_repeat_of_a_finished_change_gets_the_same_reply_from_any_connection() -> None:
    book = ReplyBook()
    assert book.asked(1, CREATE) == (Step.RUN, None)
    assert book.answered(1, Reply("id1", result=7)) == [1]
    book.gone(1)
    assert book.asked(2, CREATE) == (Step.DONE, Reply("id1", result=7))


def test_a_repeat_of_a_running_change_attaches_and_both_are_told() -> None:
    book = ReplyBook()
    book.asked(1, CREATE)
    assert book.asked(2, CREATE) == (Step.WAIT, None)
    assert book.answered(1, Reply("id1", result={"half": 1}, final=False)) == [1, 2]
    assert book.answered(1, Reply("id1", result=7)) == [1, 2]


def test_a_repeat_outlives_the_first_asker() -> None:
    book = ReplyBook()
    book.asked(1, CREATE)
    book.gone(1)
    assert book.asked(2, CREATE) == (Step.WAIT, None)
    assert 2 in book.answered(1, Reply("id1", result=7))
    assert book.asked(3, CREATE) == (Step.DONE, Reply("id1", result=7))


def test_an_id_used_for_something_else_is_refused() -> None:
    book = ReplyBook()
    other = Request("id1", calls.LvCreate("vg0", "b", extents=1))
    book.asked(1, CREATE)
    step, reply = book.asked(2, other)
    assert step is Step.DONE
    assert reply is not None
    assert reply.error is not None
    assert reply.error["code"] == "bad-input"
    book.answered(1, Reply("id1", result=7))
    step, reply = book.asked(2, other)
    assert reply is not None
    assert reply.error is not None


@pytest.mark.parametrize("call", [calls.Status(), calls.Deadlocks()])
def test_reports_are_asked_anew_once_answered(call: calls.Call) -> None:
    book = ReplyBook()
    ask = Request("s", call)
    book.asked(1, ask)
    book.answered(1, Reply("s", result="old"))
    assert book.asked(1, ask) == (Step.RUN, None)


def test_locks_belong_to_their_connection() -> None:
    """A lock reply must never be replayed to another connection: the lock went with the first."""
    book = ReplyBook()
    ask = Request("l", calls.Lock("space", "r"))
    assert book.asked(1, ask) == (Step.RUN, None)
    assert book.asked(2, ask) == (Step.RUN, None)
    assert book.answered(1, Reply("l", result="one")) == [1]
    assert book.answered(2, Reply("l", result="two")) == [2]
    book.asked(3, ask)
    book.gone(3)
    assert book.call(3, "l") is None


def test_only_so_many_replies_are_kept() -> None:
    book = ReplyBook(kept=3)
    for number in range(5):
        request = Request(f"id{number}", calls.LvCreate("vg0", f"lv{number}", extents=1))
        book.asked(1, request)
        book.answered(1, Reply(request.id, result=number))
    assert book.asked(1, Request("id1", calls.LvCreate("vg0", "lv1", extents=1)))[0] is Step.RUN
    assert book.asked(1, Request("id4", calls.LvCreate("vg0", "lv4", extents=1))) == (
        Step.DONE, Reply("id4", result=4),
    )  # fmt: skip
