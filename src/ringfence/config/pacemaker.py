"""fencing = "pacemaker": the device that it stands for, and the level that nodes get which have none.

Written out as any other device and level, so that nothing below knows of a special case; a file that writes
them out itself means the same."""

import msgspec

from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig, Level

NAME = "pacemaker"
AGENT = "ringfence-pacemaker"
SPARE_MS = 3000
"""Pacemaker is to give up before the call is ended: what it still did after that nobody would wait for."""


def with_pacemaker(config: ClusterConfig) -> ClusterConfig:
    """The configuration with what `fencing = "pacemaker"` leaves unsaid; any other as it is."""
    if config.fencing != NAME:
        return config
    devices = config.devices
    if all(device.name != NAME for device in devices):
        # One call is all of Pacemaker's levels: it may take longer than one agent.
        limit_ms = 2 * config.timing.agent_timeout_ms
        timeout_s = max(1, (limit_ms - SPARE_MS) // 1000)
        given = {"timeout": str(timeout_s)}
        if config.fence_action == "reboot":  # who says so lets plugs be switched on
            given["cycle"] = "1"
        own = DeviceConfig(NAME, AGENT, Confirms.HOST_OFF, given, timeout_ms=limit_ms, sessions=4)
        devices = tuple(sorted((*devices, own), key=lambda device: device.name))
    nodes = tuple(
        node if node.levels or node.manual else msgspec.structs.replace(node, levels=(Level((NAME,)),))
        for node in config.nodes
    )
    return msgspec.structs.replace(config, devices=devices, nodes=nodes)
