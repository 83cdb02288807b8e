"""What only a real kernel can show: the plane of device-mapper, and stock LVM2's tables under our locks.

    python tests/rig [SCENARIO...]       `make rig`; SCENARIO: a name from the list below

One line a scenario, with its figures; exit code 1 if any failed.  Guests run by software emulation, a dozen
times slower than a host: the figures are about order and loss, not about speed, but for the throughput: there
the clock counts instructions, a nanosecond each, and nothing else.  (A host's processor is faster.)"""

import compileall
import contextlib
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from build import images
from guest import Failed
from hosts import DISKS, ENVIRONMENT, PROJECT, Host, after_longest_gap, cluster, counted, eventually

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ringfence-rig"
RECORDING = PROJECT / "tests/block/recordings/kernel-6.1.json"
LV_BYTES = 64 << 20
GUESTS_PYTHON = (3, 11)
GOAL, OURS = 0.98, 0.999
"""Through our table, of the disk's own speed; and of that through a table which dmsetup made."""
DISKS_US = (300, 500)
"""1 MiB of a fast local disk, and of one behind a network."""
READS = 200


def check(fact: object, words: str) -> None:
    if not fact:
        raise Failed(words)


def kernel(one: Host, two: Host) -> str:
    """The kernel answers as the recording has it, by which the tests without a kernel go."""
    told = json.loads(one.run("python3", "/proj/tests/rig/story.py").out)
    recorded = json.loads(RECORDING.read_text())
    if os.environ.get("REWRITE"):
        RECORDING.write_text(json.dumps(told))
    check(told["told"] == recorded["told"], "it answers otherwise than recorded: REWRITE=1 records anew")
    return f"{len(told['conversation'])} ioctls, {len(told['told'])} answers as recorded"


def shared(one: Host, two: Host) -> str:
    """A shared VG, an LV as a device on one host, refused on the other; stock LVM2 sees it active."""
    one.ringfence("vgcreate", "--shared", "rig", *DISKS)
    two.ringfence("vgchange", "--lockstart", "rig")
    one.ringfence("lvcreate", "-n", "lv1", "-L", f"{LV_BYTES}b", "rig")
    check(one.mapper("rig-lv1") == ("Active linear",), f"not a linear table: {one.mapper('rig-lv1')}")
    link = one.run("readlink", "/run/ringfence/dev/rig/lv1").out.strip()
    check(link.startswith("/dev/dm-"), f"the link is {link!r}")
    words = one.stock("lvs", "--noheadings", "--nolocking", "-o", "lv_active", "rig/lv1").out.strip()
    check(words == "active", f"stock lvs says {words!r}")
    refused = two.ringfence("lvchange", "-aey", "rig/lv1", check=False)
    check(refused.code == 5 and "g1" in refused.err, f"not refused: {refused}")
    check(two.mapper("rig-lv1") == ("",), "a table on the host without the lock")
    return f"{link}, stock lvs: active; on g2: {refused.err.strip()}"


def in_use(one: Host, two: Host) -> str:
    """A device that is in use is not closed, and its lock stays; once it is closed, the other host has it."""
    pid = one.spawn("sh", "-c", "exec sleep 600 < /run/ringfence/dev/rig/lv1", log="/run/user.log")
    refused = one.ringfence("lvchange", "-an", "rig/lv1", check=False)
    check(refused.code == 5 and "in use" in refused.err, f"not refused: {refused}")
    check(one.mapper("rig-lv1") == ("Active linear",), "the table is gone")
    one.run("kill", str(pid))
    pattern = "marked by g1 through device-mapper"
    one.run("sh", "-c", f"printf '{pattern}' | dd of=/run/ringfence/dev/rig/lv1 conv=notrunc status=none")
    one.ringfence("lvchange", "-an", "rig/lv1")
    check(one.mapper("rig-lv1") == ("",), "the table is still there")
    two.ringfence("lvchange", "-aey", "rig/lv1")
    words = "dd if=/run/ringfence/dev/rig/lv1 iflag=direct bs=4096 count=1 status=none | head -c 34"
    check(two.run("sh", "-c", words).out == pattern, "what g1 wrote through its cache is not on the disk")
    two.ringfence("lvchange", "-an", "rig/lv1")
    one.ringfence("lvchange", "-aey", "rig/lv1")
    return f"{refused.err.strip()}; closed, then g2 read what g1 had in its cache"


