"""The cluster's configuration as a value: what every node must agree on, without secrets.

Parsed from TOML by `config`; travels in the total order as an entry.  What has its default is not
written, so that nodes whose version has one key more still have one configuration (and one digest)
with those that do not know it."""

import enum

import msgspec

from ringfence.core.evidence import DEFAULT_EVIDENCE

DEFAULTS = 2
"""Raised whenever one of the defaults below becomes another value: nodes of two versions would else agree on
a configuration that leaves it out, and mean different things."""


class Confirms(enum.Enum):
    """What an "off" of a device, twice seen, proves."""

    HOST_OFF = "host-off"
    OUTLET_OFF = "outlet-off"
    STORAGE_CUT = "storage-cut"
    SELF_FENCE = "self-fence"
    """Nothing was switched: the host was told to end itself, and its watchdog would have done so since."""


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All in milliseconds of CLOCK_BOOTTIME."""

    heartbeat_ms: int = 200
    token_ms: int = 1000
    grant_ms: int = 1500
    silent_ms: int = 3000
    write_ms: int = 4500
    hold_ms: int = 60000
    grace_ms: int = 20000
    post_join_delay_ms: int = 30000
    agent_timeout_ms: int = 30000
    backoff_ms: int = 1000
    min_hold_ms: int = 1
    """How long a node that was just given a lock serves its own clients before it gives way to others."""
    priority_delay_ms: int = 0
    """The node that has more at stake is fenced this much later: it wins where two fence each other."""
    fence_test_ms: int = 86_400_000
    """How often each node tries whether it could fence; 0 = never."""

    @property
    def detection_ms(self) -> int:
        """Token plus consensus (1.2 x token), as corosync computes it."""
        return self.token_ms * 22 // 10

    @property
    def bound_ms(self) -> int:
        """Purge bound: write authority plus 5 % and two heartbeats for unequal clock rates."""
        return self.write_ms + self.write_ms // 20 + 2 * self.heartbeat_ms

    def left_out_ms(self, rank: int = 0) -> int:
        """So long a view that begins waits for a member that says nothing: twice what one that runs gives
        it, for many things happen at once where a view begins.

        Args: rank: of those who could say so, how many come first."""
        return (2 + rank) * self.silent_ms

    @property
    def slot_ms(self) -> int:
        """How often a node writes its disk slots: a partitioned host has moved its slot twice, at the
        latest, when the others begin to fence it (detection is more than four times as long)."""
        return max(self.heartbeat_ms, self.token_ms // 2)

    @property
    def slot_limit_ms(self) -> int:
        """So long an array may take to answer; several such silences fit into the write authority."""
        return max(500, self.token_ms)


class Lvmlockd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How stock LVM2 is served."""

    serve: bool = True
    """Whether each host's daemon listens on lvmlockd's socket."""
    vg_wait_ms: int = 60000
    """How long a stock command waits for the global lock or a VG's before it is refused; it asks again."""
    lv_wait_ms: int = 0
    """The same for an LV's.  0: it is refused at once, as by lvmlockd."""


class Volumes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    wipe_mib_s: int = 0
    """How fast LVs are wiped (and zeroed, where nobody waits for it) by each host, in MiB/s; 0: as fast as
    the devices take it."""


class Use(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A device as one node's level uses it: with a plug of that node's own."""

    device: str
    parameters: dict[str, str] = {}
    """Handed to the agent over the device's own.  Never secrets."""

    @property
    def label(self) -> str:
        """For people: "apc-a[5]", or the device's name where it has no plug of its own here."""
        plug = self.parameters.get("plug", self.parameters.get("port", ""))
        return f"{self.device}[{plug}]" if plug else self.device


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    devices: tuple[str | Use, ...]
    """A name alone: the device as it is configured."""
    parallel: bool = False
    """Its devices are switched side by side instead of one after the other."""

    @property
    def uses(self) -> tuple[Use, ...]:
        return tuple(Use(one) if isinstance(one, str) else one for one in self.devices)

    @property
    def names(self) -> tuple[str, ...]:
        """The devices' names, in order; one with two plugs here stands twice."""
        return tuple(use.device for use in self.uses)


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    id: int
    name: str
    votes: int = 1
    addresses: tuple[str, ...] = ()
    levels: tuple[Level, ...] = ()
    manual: bool = False
    """No fence devices: only an operator's word or a return under a new boot clears it."""
    fence_delay_ms: int = 0
    """Whoever fences this node waits so long first, so that it wins where two fence each other."""


class DeviceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    agent: str
    confirms: Confirms
    parameters: dict[str, str] = {}
    """Handed to the agent on stdin.  Never secrets: those are named by file."""
    timeout_ms: int = 0
    """Wall-clock limit of one agent call; 0 = the cluster's agent_timeout_ms."""
    own_supply: bool = False
    """The device does not lose its power with the host's outlets (else: to answer betrays a lie)."""
    sessions: int = 1
    """How many calls it serves at once; others wait for their turn."""
    settle_ms: int = 0
    """How long it is left alone between an "off" and the first look."""
    looks: int = 2
    """How often it is looked at before its answer stands: its status may lag."""
    look_every_ms: int = 0
    """Between two looks."""


class ClusterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    version: int = 1
    ring: str = "hub"
    two_node: bool = False
    naive: bool = False
    """Protections off; accepted only by a lab on the hub ring."""
    fence_action: str = "off"
    """"off" or "reboot": whether plugs are switched on again once locks were cleaned up."""
    fencing: str = "ringfence"
    """Who runs the agents: "ringfence", or "pacemaker", whose fencer is asked."""
    evidence: tuple[str, ...] = DEFAULT_EVIDENCE
    """Which proofs count (core.evidence.EVIDENCE_WORDS)."""
    timing: Timing = Timing()
    lvmlockd: Lvmlockd = Lvmlockd()
    volumes: Volumes = Volumes()
    nodes: tuple[NodeConfig, ...] = ()
    """Sorted by id."""
    devices: tuple[DeviceConfig, ...] = ()
    """Sorted by name."""

    def node(self, id: int) -> NodeConfig:
        """Raises KeyError if no such node is configured."""
        for node in self.nodes:
            if node.id == id:
                return node
        raise KeyError(id)

    def node_named(self, name: str) -> NodeConfig:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def device(self, name: str) -> DeviceConfig:
        for device in self.devices:
            if device.name == name:
                return device
        raise KeyError(name)

    def name_of(self, id: int) -> str:
        """A node's name for messages; never raises.  One that is not configured any more: "node-ID"."""
        return next((node.name for node in self.nodes if node.id == id), f"node-{id}")

    def levels_of(self, id: int) -> tuple[Level, ...]:
        """A node's fence levels; none if it is not configured any more."""
        return next((node.levels for node in self.nodes if node.id == id), ())

    @property
    def votes(self) -> int:
        return sum(node.votes for node in self.nodes)

    @property
    def majority(self) -> int:
        return self.votes // 2 + 1
