"""The invariants notice each kind of breach, and nothing in peace."""

from collections.abc import Callable
from pathlib import Path

import pytest
from engine_ring import World

from ringfence.core.ids import Life, Token
from ringfence.engine.invariants import check
from ringfence.engine.state import ClusterState
from ringfence.fencing.domain import FencedRecord, Victim
from ringfence.wire import client as calls


@pytest.fixture
def state(tmp_path: Path) -> ClusterState:
    """Of two ready nodes; node 1 holds an LV."""
    world = World(tmp_path, 2)
    world.pass_ms(1000)
    one = world.hosts[1]
    one.do(calls.VgCreate("vg0", (str(world.image),), shared=True))
    world.pass_ms(200)
    one.do(calls.LvCreate("vg0", "vm1", size_bytes=8 << 20))
    return ClusterState.decode(one.node.context.state.encode())


def lv(state: ClusterState) -> str:
    names = state.lockspaces["lvm_vg0"].resources
    return next(name for name in names if name != "VGLK")


def test_in_peace_nothing_is_wrong(state: ClusterState) -> None:
    assert check(state) == []


def _no_token(state: ClusterState) -> None:
    state.lockspaces["lvm_vg0"].resources[lv(state)].granted[0].token = None


def _future_token(state: ClusterState) -> None:
    token = Token(state.epoch.seq, state.epoch.rep, state.position + 1)
    state.lockspaces["lvm_vg0"].resources[lv(state)].granted[0].token = token


def _two_holders(state: ClusterState) -> None:
    resource = state.lockspaces["lvm_vg0"].resources.open(lv(state))
    assert resource is not None
    held = resource.granted[0]
    resource.granted = (held, type(held)(2, held.held, token=held.token))


def _not_frozen(state: ClusterState) -> None:
    state.domain.victims = [Victim(Life(2, "m", "b", 9), state.epoch, lockspaces=["lvm_vg0"])]


def _stranger(state: ClusterState) -> None:
    del state.lives[1]


def _in_and_out(state: ClusterState) -> None:
    state.out[1] = state.lives[1]


def _other_machine(state: ClusterState) -> None:
    state.enrolled[1] = "another"


def _uncounted(state: ClusterState) -> None:
    del state.senders[2]


def _ready_victim(state: ClusterState) -> None:
    state.domain.victims = [Victim(state.lives[2], state.epoch)]


def _lied_and_ready(state: ClusterState) -> None:
    state.domain.victims = [Victim(state.lives[2], state.epoch, lied=True)]


def _twice(state: ClusterState) -> None:
    state.domain.victims = [Victim(Life(2, "m", "b", 9), state.epoch) for _ in range(2)]


def _no_evidence(state: ClusterState) -> None:
    state.domain.fenced = [FencedRecord(Life(2, "m", "b", 9), [], [], state.epoch)]


@pytest.mark.parametrize(
    ("breach", "told"),
    [
        (_no_token, "without a token"),
        (_future_token, "is of the future"),
        (_two_holders, "lockspace lvm_vg0"),
        (_not_frozen, "noted frozen=False, is True"),
        (_stranger, "neither ready nor a victim"),
        (_in_and_out, "is ready and has left"),
        (_other_machine, "a machine that is not enrolled"),
        (_uncounted, "no submissions are counted"),
        (_ready_victim, "is ready and a victim"),
        (_lied_and_ready, "has not been fenced since"),
        (_twice, "is a victim twice"),
        (_no_evidence, "was given up without evidence"),
    ],
)
def test_each_breach_is_noticed(
    state: ClusterState, breach: Callable[[ClusterState], None], told: str
) -> None:
    breach(state)
    assert any(told in line for line in check(state)), check(state)
