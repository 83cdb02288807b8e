"""Turns with names: in the order of coming, whatever becomes of those who wait."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from ringfence.block.turns import Turns

Log = list[str]


def play(story: Callable[[Turns, Log], Coroutine[Any, Any, None]]) -> Log:
    log: Log = []

    async def body() -> None:
        turns = Turns()
        await story(turns, log)
        assert not turns._last, "nothing is kept of names that nobody has"

    asyncio.run(body())
    return log


async def take(turns: Turns, log: Log, who: str, *names: str, until: asyncio.Event | None = None) -> None:
    async with turns.of(*names):
        log.append(f"{who} begins")
        await (until.wait() if until is not None else asyncio.sleep(0))
        log.append(f"{who} ends")


async def steps() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_first_come_first_served_and_others_are_not_kept() -> None:
    async def story(turns: Turns, log: Log) -> None:
        until = asyncio.Event()
        tasks = [asyncio.ensure_future(take(turns, log, "one", "a", "b", until=until))]
        await steps()
        tasks += [asyncio.ensure_future(take(turns, log, *words)) for words in (
            ("two", "b", "c"), ("three", "c"), ("four", "d"), ("five", "a", "a"))]  # fmt: skip
        await steps()
        assert [turns.taken(name) for name in "abcd"] == [True, True, True, False]
        until.set()
        await asyncio.gather(*tasks)

    log = play(story)
    assert log[:3] == ["one begins", "four begins", "four ends"]
    assert log.index("two begins") > log.index("one ends")
    assert log.index("five begins") > log.index("one ends")
    assert log.index("three begins") > log.index("two ends")


def test_whoever_gives_up_waiting_lets_nobody_pass() -> None:
    async def story(turns: Turns, log: Log) -> None:
        until = asyncio.Event()
        one = asyncio.ensure_future(take(turns, log, "one", "a", until=until))
        await steps()
        two = asyncio.ensure_future(take(turns, log, "two", "a"))
        await steps()
        three = asyncio.ensure_future(take(turns, log, "three", "a"))
        await steps()
        two.cancel()
        await steps()
        assert log == ["one begins"]
        until.set()
        await asyncio.gather(one, three)

    assert play(story) == ["one begins", "one ends", "three begins", "three ends"]


def test_what_is_free_is_had_without_a_step_of_the_loop() -> None:
    async def story(turns: Turns, log: Log) -> None:
        stepped = asyncio.ensure_future(asyncio.sleep(0))
        async with turns.of("a", "b"):
            assert not stepped.done()
        await stepped

    play(story)


def test_whoever_gives_up_as_the_last_one_leaves_the_name_with_who_has_it() -> None:
    async def story(turns: Turns, log: Log) -> None:
        until = asyncio.Event()
        one = asyncio.ensure_future(take(turns, log, "one", "a", "b", until=until))
        await steps()
        two, three = (asyncio.ensure_future(take(turns, log, who, "a", "b")) for who in ("two", "three"))
        await steps()
        two.cancel()
        await steps()
        three.cancel()
        await steps()
        assert turns.taken("a")
        four = asyncio.ensure_future(take(turns, log, "four", "b", "a"))
        await steps()
        until.set()
        await asyncio.gather(one, four)

    assert play(story) == ["one begins", "one ends", "four begins", "four ends"]
