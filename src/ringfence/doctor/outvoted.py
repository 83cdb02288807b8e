"""Who differs from the rest: the comparison that most checks across hosts need."""

from collections.abc import Hashable, Iterator, Mapping


def outvoted(said: Mapping[str, Hashable]) -> Iterator[tuple[str, str]]:
    """(host, a host of the majority) for each host that says something else than most.

    Where there is no majority, that is the side with the first host: somebody must be named, and its
    message names both."""
    names: dict[Hashable, list[str]] = {}
    for name, value in said.items():
        names.setdefault(value, []).append(name)
    most = max(names.values(), key=len, default=[])
    for name in said:
        if name not in most:
            yield name, most[0]
