"""The resources of a lockspace: by name, apart for each node that is alone on them, and summed up.

A lockspace may have a million resources, of which most have one lock, kept by one node.  So that
nothing which concerns all of them has to look at each:

- resources on which a node is alone stand in a table of that node, which a purge drops in one piece;
  of the others there is an index by node;
- each table carries the sum of the digests of what is in it, so the digest of all is a few additions; what
  came in a row is added when somebody asks, up to a bound, for most of it has gone by then;
- those that changed while nothing could be granted are noted: only they are looked at when it goes on.

A resource is changed only between `open` and the next `open` of another one: while it is open it is
in no table and in no sum.  The last few stay open, for who uses one uses it again."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from heapq import heapify, heappop
from itertools import chain, islice
from typing import Any

import msgspec

from ringfence.locks.resource import Resource

LEFT_OPEN = 128
FREED_AT_ONCE = 64
ADDED_LATER = 10_000
"""So many digests of a table may be left until the sum is asked for: some 10 ms of whoever asks."""
_SUM = 1 << 128

_encode = msgspec.msgpack.Encoder().encode


class _Part:
    __slots__ = ("_later", "_sum", "locks", "resources")

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self.locks = 0
        self._sum = 0
        self._later: dict[str, Resource] = {}
        """Those of them whose digests are not in the sum yet."""

    @property
    def sum(self) -> int:
        """Of their digests."""
        later, self._later = self._later, {}
        self._sum += sum(map(_digest, later.values()))
        return self._sum

    def add(self, resource: Resource) -> None:
        self.resources[resource.name] = resource
        self._sum += _digest(resource)
        self.locks += _locks(resource)

    def add_alone(self, new: dict[str, Resource]) -> None:
        """Many, by name, that have one lock each."""
        self.resources |= new
        self.locks += len(new)
        if len(self._later) < ADDED_LATER:
            self._later |= new
        else:
            self._sum += sum(map(_digest, new.values()))

    def pop(self, name: str) -> Resource:
        found = self.resources.pop(name)
        if self._later.pop(name, None) is None:
            self._sum -= _digest(found)
        self.locks -= _locks(found)
        return found


class Resources(Mapping[str, Resource]):
    """Reads as a mapping from name to resource, in no order that means anything."""

    def __init__(self, resources: Iterable[Resource] = ()) -> None:
        self._open: dict[str, Resource] = {}
        self._alone: dict[int, _Part] = {}
        self._shared = _Part()
        self._shared_by: dict[int, dict[str, None]] = {}
        """Node -> names of the shared resources on which it has a lock."""
        self._stirred: dict[str, None] = {}
        """Names of closed resources that are stirred, or were."""
        for resource in resources:
            self.put(resource)

    # -- reading -------------------------------------------------------------------

    def __getitem__(self, name: str) -> Resource:
        found = self._open.get(name)
        if found is None:
            part = self._part_of(name)
            if part is None:
                raise KeyError(name)
            found = part.resources[name]
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._open or any(name in part.resources for part in self._parts())

    def has_none(self, names: Iterable[str]) -> bool:
        """Whether it has no resource of any of these names."""
        tables = [self._open, *(part.resources for part in self._parts())]
        return all(table.keys().isdisjoint(names) for table in tables)

    def __iter__(self) -> Iterator[str]:
        return chain(self._open, *(part.resources for part in self._parts()))

    def __len__(self) -> int:
        return len(self._open) + sum(len(part.resources) for part in self._parts())

    @property
    def locks(self) -> int:
        """How many locks there are, of all resources."""
        return sum(_locks(one) for one in self._open.values()) + sum(part.locks for part in self._parts())

    def of(self, node: int) -> Iterator[Resource]:
        """Resources on which a node has a lock.  None may be changed meanwhile."""
        self._close_all()
        alone = self._alone.get(node)
        if alone is not None:
            yield from alone.resources.values()
        for name in self._shared_by.get(node, ()):
            yield self._shared.resources[name]

    def each(self) -> Iterator[Resource]:
        """All of them, faster than `values`.  None may be changed meanwhile."""
        return chain(self._open.values(), *(part.resources.values() for part in self._parts()))

    def digest(self) -> str:
        """Equal where the resources are equal, whatever order they came in."""
        self._close_all()
        return f"{sum(part.sum for part in self._parts()) % _SUM:032x}"

    def slices(self, count: int) -> Iterator[list[Resource]]:
        """All resources, `count` at a time.  None may be changed meanwhile."""
        self._close_all()
        every = chain.from_iterable(part.resources.values() for part in self._parts())
        while some := list(islice(every, count)):
            yield some

    # -- changing ------------------------------------------------------------------

    def open(self, name: str) -> Resource | None:
        """The resource, to be changed before another one is opened."""
        found = self._open.get(name)
        if found is not None:
            return found
        part = self._part_of(name)
        if part is None:
            return None
        self._make_room()
        found = self._open[name] = part.pop(name)
        if part is self._shared:
            for owner in _owners(found):
                self._unindex(owner, name)
        return found

    def add(self, resource: Resource) -> Resource:
        """A new one, open, of a name that is not there yet."""
        self._make_room()
        self._open[resource.name] = resource
        return resource

    def put(self, resource: Resource) -> None:
        """A new one, closed: it came with its locks."""
        owners = _owners(resource)
        if len(owners) == 1:
            part = self._alone.get(owners[0])
            if part is None:
                part = self._alone[owners[0]] = _Part()
        else:
            part = self._shared
            for owner in owners:
                self._shared_by.setdefault(owner, {})[resource.name] = None
        part.add(resource)
        if resource.stirred:
            self._stirred[resource.name] = None

    def put_alone(self, owner: int, new: dict[str, Resource]) -> None:
        """Many new ones, closed, of each of which this owner has the only lock, which is granted."""
        part = self._alone.get(owner)
        if part is None:
            part = self._alone[owner] = _Part()
        part.add_alone(new)

    def drop_alone(self, owner: int, name: str) -> bool:
        """Forget a resource of which this owner has the only lock, which is granted.

        False, and nothing was done: it is not that."""
        found = self._open.get(name)
        if found is not None:
            if not _is_alone(owner, found):
                return False
            del self._open[name]
            return True
        part = self._alone.get(owner)
        found = part.resources.get(name) if part is not None else None
        if part is None or found is None or not _is_alone(owner, found):
            return False
        part.pop(name)
        return True

    def drop(self, name: str) -> None:
        """Forget an open one that has no lock any more."""
        del self._open[name]

    def clear(self) -> list[dict[Any, Any]]:
        """Forget everything.  Returns the tables, to be emptied by whoever has the time."""
        tables: list[dict[Any, Any]] = [self._open, self._stirred, *self._shared_by.values()]
        tables += [part.resources for part in self._parts()]
        self._open, self._stirred, self._shared_by = {}, {}, {}
        self._alone, self._shared = {}, _Part()
        return tables

    def purge(self, node: int) -> Iterator[None]:
        """A lost node's locks and requests vanish, little by little: to be run to its end.

        Nothing is granted before `stirred` tells who is to be looked at."""
        self._close_all()
        alone = self._alone.pop(node, None)
        for name in list(self._shared_by.get(node, ())):
            resource = self.open(name)
            assert resource is not None
            resource.purge((node,))
            if resource.empty:
                self.drop(name)
            yield
        # Gone already; only the memory is left to be given back.
        while alone is not None and alone.resources:
            for _ in range(min(FREED_AT_ONCE, len(alone.resources))):
                alone.resources.popitem()
            yield

    def stirred(self) -> Iterator[Resource]:
        """Open each resource that was changed while nothing could be granted, in the order of names."""
        self._close_all()
        names, self._stirred = list(self._stirred), {}
        heapify(names)
        while names:
            resource = self.open(heappop(names))
            if resource is not None and resource.stirred:
                yield resource

    # -- helpers -------------------------------------------------------------------

    def _parts(self) -> Iterable[_Part]:
        return (*self._alone.values(), self._shared)

    def _part_of(self, name: str) -> _Part | None:
        for part in self._alone.values():
            if name in part.resources:
                return part
        return self._shared if name in self._shared.resources else None

    def _make_room(self) -> None:
        if len(self._open) >= LEFT_OPEN:
            self._close_all()

    def _close_all(self) -> None:
        closing, self._open = self._open, {}
        for resource in closing.values():
            self.put(resource)

    def _unindex(self, owner: int, name: str) -> None:
        names = self._shared_by.get(owner, {})
        names.pop(name, None)
        if not names:
            self._shared_by.pop(owner, None)


def _digest(resource: Resource) -> int:
    return int.from_bytes(hashlib.blake2b(_encode(resource), digest_size=16).digest(), "big")


def _owners(resource: Resource) -> list[int]:
    """Nodes that have a lock of it, each once."""
    everyone = resource.granted + resource.converting + resource.waiting
    if len(everyone) == 1:
        return [everyone[0].owner]
    return list(dict.fromkeys([one.owner for one in everyone]))


def _is_alone(owner: int, resource: Resource) -> bool:
    granted = resource.granted
    return len(granted) == 1 and granted[0].owner == owner and not (resource.converting or resource.waiting)


def _locks(resource: Resource) -> int:
    return len(resource.granted) + len(resource.converting) + len(resource.waiting)


def check_table(resources: Resources) -> None:
    """Assert that the sums and indexes say what a look at every resource says."""
    digest = resources.digest()  # which closes them all
    tables: list[tuple[int | None, _Part]] = [*resources._alone.items(), (None, resources._shared)]
    seen: set[str] = set()
    shared_by: dict[int, dict[str, None]] = {}
    total = locks = 0
    for node, part in tables:
        for name, resource in part.resources.items():
            owners = _owners(resource)
            assert resource.name == name
            assert name not in seen, f"{name} is in two tables"
            seen.add(name)
            if node is not None:
                assert owners == [node], f"{name} is not node {node}'s alone"
            else:
                assert len(owners) != 1, f"{name} is one node's alone, and not in its table"
                for owner in owners:
                    shared_by.setdefault(owner, {})[name] = None
            assert not resource.stirred or name in resources._stirred, f"{name} is stirred, and not noted"
            total += _digest(resource)
            locks += _locks(resource)
    assert digest == f"{total % _SUM:032x}", "the digest is not that of the resources"
    assert resources.locks == locks
    assert resources._shared_by == shared_by, "the index of shared resources is wrong"
