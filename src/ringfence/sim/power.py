"""Simulated fence devices: each host has a BMC and two outlets, and any of them may lie.

What a device does and what it says are two things.  Whether a host has power follows from the
switches alone; nobody but the checkers may ask for it."""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level
from ringfence.core.evidence import Power
from ringfence.engine.effects import RunAgent
from ringfence.engine.inputs import AgentExited
from ringfence.sim.scheduler import Scheduler, Timer


class Manner(enum.Enum):
    """How a device behaves."""

    HONEST = "honest"
    LATE = "late"
    """Says done at once, acts seconds later."""
    LIES = "lies"
    """Says done, does nothing, and says off when asked again: the perfect liar."""
    CONTRADICTED = "contradicted"
    """Says done, does nothing, and its own status says so."""
    UNREACHABLE = "unreachable"
    HANGS = "hangs"
    WRONG_HOST = "wrong-host"
    """Cuts another host, and says off of this one."""


LIARS = (Manner.LATE, Manner.LIES, Manner.WRONG_HOST)
"""A second look does not find these out."""


@dataclass(eq=False)
class Supply:
    """What feeds one host."""

    node: int
    bmc: bool = True
    outlets: dict[str, bool] = field(default_factory=lambda: {"a": True, "b": True})

    @property
    def on(self) -> bool:
        return self.bmc and self.fed

    @property
    def fed(self) -> bool:
        return any(self.outlets.values())


@dataclass(eq=False)
class Device:
    name: str
    node: int
    outlet: str
    """"" for the BMC."""
    manner: Manner = Manner.HONEST
    believed_off: bool = False
    """What a liar goes on saying."""


TOPOLOGIES = ("plain", "reboot")
"""plain: one after the other, and nothing comes on again by itself.  reboot: the outlets side by side, which
settle and lag; delays; what was switched off is switched on again."""


def topology(name: str, config: ClusterConfig) -> ClusterConfig:
    """The plain configuration in that way."""
    if name == "plain":
        return config
    nodes = tuple(
        msgspec.structs.replace(
            node,
            levels=tuple(Level(level.devices, parallel=True) for level in node.levels),
            fence_delay_ms=800 if node is config.nodes[0] else 0,
        )
        for node in config.nodes
    )
    devices = tuple(
        msgspec.structs.replace(device, settle_ms=300, looks=3, look_every_ms=200)
        if device.confirms is Confirms.OUTLET_OFF
        else device
        for device in config.devices
    )
    timing = msgspec.structs.replace(config.timing, priority_delay_ms=1000)
    return msgspec.structs.replace(
        config, nodes=nodes, devices=devices, timing=timing, fence_action="reboot"
    )


def device_configs(nodes: list[int]) -> tuple[DeviceConfig, ...]:
    configs = [DeviceConfig(f"bmc{node}", "fence_sim", Confirms.HOST_OFF) for node in nodes]
    for node in nodes:
        configs += [
            DeviceConfig(f"pdu{node}{outlet}", "fence_sim", Confirms.OUTLET_OFF, own_supply=True)
            for outlet in "ab"
        ]
    return tuple(sorted(configs, key=lambda config: config.name))


def levels(node: int) -> tuple[Level, ...]:
    return Level((f"bmc{node}",)), Level((f"pdu{node}a", f"pdu{node}b"))