def stock(one: Host, two: Host) -> str:
    """Stock LVM2 activates a striped LV through our lvmlockd; for the same LV we load the same table."""
    one.stock("lvcreate", "-an", "-y", "-i2", "-I64k", "-L", f"{LV_BYTES}b", "-n", "lv2", "rig")
    one.stock("lvchange", "-aey", "rig/lv2")
    check(one.mapper("rig-lv2") == ("Active striped",), f"not a striped table: {one.mapper('rig-lv2')!r}")
    refused = two.stock("lvchange", "-aey", "rig/lv2", check=False)
    check(refused.code == 5, f"not refused: {refused}")
    theirs = one.run("dmsetup", "table", "rig-lv2").out
    one.stock("lvchange", "-an", "rig/lv2")
    one.ringfence("lvchange", "-aey", "rig/lv2")
    ours = one.run("dmsetup", "table", "rig-lv2").out
    one.ringfence("lvchange", "-an", "rig/lv2")
    one.stock("lvchange", "-aey", "rig/lv2")
    check(ours == theirs, f"stock LVM2 loads {theirs!r}, we {ours!r}")
    return f"{theirs.strip()}: as we compute it; g2: {refused.err.strip()}"


def growth(one: Host, two: Host) -> str:
    """An LV grows while it is open: its device is larger when the command ends."""

    def sectors() -> int:
        return int(one.run("blockdev", "--getsz", "/run/ringfence/dev/rig/lv1").out)

    one.ringfence("lvextend", "-L", f"{2 * LV_BYTES}b", "rig/lv1")
    check(sectors() * 512 == 2 * LV_BYTES, f"{sectors()} sectors after lvextend")
    return f"{sectors()} sectors when lvextend ended"


def lapse(one: Host, two: Host) -> str:
    """The peer stands still: our authority lapses, our table and LVM2's are suspended, and resumed after."""
    with _writers(one, "lv1", "lv2"):
        two.guest.freeze()
        try:
            took = eventually(lambda: one.suspended("rig-lv1", "rig-lv2"), 10, one.logs)
        finally:
            two.guest.thaw()
        active = ("Active linear", "Active striped")
        back = eventually(lambda: one.mapper("rig-lv1", "rig-lv2") == active, 30, one.logs)
        time.sleep(2)
    figures = []
    for lv in ("lv1", "lv2"):
        gap, later, failed = after_longest_gap(one.writes(f"/run/{lv}.writes"))
        check(later and not failed, f"{lv}: {later} writes after the pause, {failed} failed")
        figures.append(f"{lv} paused {gap:.1f} s, then {later} writes, 0 failed")
    return f"suspended after {took:.1f} s, resumed {back:.1f} s after the thaw; {'; '.join(figures)}"


def freeze(one: Host, two: Host) -> str:
    """A host freezes, an operator lies, its lock moves; it thaws, and writes until its guard runs."""
    with _writers(one, "lv1", "lv2"):
        one.guest.freeze()
        try:
            began = time.monotonic()
            lie = ("fence", "confirm", "g1", "--yes", "--who", "rig", "--why", "a lie, on purpose")
            eventually(lambda: two.ringfence(*lie, check=False).code == 0, 60, two.logs)
            take = ("lvchange", "-aey", "rig/lv1")
            eventually(lambda: two.ringfence(*take, check=False).code == 0, 60, two.logs)
            moved = time.monotonic() - began
        finally:
            one.guest.thaw()
        over = {"", "Active error"}
        eventually(lambda: over.issuperset(one.mapper("rig-lv1", "rig-lv2")), 60, one.logs)
        time.sleep(2)
    said = one.run("cat", "/run/block.log").out
    figures = []
    for lv in ("lv1", "lv2"):
        _, landed, failed = after_longest_gap(one.writes(f"/run/{lv}.writes"))
        found = re.search(rf"up to (\d+) writes .* to rig/{lv} .*suspended (\d+) ms after", said)
        told = int(found[1]) if found else 0
        check(landed <= told, f"{landed} writes to {lv} landed, reported are {told}: {said}")
        words = f"{lv}: {landed} writes landed after the thaw (reported: up to {told}), {failed} failed"
        figures.append(words)
    return f"lock on g2 after {moved:.0f} s; {'; '.join(figures)}"


