"""The rig's kernel and root image: made once, kept by the kernel's version and the list of packages.

Debian's full kernel, unpacked to an ELF vmlinux (QEMU starts that by PVH, which saves unpacking it under
emulation); a minimal Debian as one read-only ext4 image that all guests share, a tmpfs above it; an initramfs
of busybox and the few modules that find the image.

Source: Linux Documentation/x86/boot.rst (setup header: setup_sects at 0x1f1, payload_offset and
payload_length at 0x248)."""

import hashlib
import lzma
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

SUITE = "bookworm"
PACKAGES = (
    "corosync", "dmsetup", "iproute2", "kmod", "libcfg7", "libcmap4", "libcpg4", "libquorum5", "lvm2",
    "lvm2-lockd", "procps", "python3", "udev", "util-linux",
)  # fmt: skip
MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "overlay")
"""What the initramfs needs."""
MODULE_ROOMS = (
    "arch", "block", "crypto", "drivers/block", "drivers/char", "drivers/md", "drivers/nbd", "drivers/virtio",
    "drivers/watchdog", "drivers/net/virtio_net.ko", "drivers/net/net_failover.ko", "drivers/dax",
    "fs/9p", "fs/configfs", "fs/ext4", "fs/jbd2", "fs/mbcache.ko", "fs/fscache", "fs/netfs", "fs/overlayfs",
    "lib", "net/9p", "net/core/failover.ko", "drivers/crypto/virtio",
)  # fmt: skip
"""What the guests get of /lib/modules/VERSION/kernel: files and directories."""

INITRD_INIT = """#!/bin/sh
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
for one in $(cat /order); do insmod /modules/$one; done
mkdir -p /ro /rw /new
while [ ! -e /dev/vda ]; do sleep 0.02; done
mount -t ext4 -o ro /dev/vda /ro
mount -t tmpfs rw /rw; mkdir /rw/up /rw/work
mount -t overlay -o lowerdir=/ro,upperdir=/rw/up,workdir=/rw/work over /new
mount --move /dev /new/dev; mount --move /proc /new/proc; mount --move /sys /new/sys
exec switch_root /new /sbin/rig-init
"""

