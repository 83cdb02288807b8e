"""Stock LVM2 on image files through loop devices, without device-mapper and without lvmlockd.

VGs that need lvmlockd are read with --nolocking.  Devices are detached on `close`, which every
fixture calls; nothing of the host's own LVM is touched (filter, no udev, no backups)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, ClassVar

_NOISE = ("Activation disabled", "NOT backed up", "not zeroed")


class StockFailed(Exception):
    pass


class Stock:
    attached: ClassVar[list[str]] = []
    """Every image that any of them had on a loop device."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.loops: dict[str, str] = {}
        """image -> loop device."""

    def attach(self, *images: str, sector_bytes: int = 512) -> list[str]:
        for image in images:
            if image not in self.loops:
                command = ["losetup", "--sector-size", str(sector_bytes), "--find", "--show", image]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                self.loops[image] = done.stdout.strip()
                self.attached.append(image)
        return [self.loops[image] for image in images]

    def close(self) -> None:
        for loop in self.loops.values():
            subprocess.run(["losetup", "--detach", loop], check=False)
        self.loops.clear()

    def image_of(self, loop: str) -> str:
        return next(image for image, name in self.loops.items() if name == loop)

    def _config(self, lvmlockd: bool) -> str:
        accept = ",".join(f'"a|^{loop}$|"' for loop in self.loops.values())
        return (
            f'devices{{use_devicesfile=0 filter=[{accept},"r|.*|"] obtain_device_list_from_udev=0 '
            'external_device_info_source="none" scan_lvs=0 hints="none"} '
            f"global{{activation=0 use_lvmlockd={int(lvmlockd)} use_lvmpolld=0 event_activation=0 "
            f'notify_dbus=0 locking_dir="{self._directory}/lock"}} '
            "activation{udev_sync=0 udev_rules=0 monitoring=0} backup{backup=0 archive=0}"
        )

    def try_run(self, *words: str, lvmlockd: bool = True) -> tuple[int, str, list[str]]:
        """Exit status, output, complaints."""
        environment = {**os.environ, "LVM_SUPPRESS_FD_WARNINGS": "1", "LC_ALL": "C"}
        extra = ["--nolocking"] if lvmlockd and words[0] != "pvck" else []
        done = subprocess.run(
            [words[0], *extra, "--config", self._config(lvmlockd), *words[1:]],
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
        )
        noise = [line.strip() for line in done.stderr.splitlines() if not any(one in line for one in _NOISE)]
        return done.returncode, done.stdout, noise

    def run(self, *words: str, lvmlockd: bool = True, quiet: bool = True) -> str:
        """Output; raises StockFailed if stock LVM2 fails or (with `quiet`) complains of anything."""
        code, output, noise = self.try_run(*words, lvmlockd=lvmlockd)
        if code or (quiet and noise):
            raise StockFailed(f"{' '.join(words)}: exit {code}: {' / '.join(noise)}")
        return output

    def report(self, command: str, *words: str, quiet: bool = True) -> list[dict[str, Any]]:
        """Rows of pvs, vgs or lvs; sizes in bytes, as strings."""
        output = self.run(
            command, "--reportformat", "json", "--units", "b", "--nosuffix", *words, quiet=quiet
        )
        (rows,) = json.loads(output)["report"][0].values()
        return list(rows)

    def headers(self, image: str) -> dict[str, str]:
        """`pvck --dump headers` as name -> value."""
        fields = {}
        for line in self.run("pvck", "--dump", "headers", image, quiet=False).splitlines():
            words = line.split()
            if len(words) >= 2:
                fields[words[0]] = words[1]
        return fields

    def text(self, image: str) -> str:
        """`pvck --dump metadata`: the committed text."""
        output = self.run("pvck", "--dump", "metadata", image, quiet=False)
        return output.partition("  ---\n")[2].rpartition("  ---\n")[0]
