"""Stock LVM2 on hosts: those of a lab, and bare ones whose locks are granted by anybody."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from ringfence.client import connect
from ringfence.core.errors import NotFound
from ringfence.lab.cluster import TIMING, Lab
from ringfence.lab.layout import HUB, Ring
from ringfence.lab.stock_lvm2 import attach, detach, lvm_conf
from ringfence.lab.typed import Typed
from ringfence.wire import client as calls

ONE, TWO, THREE = "an-a01n01", "an-a01n02", "an-a01n03"
SIZE_BYTES = 256 << 20
PATIENT = msgspec.structs.replace(TIMING, grace_ms=20000)
"""On a busy machine a daemon takes seconds to come back."""
VGS = ("vg0", "vg1")
"""What tests may call theirs."""
LIMIT_S = 60.0
PLAIN = ("-an", "-Zn", "-Wn")
"""An LV that is not active cannot be wiped."""
_OWN_RUN = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Waits(Protocol):
    def wait(self, limit_s: float, /) -> int:
        """The exit code.  Raises an error if it still runs."""


class Started:
    """A command that was typed; its words go to memory."""

    def __init__(self, begin: Callable[[Sequence[int]], Waits]) -> None:
        """
        Args:
            begin: starts it, with these for its stdin, stdout and stderr."""
        self._files = [os.memfd_create(name) for name in ("stdout", "stderr")]
        with open(os.devnull) as nothing:
            self._process = begin((nothing.fileno(), *self._files))

    def wait(self, limit_s: float = LIMIT_S) -> Ran:
        code = self._process.wait(limit_s)
        texts = []
        for file in self._files:
            texts.append(os.pread(file, os.fstat(file).st_size, 0).decode())
            os.close(file)
        return Ran(code, *texts)


class Host(Protocol):
    name: str

    def start(self, *words: str) -> Started:
        """Type a command on it."""


class LabHost:
    def __init__(self, lab: Lab, name: str, tools: Path | None = None) -> None:
        """
        Args:
            tools: where LVM2's commands are looked for first."""
        self.lab = lab
        self.name = name
        path = os.environ["PATH"]
        self._env = {**os.environ, "PATH": f"{tools}:{path}" if tools else path}

    def start(self, *words: str) -> Started:
        return Started(lambda streams: Typed(self.lab, self.name, words, streams, self._env))

    def ringfence(self, *words: str) -> Started:
        """One of ringfence's own commands."""
        return self.start(sys.executable, "-m", "ringfence", *words)

    def call(self, call: calls.Call) -> Any:
        """Ask its daemon."""
        with connect(self.lab.socket(self.name)) as daemon:
            return daemon.call(call)

    @property
    def log(self) -> str:
        """What its daemon has said."""
        return (self.lab.root(self.name) / "daemon.log").read_text()


class BareHost:
    """A /run and an lvm.conf, and no daemon."""

    def __init__(self, root: Path, disk: str) -> None:
        self.name = root.name
        self.disk = disk
        self.run = root / "run"
        self._lvm = root / "etc/lvm"
        self._lvm.mkdir(parents=True)
        self.run.mkdir()
        (self._lvm / "lvm.conf").write_text(lvm_conf(self._lvm, self.run / "lock/lvm", (disk,)))

    def popen(self, words: Sequence[str], streams: Sequence[int]) -> subprocess.Popen[bytes]:
        argv = [*_OWN_RUN, 'mount --bind "$0" /run && exec "$@"', str(self.run), *words]
        env = {**os.environ, "LVM_SYSTEM_DIR": str(self._lvm)}
        return subprocess.Popen(argv, env=env, stdin=streams[0], stdout=streams[1], stderr=streams[2])

    def start(self, *words: str) -> Started:
        return Started(lambda streams: self.popen(words, streams))


def done(started: Started, limit_s: float = LIMIT_S) -> str:
    """The command must succeed; what it printed."""
    ran = started.wait(limit_s)
    assert ran.code == 0, ran
    return ran.out


def refused(started: Started, limit_s: float = LIMIT_S) -> str:
    """The command must fail, as LVM2's do; what it said of it."""
    ran = started.wait(limit_s)
    assert ran.code == 5, ran
    return ran.err


