"""A daemon says at its start what is wrong with its fence devices; it starts all the same."""

import asyncio
from pathlib import Path

import pytest

from ringfence.config import Paths
from ringfence.core.cluster import ClusterConfig, Confirms, DeviceConfig
from ringfence.daemon import devices


def test_what_is_wrong_is_a_warning_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "SETTLED_S", 0.0)
    broken = tmp_path / "fence_broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    config = ClusterConfig(
        "c",
        devices=(
            DeviceConfig("bmc", "fence_ipmilan", Confirms.HOST_OFF, {"ip": "1", "usr": "a"}),
            DeviceConfig("good", "fence_ilo5", Confirms.HOST_OFF, {"ip": "1"}),
            DeviceConfig("missing", "fence_of_ours", Confirms.HOST_OFF),
            DeviceConfig("odd", str(broken), Confirms.HOST_OFF),
        ),
    )
    said: list[str] = []
    asyncio.run(devices.warn_of_devices(Paths(tmp_path), config, said.append))
    assert said == [
        "device bmc: fence_ipmilan has no parameter usr; ringfence fence describe fence_ipmilan lists them",
        "device missing: fence agent fence_of_ours is not installed on this host; install it (Debian: "
        "fence-agents)",
        f"device odd: {broken} does not describe itself (it prints no metadata (exit code 1)): its "
        "parameters are not checked",
    ]
