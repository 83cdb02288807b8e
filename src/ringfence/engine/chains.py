"""Who waits for whom, through to whoever is at the end, as far as one node can know.

Of its own clients a node knows all: who is in whose way, and what that one's owner waits for itself,
on other resources.  Of other nodes it knows which modes they hold and wait for, but not for which of
their clients: there its chains end, and `locks --deadlocks` asks everybody."""

from typing import Any

import msgspec

from ringfence.core.listed import listed
from ringfence.core.modes import Mode
from ringfence.engine.context import Context
from ringfence.engine.locker import Locker
from ringfence.engine.uses import Use
from ringfence.locks.resource import Lock

Json = dict[str, Any]
SHOWN = 3


class Step(msgspec.Struct, frozen=True):
    """Somebody in the way, and what it waits for itself."""

    node: int
    who: str
    """The client of this node; empty: a node, whose clients are not known here."""
    lock: int | None
    mode: Mode
    """What it holds of the resource that the one before it waits for; UN: it is queued before that."""
    lockspace: str = ""
    resource: str = ""
    wanted: Mode = Mode.UN
    """What it waits for itself; UN: it does not wait, or that is not known here."""
    note: str = ""


class Chains:
    def __init__(self, context: Context, locker: Locker) -> None:
        self._context = context
        self._locker = locker
        self._waiting: dict[str, Use] = {}
        """What each owner waits for, its oldest wish."""
        self._nodes: dict[int, list[str]] | None = None
        """What each node waits for; made when it is first asked for."""
        for use in locker.waiting():
            if use.owner is not None:
                self._waiting.setdefault(use.owner.name, use)

    def of(self, use: Use) -> list[Step]:
        """From this waiting use on; ends with somebody who does not wait, or who was here before."""
        steps: list[Step] = []
        seen = [use.lock]
        wish: Use | None = use
        while wish is not None:
            step, wish = self._before(wish)
            if step is None:
                break
            if wish is not None and wish.lock in seen:
                steps.append(msgspec.structs.replace(step, note="this closes a ring: nobody in it can go on"))
                break
            steps.append(step)
            seen += [wish.lock] if wish is not None else []
        return steps

    def report(self, use: Use) -> Json:
        steps = self.of(use)
        return {
            "lock": use.lock,
            "lockspace": use.lockspace,
            "resource": use.resource,
            "lines": [f"{who(use)} waits for {use.wanted.name} on {use.what}", *map(self._line, steps)],
            "chain": [self._as_json(step) for step in steps],
        }

    def lines(self, use: Use) -> list[str]:
        """A line for each step."""
        return [self._line(step) for step in self.of(use)]

    # -- one step -----------------------------------------------------------------------

    def _before(self, wish: Use) -> tuple[Step | None, Use | None]:
        """Who is in the way of a wish, and that one's own wish."""
        here = self._locker.node_locks.blockers(wish.lock)
        if here:
            return self._of_client(here)
        return self._of_node(wish), None

    def _of_client(self, blockers: list[Lock]) -> tuple[Step | None, Use | None]:
        """The first; rather one that waits itself, for there the chain goes on."""
        found = [(lock, use) for lock in blockers if (use := self._locker.use(lock.owner)) is not None]
        waits = [(lock, use) for lock, use in found if self._wish_of(lock, use) is not None]
        for lock, use in waits or found:
            wish = self._wish_of(lock, use)
            step = Step(self._context.me, who(use), lock.owner, lock.held)
            if wish is not None:
                step = msgspec.structs.replace(
                    step, lockspace=wish.lockspace, resource=wish.resource, wanted=wish.wanted
                )
            return step, wish
        orphan = blockers[0]  # nobody stands behind it, and it waits for nothing
        return Step(self._context.me, "an orphan", orphan.owner, orphan.held), None

    def _wish_of(self, lock: Lock, use: Use) -> Use | None:
        if lock.wanted is not Mode.UN:
            return use
        return self._waiting.get(use.owner.name) if use.owner is not None else None

    def _of_node(self, wish: Use) -> Step | None:
        context, state = self._context, self._context.state
        space = state.lockspaces.get(wish.lockspace) if state else None
        if state is None or space is None:
            return None
        frozen = state.blocking(wish.lockspace)
        if frozen:
            victim = frozen[0].life.node
            note = f"lockspace {wish.lockspace} is frozen until it is fenced"
            return Step(victim, "", None, Mode.UN, note=note)
        resource = space.resources.get(wish.resource)
        if resource is None:
            return None
        mine = resource.find(context.me)
        if mine is not None and mine.wanted is not Mode.UN:
            others = resource.blockers(mine)
        else:
            against = [one for one, _ in resource.holders_against(context.me, wish.wanted)]
            others = [lock for lock in (*resource.granted, *resource.converting) if lock.owner in against]
            others = others or [*resource.converting, *resource.waiting]
        for lock in [one for one in others if one.owner != context.me]:
            return Step(lock.owner, "", None, lock.held, note=self._elsewhere(lock.owner))
        return None

    def _elsewhere(self, node: int) -> str:
        """What a node waits for anywhere; whether for the sake of whoever is in the way, it alone knows."""
        if self._nodes is None:
            self._nodes = _waits_of_nodes(self._context)
        waits = self._nodes.get(node, [])
        if not waits:
            return ""
        return f"some of its clients wait: {listed(waits, SHOWN)}"

    # -- words -----------------------------------------------------------------------------

    def _line(self, step: Step) -> str:
        name = self._context.name(step.node)
        line = f"behind {step.who} on {name}" if step.who else f"behind {name}"
        if step.mode is not Mode.UN:
            line += f", which holds {step.mode.name}"
        if step.wanted is not Mode.UN:
            joint = " and" if step.mode is not Mode.UN else ", which"
            line += f"{joint} waits for {step.wanted.name} on {step.lockspace}/{step.resource}"
        return f"{line}; {step.note}" if step.note else line

    def _as_json(self, step: Step) -> Json:
        return {
            "node": step.node,
            "name": self._context.name(step.node),
            "who": step.who,
            "lock": step.lock,
            "mode": "" if step.mode is Mode.UN else step.mode.name,
            "lockspace": step.lockspace,
            "resource": step.resource,
            "wanted": "" if step.wanted is Mode.UN else step.wanted.name,
            "note": step.note,
        }


def _waits_of_nodes(context: Context) -> dict[int, list[str]]:
    state = context.state
    found: dict[int, list[str]] = {}
    for name, space in sorted(state.lockspaces.items()) if state else []:
        for resource in space.resources.values():
            for lock in (*resource.converting, *resource.waiting):
                found.setdefault(lock.owner, []).append(f"{lock.wanted.name} on {name}/{resource.name}")
    return found


def who(use: Use) -> str:
    """The client's process, or the command."""
    return (use.owner.who or use.owner.name) if use.owner is not None else "this node"
