"""What an agent of ringfence's own is told on stdin.

Source: FenceAgentAPI (ClusterLabs fence-agents, doc/FenceAgentAPI.md): a line name=value each, `#` begins a
comment, of a name that stands twice the last one counts."""

from collections.abc import Iterable

import msgspec

from ringfence.core.errors import BadInput


class Request(msgspec.Struct, frozen=True):
    keys: dict[str, str]

    @property
    def action(self) -> str:
        return self.keys.get("action", "")

    @property
    def node(self) -> str:
        """Whom it is about: `plug`, or where that is not given the node's own name.  Raises BadInput."""
        name = self.keys.get("plug") or self.keys.get("nodename", "")
        if not name or name.startswith("-"):  # which a tool would take for an option
            raise BadInput(f"{name!r} is no node", next="give nodename or plug")
        return name


def read_request(lines: Iterable[str]) -> Request:
    pairs = (line.strip().partition("=") for line in lines if not line.startswith("#"))
    return Request({name.strip(): value.strip() for name, equals, value in pairs if equals})
