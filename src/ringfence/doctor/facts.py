"""Everything the checks judge, as one value.  Made by `gather`, or by a test."""

from collections.abc import Sequence

import msgspec

from ringfence.config.agents.check import Trouble
from ringfence.core.cluster import ClusterConfig
from ringfence.core.evidence import Power
from ringfence.wire.checkup import Checkup, HostFacts


class SlotsFacts(msgspec.Struct, frozen=True):
    """A VG's disk slots."""

    vg: str
    kept: bool = True
    """Some node keeps one there."""
    trouble: str = ""
    """Why this host cannot use them."""


class PartialVg(msgspec.Struct, frozen=True):
    """A VG of which PVs are missing, or were while it was changed."""

    vg: str
    missing: int
    pvs: int
    """How many it has, those included."""


class DaemonFacts(msgspec.Struct, frozen=True):
    """What this host's daemon says of itself (`status`, `locks`)."""

    ready: bool = True
    why: str = ""
    members: tuple[int, ...] = ()
    """Nodes that are ready members of its view."""
    blocked_by: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    disarmed: str = ""
    """By whom and why no agent is started for now; empty: fencing is armed."""
    shared_vgs: tuple[str, ...] = ()
    """VGs whose lockspace there is."""
    gone_vgs: tuple[str, ...] = ()
    """Of these, VGs that are on no disk which this host can read: other hosts stay in the lockspace of a VG
    that was removed."""
    partial_vgs: tuple[PartialVg, ...] = ()
    slots: tuple[SlotsFacts, ...] = ()
    locked: tuple[str, ...] | None = None
    """Uuids (with dashes) of LVs on which this node holds a lock; None: not known."""


class DeviceFacts(msgspec.Struct, frozen=True):
    """One run of a fence device's agent with action `status`, from this host."""

    device: str
    node: str
    """Whose device it is."""
    agent_missing: str = ""
    """Why the agent could not be started at all."""
    power: Power = Power.UNKNOWN
    words: str = ""
    """The agent's own."""
    took_ms: int = 0
    label: str = ""
    """The device with the node's own plug, where it has one: "apc-a[5]"."""

    @property
    def named(self) -> str:
        return self.label or self.device


class MappedVolume(msgspec.Struct, frozen=True):
    """An LV that device-mapper has active on this host."""

    mapper: str
    vg: str
    lv: str
    uuid: str
    """With dashes."""
    above: tuple[str, ...] = ()
    """VGs whose LVs it is made of, other than its own."""


class ClusterFacts(msgspec.Struct, frozen=True):
    me: str
    """This host's name."""
    own: HostFacts
    cluster: ClusterConfig | None = None
    """As the daemon runs with it; without a daemon as the file says."""
    daemon: DaemonFacts | None = None
    daemon_trouble: str = ""
    """Why the daemon does not answer; empty where it does, or where this user may not ask it."""
    rounds: tuple[Checkup, ...] = ()
    """What all hosts said, twice; one or none where they could not be asked."""
    wall_at_boot_ms: float = 0.0
    """This host's wall clock, less its CLOCK_BOOTTIME."""
    devices: tuple[DeviceFacts, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    """What is wrong with what the devices' agents will be told."""
    mapped: tuple[MappedVolume, ...] = ()
    unseen: tuple[str, ...] = ()
    """What could not be looked at on this host, and why."""

    @property
    def hosts(self) -> Sequence[HostFacts]:
        """The latest word of each host that spoke; this one's own in any case."""
        if not self.rounds:
            return (self.own,)
        told = [msgspec.structs.replace(one.facts, node=one.name) for one in self.rounds[-1].hosts]
        return told if any(one.node == self.me for one in told) else [self.own, *told]

    @property
    def lab(self) -> bool:
        return self.own.lab
