"""A node that is lost, and then taken out of the configuration of those who are left."""

from pathlib import Path

import msgspec
from engine_ring import World

from ringfence.core.evidence import Power
from ringfence.wire import client as calls


def test_who_was_taken_out_of_the_configuration_holds_what_it_held(tmp_path: Path) -> None:
    """No state outlives a restart of all that are left, so nobody knows any more what that was."""
    world = World(tmp_path, 3)
    world.pass_ms(200)
    for host in world.hosts.values():
        host.do(calls.JoinSpace("games"))
    world.hosts[3].do(calls.Lock("games", "chess"))
    world.says["bmc3", "off"] = world.says["pdu3", "off"] = Power.UNKNOWN
    world.freeze(3)
    world.view(1, 2)
    world.pass_ms(2000)
    nodes = world.config.nodes[:2]
    world.config = msgspec.structs.replace(world.config, version=2, nodes=nodes)
    one = world.hosts[1]
    for id in (1, 2):
        world.hosts[id].kill()
        world.hosts[id].start()
        world.view(1, 2)
        world.pass_ms(3000)
        if id == 1:
            last = one.do(calls.Why())["lines"][-1]
            assert last == "next: it goes on when who is not admitted is put right, and restarted"
    assert one.running
    joined = one.ask(calls.JoinSpace("games"))
    world.pass_ms(30_000)
    assert joined not in one.replies
    assert "make sure that node-3 is off, then: ringfence fence confirm node-3" in str(one.do(calls.Why()))
    one.do(calls.FenceConfirm("node-3", "ann", "I pulled the plug", world.now_ns))
    world.pass_ms(5000)
    assert one.reply(joined) is not None
    assert one.do(calls.Lock("games", "chess"))["mode"] == "EX"
    assert not one.do(calls.Why())["stuck"]
    assert one.disk.victims == ()
