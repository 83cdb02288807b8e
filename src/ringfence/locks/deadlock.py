"""Rings of clients that wait for one another, across resources, lockspaces and nodes.

Pure.  A *picture* is what every node has told of its own clients: those that wait, and what the same
owners hold.  Whoever is not in it waits for nothing and ends every chain; so does a lost node, which
tells nothing: to wait for it to be fenced is no deadlock.

A waits for B where
- B holds a mode that conflicts with A's wish, on whatever node (Davis 6-3);
- B is queued right before A on A's node, or
- B's node is served before A's by the order of the cluster's queue, and B is whom it asks for (6-4).
All that one owner waits for must come true before it goes on, so a ring of owners is a deadlock.

Pictures are not of one instant.  `unchanged` keeps of two pictures, the second begun after the first
was complete, what stands in both: between the two all of that was so at once, and a ring in it does
not dissolve by itself any more.

Source: VMS searches so for its $ENQ deadlocks; Linux dlm_controld/deadlock.c (never built) merges the
nodes' locks by transaction in the same manner."""

from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

from ringfence.core.modes import UN, Mode
from ringfence.locks.compat import compatible
from ringfence.locks.holdings import Place
from ringfence.locks.resource import Resource
from ringfence.wire.entries import ClientLock

Picture = Mapping[int, Sequence[ClientLock]]
"""Node -> what it told."""
Owner = tuple[int, str]
"""(node, thread, connection or cached lock), or (0, name) for an owner that clients have named."""


class Seen(msgspec.Struct, frozen=True):
    node: int
    lock: ClientLock

    @property
    def owner(self) -> Owner:
        return (0 if self.lock.named else self.node, self.lock.owner)

    @property
    def place(self) -> tuple[str, str]:
        return (self.lock.lockspace, self.lock.resource)

    @property
    def moment(self) -> tuple[int, int, int]:
        return (self.node, self.lock.lock, self.lock.operation)


class Link(msgspec.Struct, frozen=True):
    """The owner of `waiter` cannot go on before that of `blocker` has."""

    waiter: Seen
    blocker: Seen

    @property
    def held(self) -> bool:
        """For what the blocker holds, not for its place in a queue alone."""
        return not compatible(self.blocker.lock.held, self.waiter.lock.wanted)


Ring = tuple[Link, ...]
"""Each blocker's owner is the next link's waiter; the last one's is the first's."""


def links(picture: Picture) -> list[Link]:
    """Everything that waits for something that is in the picture, in the order of nodes and locks."""
    seen = [Seen(node, lock) for node in sorted(picture) for lock in picture[node]]
    holders: dict[tuple[str, str], list[Seen]] = {}
    known: dict[tuple[int, int], Seen] = {}
    heads: dict[tuple[str, str, int], Seen] = {}
    for one in seen:
        known[one.node, one.lock.lock] = one
        if one.lock.held > Mode.NL:
            holders.setdefault(one.place, []).append(one)
        if one.lock.heads:
            heads[(*one.place, one.node)] = one
    found = []
    for waiter in [one for one in seen if one.lock.wanted is not UN]:
        lock = waiter.lock
        against = [
            other
            for other in holders.get(waiter.place, [])
            if other is not waiter and not compatible(other.lock.held, lock.wanted)
        ]
        ahead = [known.get((waiter.node, one)) for one in lock.behind]
        ahead += [heads.get((*waiter.place, node)) for node in lock.after]
        against += [one for one in ahead if one is not None and one not in against]
        found += [Link(waiter, other) for other in against]
    return found


def served_before(resource: Resource | None, node: int, place: Place) -> tuple[int, ...]:
    """Nodes whose own wishes come before a client's by the order of the cluster's queue.

    Only for the client that its node asks for (the others are behind that one), or that is not let in
    under what the node holds, because other nodes come first."""
    mine = resource.find(node) if resource is not None and (place.heads or place.shut_out) else None
    if resource is None or mine is None:
        return ()
    if place.heads and mine.wanted is UN:
        return ()  # what the node asked is not in the queue: on its way, put off by a freeze, or granted
    if mine.wanted is not UN:
        return tuple(one.owner for one in resource.queued_ahead(mine)) if place.heads else ()
    queued = (*resource.converting, *resource.waiting)
    return tuple(one.owner for one in queued if not compatible(mine.held, one.wanted))


