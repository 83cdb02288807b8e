"""What must hold of the ordered state between any two entries.

Looked at by tests and by the simulator after every step; a line for each breach, none in peace.
Rules: the architecture's promise; `locks.resource.check` for the queues of one resource."""

from ringfence.engine.state import ClusterState
from ringfence.locks.lockspace import check_space


def check(state: ClusterState) -> list[str]:
    """Returns what is wrong, one line each."""
    return [*_spaces(state), *_members(state), *_victims(state)]


def _spaces(state: ClusterState) -> list[str]:
    found = []
    for name, space in sorted(state.lockspaces.items()):
        frozen = bool(state.blocking(name))
        if frozen != (name in state.frozen):
            found.append(f"lockspace {name}: noted frozen={name in state.frozen}, is {frozen}")
        try:
            check_space(space, frozen=frozen)
        except AssertionError as error:
            found.append(f"lockspace {name}: {error or 'its queues are out of order'}")
        for node in space.members:
            if node not in state.lives and not any(
                victim.life.node == node and name in victim.lockspaces for victim in state.domain.victims
            ):
                found.append(
                    f"lockspace {name}: {state.name(node)} is a member, but neither ready nor a victim"
                )
        for resource in space.resources.each():
            for lock in (*resource.granted, *resource.converting):
                if lock.token is None:
                    found.append(f"{name}/{resource.name}: held by {state.name(lock.owner)} without a token")
                elif lock.token.position > state.position:
                    found.append(f"{name}/{resource.name}: token {lock.token} is of the future")
    return found


def _members(state: ClusterState) -> list[str]:
    found = []
    for node, life in sorted(state.lives.items()):
        if life.node != node:
            found.append(f"the life of node {node} is {life}")
        if node in state.out:
            found.append(f"{state.name(node)} is ready and has left")
        if state.enrolled.get(node) != life.machine:
            found.append(f"{state.name(node)} is ready from a machine that is not enrolled")
        if state.domain.barred(life):
            found.append(f"{life} is ready, though a fence lied about it and it has not been fenced since")
        if state.keeps_out(life) is not None:
            found.append(f"{life} is ready, though its host is ordered fenced")
        sender = state.senders.get(node)
        if sender is None or sender.life != life:
            found.append(f"{state.name(node)}: no submissions are counted for {life}")
    return found


def _victims(state: ClusterState) -> list[str]:
    found = []
    seen = set()
    for victim in state.domain.victims:
        if victim.life in seen:
            found.append(f"{victim.life} is a victim twice")
        seen.add(victim.life)
        if state.disarmed is not None and victim.current is not None:
            found.append(f"{victim.life}: an attempt runs, though fencing is disarmed")
        if state.lives.get(victim.life.node) == victim.life:
            found.append(f"{victim.life} is ready and a victim")
    found += [
        f"{record.life} was given up without evidence"
        for record in state.domain.fenced
        if not record.evidence
    ]
    return found