def lvs(host: Host, vg: str) -> list[str]:
    """The names of its LVs as stock lvs reads them, but for ringfence's own."""
    words = ["lvs", "--noheadings", "-o", "lv_name", vg]
    return [name for name in done(host.start(*words)).split() if name != "ringfence_slots"]


def seqno(host: Host, vg: str) -> int:
    return int(done(host.start("vgs", "--noheadings", "-o", "vg_seqno", vg)))


def ailing(host: Host, vg: str) -> str:
    """What stock vgck finds wrong with the metadata; "": nothing."""
    ran = host.start("vgck", vg).wait()
    wrong = [line.strip() for line in ran.err.splitlines() if "Activation disabled" not in line]
    return "; ".join(wrong) or (f"exit code {ran.code}" if ran.code else "")


@contextlib.contextmanager
def stock_lab(nodes: int, ring: Ring = HUB) -> Iterator[Lab]:
    """A lab whose disk is a block device."""
    path = Path(tempfile.mkdtemp(prefix="rflv", dir="/tmp"))
    try:
        lab = Lab.up(path / "lab", nodes, SIZE_BYTES, PATIENT, ring=ring, loop=True)
        try:
            yield lab
        finally:
            lab.down()
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def loop(directory: Path) -> Iterator[str]:
    """A block device of a lab's size."""
    image = directory / "disk.img"
    with image.open("xb") as file:
        file.truncate(SIZE_BYTES)
    try:
        yield attach(image)
    finally:
        detach(image)


def start_vg(hosts: Sequence[Host], disk: Path | str, vg: str = "vg0") -> None:
    """A shared VG, made by stock LVM2 on the first of them, and started on all."""
    done(hosts[0].start("vgcreate", "-qq", "--shared", "-s", "1m", vg, str(disk)))
    for host in hosts[1:]:
        done(host.start("vgchange", "-qq", "--lockstart", vg))


def clear_vgs(hosts: Sequence[LabHost]) -> None:
    """No VG is on the hosts' disk any more, and none is started anywhere: for the next test."""
    vgs = done(hosts[0].start("vgs", "--noheadings", "-o", "name")).split()
    if vgs:
        for host in hosts:
            host.start("vgchange", "-qq", "-an", *vgs).wait()
    for host in hosts:
        for vg in vgs:
            host.call(calls.LvChange(vg, "", "n"))
    for vg in vgs:
        hosts[0].call(calls.VgChange("lockstart", vg))
        hosts[0].call(calls.VgRemove(vg, force=True))
    for host in hosts:
        for vg in VGS:
            with contextlib.suppress(NotFound):
                host.call(calls.LeaveSpace(f"lvm_{vg}", force=True))


class Written(NamedTuple):
    """What became of lvcreates."""

    succeeded: int
    """By their exit codes."""
    volumes: int
    """More than there were before; as the last host reads them."""
    versions: int
    """By which the VG's seqno went up."""
    wrong: str = ""
    """What vgck says."""


def many_writers(hosts: Sequence[Host], vg: str, writers: int, each: int) -> Written:
    """Stock lvcreates from all hosts at once."""
    before, first = len(lvs(hosts[0], vg)), seqno(hosts[0], vg)
    create = f"lvcreate -qq {' '.join(PLAIN)} -l1 -n $0-$i {vg}"
    script = f"done=0; for i in $(seq {each}); do {create} && done=$((done + 1)); done; echo $done"
    typed = [
        hosts[number % len(hosts)].start("sh", "-c", script, f"w{number}") for number in range(writers)
    ]
    succeeded = sum(int(done(one, 2 * LIMIT_S).split()[-1]) for one in typed)
    wrong = "; ".join(filter(None, (ailing(host, vg) for host in hosts)))
    if wrong and hosts[-1].start("vgs", vg).wait().code:
        return Written(succeeded, -before, -first, wrong)  # not even its text can be read any more
    return Written(succeeded, len(lvs(hosts[-1], vg)) - before, seqno(hosts[-1], vg) - first, wrong)


def until(true: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
    """Wait for what takes a moment."""
    give_up = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)
