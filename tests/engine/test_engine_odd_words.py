"""Whatever words a request has, and whatever it is refused for, the error is one line that can be printed.

Each kind of request is made many times, with odd words in its fields beside some that are right."""

import random
import types
from collections.abc import Iterator
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from engine_ring import World

from ringfence.core.errors import from_dict
from ringfence.engine import inputs
from ringfence.wire import client as calls
from ringfence.wire.client import Request

ODD = (
    "a\nb", "\n", "two\r\nlines", "\x1b[31mred\x1b[0m", "tab\there", "\x00", "a/b\nc", "vg0/\n", "\u2028",
    "-\n", "", " ", "x" * 300, "\N{RIGHT-TO-LEFT OVERRIDE}", "vm1\n", "1g\n", "100%FR\nEE", "/dev/\nsda",
    "@t\n", "10.9\nx", "{", "ä",
)  # fmt: skip
RIGHT = ("vg0", "vm1", "vg0/vm1", "ey", "1g", "games")
TIMES = 25
KINDS = sorted(
    (kind for kind in get_args(calls.Call) if kind is not calls.Leave),
    key=lambda kind: kind is calls.VgRemove,
)
"""All but that after which there would be no node left to ask; last, after which there may be no VG."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two hosts with VG vg0 and LV vm1."""
    world = World(tmp_path_factory.mktemp("odd"), 2)
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.PvCreate((str(world.image),)))
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(1000)
    one.do(calls.LvCreate("vg0", "vm1", extents=1, activate="n"))
    return world


def made_up(kind: Any, rng: random.Random) -> Any:
    """A value of a field's type.  Raises KeyError for one that no words make."""
    options = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return made_up(rng.choice(options), rng)
    if kind is str:
        return rng.choice(ODD if rng.random() < 0.6 else RIGHT)
    if get_origin(kind) is tuple and options[1:] == (...,):
        return tuple(made_up(options[0], rng) for _ in range(rng.randrange(4)))
    plain = {int: rng.choice((0, 1, -1, 7, 1 << 70)), bool: rng.random() < 0.5, type(None): None}
    return plain[kind]


def requests(kind: type, rng: random.Random) -> Iterator[Any]:
    hints = get_type_hints(kind)
    for _ in range(TIMES):
        words = {}
        for field in msgspec.structs.fields(kind):
            try:
                if field.required or rng.random() < 0.5:
                    words[field.name] = made_up(hints[field.name], rng)
            except KeyError:
                if field.required:
                    return
        yield kind(**words)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_one_line_that_can_be_printed(world: World, kind: type) -> None:
    host = world.hosts[1]
    for number, call in enumerate(requests(kind, random.Random(kind.__name__))):
        host.feed(inputs.Asked(7, Request(f"odd{number}", call), "tester"))
        world.run()
        for reply in host.replies.pop(f"odd{number}", ()):
            if reply.error is not None:
                for text in (reply.error["message"], reply.error["next"], str(from_dict(reply.error))):
                    assert text.isprintable(), call
    host.feed(inputs.ClientGone(7))
    world.run()
    assert host.running
    assert all(event.what.isprintable() for event in host.events), kind