def unchanged(first: Sequence[Link], second: Sequence[Link]) -> list[Link]:
    """What stands in both pictures, as the second has it."""
    known = {(link.waiter.moment, link.blocker.moment) for link in first}
    return [link for link in second if (link.waiter.moment, link.blocker.moment) in known]


def rings(found: Sequence[Link]) -> list[Ring]:
    """One ring, a shortest, through the newest waiter of each set of owners that are caught together.

    Of what is held, if there is one: whoever is merely queued between those would be refused for nothing,
    and they be caught as before.  There may be more rings in a set: they are found when this one is
    broken and it is looked again."""
    knots = _knots(found)
    held = [_shortest(inside) for inside in _inside([link for link in found if link.held])]
    done = {knots[ring[0].waiter.owner] for ring in held}
    return held + [
        _shortest(inside) for inside in _inside(found) if knots[inside[0].waiter.owner] not in done
    ]


def _inside(found: Sequence[Link]) -> list[list[Link]]:
    """For each set of owners that are caught together, the links among them."""
    knots = _knots(found)
    caught: dict[int, list[Link]] = {}
    for link in found:
        knot = knots[link.waiter.owner]
        if knots.get(link.blocker.owner) == knot:
            caught.setdefault(knot, []).append(link)
    return list(caught.values())


def victim(ring: Ring) -> Seen | None:
    """The newest waiter of those that asked to be refused; None: nobody did."""
    asked = [link.waiter for link in ring if link.waiter.lock.refusable]
    return max(asked, key=_age, default=None)


def _age(waiter: Seen) -> tuple[int, int, int]:
    return (waiter.lock.since_ms, waiter.node, waiter.lock.lock)


def _shortest(inside: Sequence[Link]) -> Ring:
    """From the newest waiter round to its owner; every owner here can reach every other."""
    newest = max((link.waiter for link in inside), key=_age)
    leaving: dict[Owner, list[Link]] = {}
    for link in inside:
        leaving.setdefault(link.waiter.owner, []).append(link)
    ways: dict[Owner, Ring] = {}
    queue: deque[Ring] = deque((link,) for link in leaving[newest.owner] if link.waiter is newest)
    while newest.owner not in ways:
        way = queue.popleft()
        owner = way[-1].blocker.owner
        if owner not in ways:
            ways[owner] = way
            queue.extend((*way, link) for link in leaving.get(owner, []))
    return ways[newest.owner]


def _knots(found: Sequence[Link]) -> dict[Owner, int]:
    """Number the owners that wait: equal for those that wait for one another, however indirectly.

    Kosaraju's two passes over the strongly connected components, without recursion: a queue of waiters
    is a chain as long as itself."""
    ahead: dict[Owner, list[Owner]] = {}
    back: dict[Owner, list[Owner]] = {}
    for link in found:
        ahead.setdefault(link.waiter.owner, []).append(link.blocker.owner)
        back.setdefault(link.blocker.owner, []).append(link.waiter.owner)
    finished: list[Owner] = []
    entered: set[Owner] = set()  # only ever asked
    for start in ahead:
        stack = [] if start in entered else [(start, iter(ahead[start]))]
        entered.add(start)
        while stack:
            owner, others = stack[-1]
            other = next((one for one in others if one not in entered), None)
            if other is None:
                finished.append(owner)
                stack.pop()
            else:
                entered.add(other)
                stack.append((other, iter(ahead.get(other, []))))
    knots: dict[Owner, int] = {}
    for number, start in enumerate(reversed(finished)):
        reach = [start] if start not in knots else []
        while reach:
            owner = reach.pop()
            if owner not in knots:
                knots[owner] = number
                reach.extend(back.get(owner, []))
    return knots