ROOT_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DM_DISABLE_UDEV=1 LC_ALL=C.UTF-8
mount -t tmpfs run /run; mkdir -p /dev/shm /dev/pts /run/lock /run/lvm; mount -t tmpfs shm /dev/shm
modprobe -a virtio_net 9pnet_virtio 9p dm_mod dm_mirror softdog virtio_console
ip link set lo up
mkdir -p /proj
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro,cache=loose proj /proj
while true; do python3 -S /proj/tests/rig/agent.py; sleep 0.2; done
"""


class Images(NamedTuple):
    kernel: Path
    initrd: Path
    root: Path


def images(cache: Path) -> Images:
    """Build what is not there yet.  Needs the network then; raises CalledProcessError with its words."""
    cache.mkdir(parents=True, exist_ok=True)
    package = _kernel_package()
    words = repr((package, PACKAGES, MODULES, MODULE_ROOMS, INITRD_INIT, ROOT_INIT, SUITE))
    here = cache / hashlib.sha256(words.encode()).hexdigest()[:16]
    made = Images(here / "vmlinux", here / "rig.cpio", here / "root.img")
    if made.root.exists():
        return made
    building = here.with_name(here.name + ".new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    kernel = _kernel(cache, package)
    root = _root(cache)
    (building / "vmlinux").write_bytes(_vmlinux(next(kernel.glob("boot/vmlinuz-*")).read_bytes()))
    version = next((kernel / "lib/modules").iterdir()).name
    tree = building / "root"
    _fill(tree, root, kernel, version)
    _initrd(building, tree / "lib/modules" / version)
    _image(building, tree)
    building.rename(here)
    return made


def _run(*words: str | Path, cwd: Path | None = None) -> str:
    return subprocess.run(words, cwd=cwd, check=True, capture_output=True, text=True).stdout


def _kernel_package() -> str:
    for line in _run("apt-cache", "depends", "linux-image-amd64").splitlines():
        relation, _, name = line.strip().partition(": ")  # the first line is the package's own name
        if relation == "Depends" and name.startswith("linux-image-"):
            policy = _run("apt-cache", "policy", name)
            version = next(one.split()[1] for one in policy.splitlines() if "Candidate:" in one)
            return f"{name}={version}"
    raise SystemExit("apt knows no linux-image-amd64: run apt-get update")


def _kernel(cache: Path, package: str) -> Path:
    """The package's files."""
    there = cache / f"kernel-{package.replace('=', '_').replace(':', '_')}"
    if not there.exists():
        new = there.with_name(there.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        _run("apt-get", "download", package, cwd=new)
        _run("dpkg-deb", "-x", next(new.glob("*.deb")), new / "files")
        (new / "files").rename(there)
        shutil.rmtree(new)
    return there


def _root(cache: Path) -> Path:
    """The bootstrapped directory."""
    there = cache / f"root-{hashlib.sha256(repr((PACKAGES, SUITE)).encode()).hexdigest()[:16]}"
    if not there.exists():
        new = there.with_name(there.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        _run("mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, new)
        new.rename(there)
    return there


def _vmlinux(image: bytes) -> bytes:
    setup = (image[0x1F1] or 4) + 1
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = setup * 512 + offset
    # What follows the stream is the unpacked size.
    return lzma.LZMADecompressor().decompress(image[start : start + length])


def _initrd(building: Path, modules: Path) -> None:
    tree = building / "initrd"
    for name in ("bin", "dev", "proc", "sys", "modules"):
        (tree / name).mkdir(parents=True)
    busybox = Path("/bin/busybox")
    shutil.copy(busybox, tree / "bin/busybox")
    for applet in ("sh", "mount", "insmod", "mkdir", "sleep", "cat", "switch_root"):
        (tree / "bin" / applet).symlink_to("busybox")
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, below = line.partition(":")
        needs[Path(path).name.partition(".")[0]] = (path, below.split())
    order: list[str] = []
    for module in MODULES:
        path, below = needs.get(module, ("", []))
        if not path:  # built in
            continue
        for one in (*reversed(below), path):
            if Path(one).name not in order:
                order.append(Path(one).name)
                shutil.copy(modules / one, tree / "modules")
    (tree / "order").write_text("\n".join(order) + "\n")
    (tree / "init").write_text(INITRD_INIT)
    (tree / "init").chmod(0o755)
    names = "\n".join(str(one.relative_to(tree)) for one in sorted(tree.rglob("*")))
    with (building / "rig.cpio").open("wb") as file:
        words = ("cpio", "-o", "-H", "newc", "--quiet")
        subprocess.run(words, input=names.encode(), cwd=tree, stdout=file, check=True)
    shutil.rmtree(tree)


def _fill(tree: Path, root: Path, kernel: Path, version: str) -> None:
    """The root, the modules and our first process."""
    _run("cp", "-a", "--reflink=auto", root, tree)
    source, target = (one / "lib/modules" / version for one in (kernel, tree))
    for room in MODULE_ROOMS:
        (target / "kernel" / room).parent.mkdir(parents=True, exist_ok=True)
        if (source / "kernel" / room).is_dir():
            shutil.copytree(source / "kernel" / room, target / "kernel" / room, dirs_exist_ok=True)
        elif (source / "kernel" / room).exists():
            shutil.copy(source / "kernel" / room, target / "kernel" / room)
    for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
        shutil.copy(source / name, target)
    _run("chroot", tree, "/sbin/depmod", version)
    (tree / "sbin/rig-init").write_text(ROOT_INIT)
    (tree / "sbin/rig-init").chmod(0o755)


def _image(building: Path, tree: Path) -> None:
    image = building / "root.img.new"
    with image.open("wb") as file:
        os.truncate(file.fileno(), 1 << 30)
    _run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, image)
    shutil.rmtree(tree)
    image.rename(building / "root.img")
