"""Device-mapper as a test has it: a sysfs of its own, and a dmsetup that acts on it."""

import shutil
from pathlib import Path

from ringfence.host.mapper import Mapper

_DMSETUP = """#!/bin/sh
# dmsetup wipe_table OPTIONS NAME: the table stands on nothing any more.
echo "$@" >> {root}/said
for name; do :; done
[ -e {root}/fails ] && exit 1
[ -e {root}/hangs.$name ] && exec sleep 30
for one in {root}/block/dm-*; do
    [ "$(cat $one/dm/name)" = "$name" ] && rm -f $one/slaves/*
done
exit 0
"""


class FakeMapper:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.block = root / "block"
        self.block.mkdir()
        for disk in ("sda", "sdb"):
            (self.block / disk).mkdir()
        self.dmsetup = root / "dmsetup"
        self.dmsetup.write_text(_DMSETUP.format(root=root))
        self.dmsetup.chmod(0o755)

    def mapper(self) -> Mapper:
        return Mapper(self.block, (str(self.dmsetup),))

    def add(self, number: int, name: str, uuid: str, *slaves: str) -> Path:
        at = self.block / f"dm-{number}"
        (at / "dm").mkdir(parents=True)
        (at / "slaves").mkdir()
        (at / "dm/name").write_text(f"{name}\n")
        (at / "dm/uuid").write_text(f"{uuid}\n")
        for slave in slaves:
            (at / "slaves" / slave).symlink_to(f"../../{slave}")
        return at

    def remove(self, number: int) -> None:
        shutil.rmtree(self.block / f"dm-{number}")

    def hangs(self, name: str, *, now: bool = True) -> None:
        """To cut it takes for ever: its array does not answer."""
        flag = self.root / f"hangs.{name}"
        flag.touch() if now else flag.unlink()

    def fails(self) -> None:
        (self.root / "fails").touch()

    @property
    def cut(self) -> list[str]:
        """Names in the order in which they were to be cut."""
        said = self.root / "said"
        return [line.split()[-1] for line in said.read_text().splitlines()] if said.exists() else []