class PowerRoom:
    """All switches of a world.

    Args:
        lost: called when a host loses power.
        gained: called when it gets power again."""

    def __init__(
        self,
        scheduler: Scheduler,
        nodes: list[int],
        lost: Callable[[int], None],
        gained: Callable[[int], None],
    ) -> None:
        self._scheduler = scheduler
        self._lost, self._gained = lost, gained
        self.supplies = {node: Supply(node) for node in nodes}
        self.devices: dict[str, Device] = {}
        for node in nodes:
            for device in [Device(f"bmc{node}", node, ""), *(Device(f"pdu{node}{o}", node, o) for o in "ab")]:
                self.devices[device.name] = device
        self.offs: list[tuple[int, str, int]] = []
        """(when, device, node) each time a device said "off" to a second look; for the checkers."""

    # -- switches ----------------------------------------------------------------

    def switch(self, node: int, outlet: str, on: bool) -> None:
        supply = self.supplies[node]
        was = supply.on
        if outlet:
            supply.outlets[outlet] = on
        else:
            supply.bmc = on
        if was and not supply.on:
            self._scheduler.note(f"power: host {node} is off")
            self._lost(node)
        elif supply.on and not was:
            self._scheduler.note(f"power: host {node} is on")
            self._gained(node)

    def cut(self, node: int) -> None:
        self.switch(node, "", False)

    def restore(self, node: int) -> None:
        for outlet in self.supplies[node].outlets:
            self.switch(node, outlet, True)
        self.switch(node, "", True)
        for device in self.devices.values():
            if device.node == node:
                device.believed_off = False

    # -- agents ------------------------------------------------------------------

    def run(
        self,
        order: RunAgent,
        awake: Callable[[Callable[[], None]], None],
        exited: Callable[[AgentExited], None],
    ) -> Timer:
        """Run an agent; cancel the result to kill it.

        Args:
            awake: calls its argument as soon as the host that runs the agent is awake, or never.
            exited: told once, at the order's limit at the latest."""
        device = self.devices[order.device]
        took_ms = self._scheduler.between(5, 250)
        reached = device.manner not in (Manner.UNREACHABLE, Manner.HANGS) and self._fed(device)
        if not reached:
            took_ms = order.timeout_ms if device.manner is Manner.HANGS else took_ms

        def finish() -> None:
            if timer.cancelled:
                return
            if not reached or took_ms >= order.timeout_ms:
                words = "no answer within the limit" if device.manner is Manner.HANGS else "cannot connect"
                exited(AgentExited(order.run, Power.UNKNOWN, words, int(took_ms), answered=False))
                return
            power = self._do(device, order.action)
            exited(AgentExited(order.run, power, f"{order.action}: {power.value}", int(took_ms)))

        timer = self._scheduler.after(took_ms, lambda: awake(finish))
        return timer

    def _fed(self, device: Device) -> bool:
        """A BMC lives on its host's outlets; a PDU has a supply of its own."""
        return bool(device.outlet) or self.supplies[device.node].fed

    def _do(self, device: Device, action: str) -> Power:
        self._scheduler.note(f"power: {device.name} ({device.manner.value}) {action}")
        if action == "status":
            power = Power.OFF if self._says_off(device) else Power.ON
            if power is Power.OFF:
                self.offs.append((self._scheduler.now_ns, device.name, device.node))
            return power
        if action == "on":
            device.believed_off = False
            self.switch(device.node, device.outlet, True)
            return Power.ON
        self._switch_off(device)
        return Power.OFF

    def _says_off(self, device: Device) -> bool:
        if device.manner in LIARS and device.believed_off:
            return True
        supply = self.supplies[device.node]
        return not (supply.outlets[device.outlet] if device.outlet else supply.on)

    def _switch_off(self, device: Device) -> None:
        device.believed_off = True
        node, outlet = device.node, device.outlet
        match device.manner:
            case Manner.LIES | Manner.CONTRADICTED:
                return
            case Manner.LATE:
                self._scheduler.after(
                    self._scheduler.between(500, 6000), lambda: self.switch(node, outlet, False)
                )
            case Manner.WRONG_HOST:
                others = [other for other in self.supplies if other != node]
                self.switch(self._scheduler.rng.choice(others), outlet, False)
            case _:
                self.switch(node, outlet, False)

    def calm(self) -> None:
        """All devices are honest from here on."""
        for device in self.devices.values():
            device.manner = Manner.HONEST
            device.believed_off = False
