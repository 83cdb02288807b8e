"""A lab's network: a namespace a host, and one more that is the switch between them.

All in namespaces of the process that makes it; nothing in the host's own.  The switch has a bridge for
each link, and on it a port a host; host number N has the address 10.77.LINK.N there, on LINK0, LINK1, ….
Cuts are elements of a set in the switch's nftables: pairs of ports between which no packet passes, in that
direction.  ARP does pass, for a cut in one direction must not become one in both a while later.

Where hosts have fence devices that are reached by network there is one more bridge, the management network:
no cut touches it.  The devices are in the switch's own namespace, at RACK_ADDRESS on that bridge."""

import enum
from collections.abc import Iterable, Sequence

import msgspec

from ringfence.lab.namespaces import Namespace, run_in

RULES = """
table bridge cuts {
  set cut { type ifname . ifname; }
  chain forward { type filter hook forward priority 0; ether type ip iifname . oifname @cut drop; }
}
"""

MANAGEMENT = 100
"""Of its addresses the number where a link's stands."""
RACK_ADDRESS = f"10.77.{MANAGEMENT}.254"

Cut = tuple[int, int, int]
"""(from host number, to host number, link): what the second is not to hear."""


class Way(enum.Enum):
    """Which packets of a host are lost."""

    BOTH = "both"
    INBOUND = "inbound"
    """It sends, and hears nothing."""
    OUTBOUND = "outbound"
    """It hears, and nobody hears it."""


class Network:
    """Holds the namespaces of hosts 1 … `hosts` until `close`; what runs in one keeps it a while longer.

    Raises Refused (without root), Unavailable; nothing is left then."""

    def __init__(self, hosts: int, links: int = 1, management: bool = False) -> None:
        self.links = links
        self._held: list[Namespace] = []
        try:
            self.switch = self._new()
            self.hosts = {number: self._new() for number in range(1, hosts + 1)}
            self._wire()
            if management:
                self._manage()
        except BaseException:
            self.close()
            raise

    def _new(self) -> Namespace:
        self._held.append(Namespace())
        return self._held[-1]

    def _wire(self) -> None:
        lines = []
        for link in range(self.links):
            lines.append(f"link add br{link} up type bridge")
            for number, host in self.hosts.items():
                name = port(number, link)
                lines.append(f"link add {name} type veth peer name link{link} netns {host.path}")
                lines.append(f"link set {name} master br{link} up")
        self.switch.run(["ip", "-batch", "-"], "\n".join(lines))
        self.switch.run(["nft", "-f", "-"], RULES)
        for number, host in self.hosts.items():
            lines = []
            for link in range(self.links):
                lines.append(f"addr add {address(number, link)}/24 dev link{link}")
                lines.append(f"link set link{link} up")
            host.run(["ip", "-batch", "-"], "\n".join(lines))

    def _manage(self) -> None:
        lines = ["link add manage up type bridge", f"addr add {RACK_ADDRESS}/24 dev manage"]
        for number, host in self.hosts.items():
            lines.append(f"link add m{number} type veth peer name manage netns {host.path}")
            lines.append(f"link set m{number} master manage up")
        self.switch.run(["ip", "-batch", "-"], "\n".join(lines))
        for number, host in self.hosts.items():
            mine = [f"addr add {address(number, MANAGEMENT)}/24 dev manage", "link set manage up"]
            host.run(["ip", "-batch", "-"], "\n".join(mine))

    def close(self) -> None:
        for one in self._held:
            one.close()
        self._held = []


class Cables:
    """What passes through a switch; also through another process's (its path is all that is needed)."""

    def __init__(self, switch: str) -> None:
        self._switch = switch

    def cuts(self) -> frozenset[Cut]:
        told = msgspec.json.decode(self._nft("-j", "list", "set", "bridge", "cuts", "cut"))
        found = next(one["set"] for one in told["nftables"] if "set" in one)
        return frozenset(_cut_of(*one["concat"]) for one in found.get("elem", ()))

    def cut(self, cuts: Iterable[Cut]) -> None:
        """Beside those that are cut already.  One change: no packet passes between two of them."""
        elements = [f'"{port(one, link)}" . "{port(other, link)}"' for one, other, link in cuts]
        if elements:
            self._change(f"add element bridge cuts cut {{ {', '.join(elements)} }}")

    def heal(self) -> None:
        self._change("flush set bridge cuts cut")

    def _change(self, line: str) -> None:
        self._nft("-f", "-", stdin=line + "\n")

    def _nft(self, *words: str, stdin: str = "") -> str:
        return run_in(self._switch, ["nft", *words], stdin)


def cuts_between(
    ones: Iterable[int], others: Iterable[int], links: Iterable[int], way: Way = Way.BOTH
) -> list[Cut]:
    """Whatever `ones` and `others` send one another; `way` as `ones` see it."""
    pairs = [(one, other) for one in ones for other in others if one != other]
    found = [(one, other, link) for one, other in pairs for link in links if way is not Way.INBOUND]
    return found + [(other, one, link) for one, other in pairs for link in links if way is not Way.OUTBOUND]


def cuts_apart(
    groups: Iterable[Iterable[int]], hosts: Iterable[int], links: Sequence[int] = (0,)
) -> list[Cut]:
    """Between all groups; hosts in none of them are one more."""
    parts = [list(group) for group in groups]
    parts.append([one for one in hosts if not any(one in part for part in parts)])
    pairs = [(part, later) for at, part in enumerate(parts) for later in parts[at + 1 :]]
    return [cut for part, later in pairs for cut in cuts_between(part, later, links)]


def port(number: int, link: int) -> str:
    """The name of the switch's end of a cable."""
    return f"n{number}.{link}"


def address(number: int, link: int = 0) -> str:
    return f"10.77.{link}.{number}"


def _cut_of(source: str, target: str) -> Cut:
    (one, link), (other, _) = (name[1:].split(".") for name in (source, target))
    return int(one), int(other), int(link)
