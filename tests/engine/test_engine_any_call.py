"""Any request that the client socket lets through is answered, or waits; none ends a daemon, nor breaks a
command half-way (the world raises what a command's own code raises)."""

import enum
import random
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_ring import World

from ringfence.wire import client as calls
from ringfence.wire.client import Request, decode_request, encode

NAMES = ("", "vg0", "vm1", "vg0/vm1", "vg0/none", "lvm_vg0", "games", "an-a01n01", "an-a01n02", "an-a01n09")
TEXTS = (*NAMES, "EX", "pr", "off", "-", "/", "..", "vg0/..", "@tag", "1", "100%FREE", "a b", "\n", "\0", "é")
LONG = ("x" * 65, "x" * 5000)
NUMBERS = (-(2**63), -1, 0, 1, 2, 5, 100, 2**16, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**70)
LEFT_OUT = (calls.Leave, calls.ConfigApply)
"""A node that has left answers nothing more; a configuration is judged before the engine: daemon.queries."""


class Maker:
    def __init__(self, seed: int, images: tuple[str, ...]) -> None:
        self.random = random.Random(seed)
        self._texts = (*TEXTS, *LONG, *images)

    def call(self) -> Any:
        """One that a client could have sent."""
        kinds = [one for one in typing.get_args(calls.Call) if one not in LEFT_OUT]
        while True:
            made = self._struct(self.random.choice(kinds))
            try:
                return decode_request(encode(Request("r", made))).call
            except (msgspec.ValidationError, UnicodeEncodeError):
                continue

    def _struct(self, kind: type[Any]) -> Any:
        hints = typing.get_type_hints(kind, include_extras=True)
        return kind(**{
            field.name: self._value(hints[field.name])
            for field in msgspec.structs.fields(kind)
            if field.required or self.random.random() < 0.4
        })  # fmt: skip

    def _value(self, hint: Any) -> Any:
        pick = self.random.choice
        origin, inside = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            return self._value(inside[0])
        if origin in (typing.Union, types.UnionType):
            return self._value(pick(inside))
        if origin is typing.Literal:
            return pick(inside)
        if origin is tuple and inside[-1] is not Ellipsis:
            return tuple(self._value(one) for one in inside)
        if origin in (tuple, list):
            return origin(self._value(inside[0]) for _ in range(pick((0, 1, 1, 2, 20))))
        if origin is dict:
            return {self._value(inside[0]): self._value(inside[1]) for _ in range(pick((0, 1, 2)))}
        if hint is types.NoneType:
            return None
        if isinstance(hint, enum.EnumType):
            return pick(list(hint))
        plain: dict[Any, Any] = {
            str: lambda: pick(self._texts),
            int: lambda: pick(NUMBERS),
            bool: lambda: pick((False, True)),
            bytes: lambda: self.random.randbytes(pick((0, 1, 32, 33))),
            float: lambda: pick((0.0, -1.0, 0.5, 1e300)),
        }
        return plain[hint]() if hint in plain else self._struct(hint)


@pytest.mark.parametrize("seed", range(6))
def test_no_call_breaks_a_node(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, 2)
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.PvCreate((str(world.image),)))
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    one.do(calls.LvCreate("vg0", "vm1", extents=2))
    maker = Maker(seed, (str(world.image),))
    for _ in range(150):
        host, call = world.hosts[maker.random.choice((1, 2))], maker.call()
        try:
            host.ask(call, client=maker.random.choice((1, 2, 3)))
            world.pass_ms(20)
        except BaseException as error:
            error.add_note(f"after {call!r:.500}")
            raise
    world.pass_ms(5000)
    assert all(host.ended is None for host in world.hosts.values())
    left = [host for host in world.hosts.values() if host.node is not None]
    assert left, "one may have been asked to fence the other"
    for host in left:
        assert host.do(calls.Status())["node"] == host.name