@contextlib.contextmanager
def _writers(host: Host, *lvs: str) -> Iterator[None]:
    """One on each of these LVs, at its work."""
    pids = []
    for lv in lvs:
        device = "/run/ringfence/dev/rig/lv1" if lv == "lv1" else f"/dev/mapper/rig-{lv}"
        words = ("python3", "-S", "/proj/tests/rig/writer.py", device, str(LV_BYTES), f"/run/{lv}.writes")
        pids.append(host.spawn(*words, log="/run/writer.log"))
    time.sleep(3)
    try:
        yield
    finally:
        for pid in pids:
            host.run("kill", "-9", str(pid), check=False)


def throughput(one: Host, two: Host) -> str:
    """Reads of 1 MiB without a cache, of a disk, through a table of dmsetup's, and through ours; in a guest
    that counts instructions, so it tells of them alone."""
    words = ("python3", "/proj/tests/rig/throughput.py", str(READS), *map(str, DISKS_US))
    with counted(images(CACHE)) as guest:
        lines = guest.run(*words, env=ENVIRONMENT, limit_s=240).out.splitlines()
    figures = []
    for disk_us, line in zip(DISKS_US, lines, strict=True):
        raw_us, stock_us, ours_us = map(float, line.split())
        told = (
            f"a read of a disk that takes {disk_us} us takes {ours_us:.1f} us through dm, {raw_us:.1f} us"
            f" raw: {raw_us / ours_us:.3f} (goal {GOAL}); through a table of dmsetup's {stock_us:.1f} us"
        )
        check(raw_us >= GOAL * ours_us and stock_us >= OURS * ours_us, told)
        figures.append(told)
    return "; ".join(figures)


def daemon(one: Host, two: Host) -> str:
    """The daemon is killed under a running writer; the next one adopts the device, and nobody notices."""
    with _writers(one, "lv1"):
        one.run("kill", "-9", str(one.daemon))
        one.start_daemon()
        took = eventually(lambda: "adopted g1" in two.run("cat", "/run/daemon.log").out, 80, one.logs)
        eventually(lambda: one.mapper("rig-lv1") == ("Active linear",), 20, one.logs)
        time.sleep(2)
    gap, later, failed = after_longest_gap(one.writes("/run/lv1.writes"))
    check(later and not failed, f"{later} writes after the pause, {failed} failed")
    return f"adopted after {took:.1f} s; longest pause of a write {gap:.1f} s, 0 failed"


SCENARIOS: tuple[Callable[[Host, Host], str], ...] = (
    kernel, shared, in_use, throughput, growth, stock, lapse, daemon, freeze,
)  # fmt: skip
"""Each goes on where the one before it ended."""


def main(wanted: list[str]) -> int:
    began, failed = time.monotonic(), False
    if sys.version_info[:2] != GUESTS_PYTHON:
        raise SystemExit("the guests have Python 3.11 and use this project's wheels: make .venv with that")
    compileall.compile_dir(PROJECT / "src", quiet=1)  # or a guest does, each time
    built = images(CACHE)
    print(f"images: {time.monotonic() - began:.0f} s", flush=True)
    with cluster(built) as (one, two):
        print(f"two guests, one cluster: {time.monotonic() - began:.0f} s", flush=True)
        for scenario in SCENARIOS:
            if wanted and scenario.__name__ not in wanted:
                continue
            began = time.monotonic()
            try:
                words = scenario(one, two)
            except Exception as error:
                print(f"FAILED {scenario.__name__}: {error}", flush=True)
                traceback.print_exc()
                print(one.logs(), two.logs(), sep="\n")
                failed = True
                continue
            print(f"ok {scenario.__name__} ({time.monotonic() - began:.0f} s): {words}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
