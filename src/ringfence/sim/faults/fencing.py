"""What fence devices do, and what people do about hosts that are fenced, or type meanwhile."""

from ringfence.sim.faults.fault import Arena, Fault
from ringfence.sim.power import Manner


class Unplug(Fault, frozen=True, tag="unplug"):
    """Both plugs of a host are pulled: its BMC dies with it, and only the outlets can tell."""

    node: int
    for_ms: int = 0

    def strike(self, arena: Arena) -> None:
        arena.neglect(arena.hosts[self.node], self.for_ms)
        for outlet in "ab":
            arena.power.switch(self.node, outlet, False)


class Devices(Fault, frozen=True, tag="devices"):
    """A host's fence devices behave like this from now on; one that is not named stays as it is."""

    node: int
    bmc: Manner | None = None
    a: Manner | None = None
    b: Manner | None = None

    def strike(self, arena: Arena) -> None:
        named = {f"bmc{self.node}": self.bmc, f"pdu{self.node}a": self.a, f"pdu{self.node}b": self.b}
        for name, manner in named.items():
            if manner is not None:
                arena.power.devices[name].manner = manner


class Calm(Fault, frozen=True, tag="calm"):
    """All devices are honest again."""

    def strike(self, arena: Arena) -> None:
        arena.power.calm()


class Sign(Fault, frozen=True, tag="sign"):
    """An honest operator signs that a host is off, if it is."""

    node: int
    desk: int
    """The host at whose daemon this is said."""
    slow_ms: int = 0
    """The word takes so long from the signing to the daemon (the command stood still)."""

    def strike(self, arena: Arena) -> None:
        if not arena.hosts[self.node].up:
            arena.sign(arena.hosts[self.node], arena.hosts[self.desk], self.slow_ms)


class Order(Fault, frozen=True, tag="order"):
    """An operator has a host fenced, whatever it does."""

    node: int
    desk: int
    """The host at whose daemon this is said; it may be the same."""

    def strike(self, arena: Arena) -> None:
        arena.order(arena.hosts[self.node], arena.hosts[self.desk])


class Disarm(Fault, frozen=True, tag="disarm"):
    """Maintenance: nobody is fenced for so long."""

    desk: int
    for_ms: int

    def strike(self, arena: Arena) -> None:
        arena.disarm(arena.hosts[self.desk], self.for_ms)


class Leave(Fault, frozen=True, tag="leave"):
    node: int

    def strike(self, arena: Arena) -> None:
        arena.leave(arena.hosts[self.node])


class HandOver(Fault, frozen=True, tag="hand-over"):
    """An operator has an LV that is open on another host go on here."""

    node: int
    prepare: bool = False

    def strike(self, arena: Arena) -> None:
        arena.hand_over(arena.hosts[self.node], self.prepare)


class HandBack(Fault, frozen=True, tag="hand-back"):
    """An operator drops what is prepared."""

    def strike(self, arena: Arena) -> None:
        arena.hand_back()


class Typed(Fault, frozen=True, tag="typed"):
    """An operator types a command at a host, whatever else is under way there."""

    node: int
    verb: str
    """create, alone, shared, off, remove or move."""
    lv: str

    def strike(self, arena: Arena) -> None:
        arena.type_there(arena.hosts[self.node], self.verb, self.lv)


class LockStop(Fault, frozen=True, tag="lock-stop"):
    """An operator stops the volume group on a host."""

    node: int

    def strike(self, arena: Arena) -> None:
        arena.stop(arena.hosts[self.node])
