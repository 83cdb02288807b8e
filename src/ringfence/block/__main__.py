"""`python -m ringfence.block`: the block service, in the foreground until SIGTERM.

    --root DIR                     all places below DIR (default /)
    --socket --dev-dir --run-dir --incidents PATH    one place each
    --group NAME                   group of the LVs' sockets (qemu, libvirt)
    --in-flight N                  requests of a volume on their way to its disks at one time"""

import argparse
import asyncio
import grp
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from ringfence.block.self_fence import misfit, timeout_s
from ringfence.block.service import IN_FLIGHT, Places, Service
from ringfence.config import Paths, load
from ringfence.core.cluster import Timing
from ringfence.core.errors import EXIT_BAD_COMMAND, EXIT_OK, BadInput, ConfigError, RingfenceError
from ringfence.host.identity import boot_id
from ringfence.host.watchdog import Watchdog, open_watchdog


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = _Parser(prog="ringfence block", description="serve active LVs as NBD exports")
    parser.add_argument("--root", type=Path, default=Path("/"), help="all places below this directory")
    parser.add_argument("--socket", type=Path, help="control socket")
    parser.add_argument("--dev-dir", type=Path, help="where the LVs' sockets appear: DIR/VG/LV")
    parser.add_argument("--run-dir", type=Path, help="where the lock file lies")
    parser.add_argument("--incidents", type=Path, help="file of incidents not yet acknowledged")
    parser.add_argument("--group", default="", help="group of the LVs' sockets")
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT, help="requests at a time, of a volume")
    asked = parser.parse_args(argv)
    try:
        if not asked.root.is_dir():
            raise BadInput(f"--root {asked.root} is not a directory", next="make it first")
        if asked.in_flight < 1:
            raise BadInput(f"--in-flight {asked.in_flight}: nothing would be read", next="give 1 at least")
        root = asked.root.absolute()
        places = Places.under(root, _group(asked.group), boot_id(root))
        given = {
            "socket": asked.socket,
            "dev": asked.dev_dir,
            "run": asked.run_dir,
            "incidents": asked.incidents,
        }
        changes = {name: path.absolute() for name, path in given.items() if path is not None}
        watchdog = _watchdog(Paths(root))
        places = msgspec.structs.replace(places, **changes)
        service = Service(places, watchdog, asked.in_flight, hold_ms=_hold_ms(Paths(root)))
        asyncio.run(service.run())
    except RingfenceError as error:
        print(f"ringfence block: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


def _watchdog(paths: Paths) -> Watchdog | None:
    """The host's, if its configuration names one.  Whatever is wrong is said, and `ringfence doctor` says it
    again; the volumes are served all the same."""
    if not paths.file.exists():
        return None
    try:
        loaded = load(paths)
        if loaded.watchdog is None:
            return None
        timing, timeout_ms = loaded.cluster.timing, loaded.watchdog_ms
        if wrong := misfit(timing, timeout_ms):
            raise ConfigError(f"[watchdog] {wrong}")
        return open_watchdog(loaded.watchdog, timeout_s(timing, timeout_ms))
    except RingfenceError as error:
        print(f"ringfence block: the watchdog is not used: {error}", file=sys.stderr, flush=True)
        return None


def _hold_ms(paths: Paths) -> int:
    """The cluster's, or the default where the configuration cannot be read: that is the daemon's to say."""
    try:
        return load(paths).cluster.timing.hold_ms
    except RingfenceError:
        return Timing().hold_ms


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as all of ringfence's errors."""
        self.exit(EXIT_BAD_COMMAND, f"  {self.prog}: {message}; see `{self.prog} --help`\n")


def _group(name: str) -> int:
    """Raises BadInput."""
    if not name:
        return -1
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise BadInput(f"there is no group {name}", next="make it, or leave --group out") from None


if __name__ == "__main__":
    sys.exit(main())
