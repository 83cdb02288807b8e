"""What a tenant wrote is nowhere on the disks once the volume is removed, whoever is killed in the middle."""

from pathlib import Path

from cluster_lab import ONE, TWO, done, eventually, kinds, refused, report, running, status, uri_of

from ringfence.lab.cluster import Lab
from ringfence.lab.nbd_client import NbdClient
from ringfence.lab.parts import Part

MIB = 1 << 20
SIZE = 160
"""MiB: more than is wiped under the VG's lock."""
SECRET = b"what one tenant must not read of another"


def fill(lab: Lab, node: str, volume: str) -> None:
    block = SECRET.ljust(4096, b".")
    with NbdClient(uri_of(lab, node, volume), timeout_s=60) as client:
        for number in range(SIZE * 4):
            client.write(number * MIB // 4, block)
        client.flush()


def left(lab: Lab) -> int:
    """How often the secret stands on the disk."""
    return Path(lab.disk).read_bytes().count(SECRET)


def pace(lab: Lab, mib_s: int, path: Path) -> None:
    shown = done(lab, ONE, "config", "show")
    path.write_text(shown.replace("version = 1", "version = 2", 1) + f"\n[volumes]\nwipe_mib_s = {mib_s}\n")
    done(lab, ONE, "config", "apply", str(path))


def wiped_bytes(lab: Lab, node: str) -> int:
    return sum(one["done_bytes"] for one in status(lab, node)["wiping"])


def test_nothing_of_a_removed_volume_is_left_though_its_wiper_is_killed(tmp_path: Path) -> None:
    with running(2) as lab:
        done(lab, ONE, "vgcreate", "--shared", "vg0", str(lab.disk))
        pace(lab, 50, tmp_path / "ringfence.toml")  # more than a second a slice
        done(lab, ONE, "lvcreate", "-L", f"{SIZE}M", "-n", "vm1", "vg0")
        fill(lab, ONE, "vg0/vm1")
        assert left(lab) == 4 * SIZE
        done(lab, ONE, "lvchange", "-an", "vg0/vm1")
        assert "are being wiped, and free after that" in done(lab, ONE, "lvremove", "vg0/vm1")
        assert report(lab, TWO, "lvs") == []
        eventually(lambda: any(wiped_bytes(lab, node) >= 64 * MIB for node in (ONE, TWO)))
        worker, other = sorted((ONE, TWO), key=lambda node: -wiped_bytes(lab, node))
        lab.kill(worker, Part.DAEMON)
        assert "more are being wiped" in refused(lab, other, "lvcreate", f"-L{SIZE}M", "-n", "vm2", "vg0")
        assert "vm1_wiping" in [row["lv_name"] for row in report(lab, other, "lvs", "-a")]
        # The host's daemon does not come back: it is fenced, and its lock passes on then.
        eventually(lambda: "lv-wiped" in kinds(lab, other), 60)
        assert left(lab) == 0
        told = done(lab, other, "lvcreate", f"-L{SIZE}M", "-n", "vm2", "--no-wipe", "vg0")
        assert "vm2" in told
        with NbdClient(uri_of(lab, other, "vg0/vm2"), timeout_s=60) as client:
            assert not any(client.read(number * MIB, MIB).strip(b"\0") for number in range(SIZE))
