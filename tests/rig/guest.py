"""One guest: QEMU without KVM, its agent and its monitor.

What ends it is `close`; a guest that ends itself (a watchdog, a panic) ends its QEMU (-no-reboot)."""

import contextlib
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from build import Images

START_S = 90.0
COUNTED_KHZ = 1_000_000
"""Of the TSC where a nanosecond is an instruction."""


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Failed(AssertionError):
    """A command in a guest, or the guest itself."""


class Guest:
    """
    Args:
        number: 1, 2, ...; its address is 10.0.0.NUMBER.
        room: a directory of the rig for its sockets and its console.
        shared: images that every guest has, as /dev/vdb, /dev/vdc, ...
        network: QEMU's words for its network's back end ("socket,listen=...").
        counted: its clock goes on by a nanosecond an instruction, and leaps where it would sleep (QEMU's
            -icount): whatever else this machine does, the same work takes the same time.
    """

    def __init__(
        self, number: int, images: Images, project: Path, room: Path, shared: Sequence[Path], network: str,
        counted: bool = False,
    ) -> None:  # fmt: skip
        self.number = number
        self.name = f"g{number}"
        self._room = room / self.name
        self._room.mkdir()
        self.console = self._room / "console"
        self._agent_path, self._monitor_path = self._room / "agent", self._room / "qmp"
        threads, khz = ("single", COUNTED_KHZ) if counted else ("multi", _khz())
        words = [
            "qemu-system-x86_64", "-M", "q35", "-accel", f"tcg,thread={threads},tb-size=128", "-cpu", "max",
            "-m", "512", "-smp", "1", "-display", "none", "-nodefaults", "-no-user-config", "-no-reboot",
            "-kernel", str(images.kernel), "-initrd", str(images.initrd),
            "-append", f"console=ttyS0 quiet panic=-1 tsc=reliable tsc_early_khz={khz} mitigations=off"
            " random.trust_cpu=1 rdinit=/init",
            "-serial", f"file:{self.console}",
            "-qmp", f"unix:{self._monitor_path},server=on,wait=off",
            "-drive", f"file={images.root},format=raw,if=none,id=root,readonly=on,file.locking=off",
            "-device", "virtio-blk-pci,drive=root",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,path={self._agent_path},server=on,wait=off,id=ag",
            "-device", "virtserialport,chardev=ag,name=rig",
            "-fsdev", f"local,id=p,path={project},security_model=none,readonly=on",
            "-device", "virtio-9p-pci,fsdev=p,mount_tag=proj",
            "-netdev", f"{network},id=n0",
            "-device", f"virtio-net-pci,netdev=n0,id=net0,romfile=,mac=52:54:00:00:00:{number:02x}",
            "-device", "virtio-rng-pci", "-device", "vmgenid,guid=auto",
        ]  # fmt: skip
        for at, image in enumerate(shared):
            words += [
                "-drive", f"file={image},format=raw,if=none,id=sh{at},file.locking=off,cache=none",
                "-device", f"virtio-blk-pci,drive=sh{at},share-rw=on",
            ]  # fmt: skip
        if counted:
            words += ["-icount", "shift=0,sleep=off"]
        self.qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=(self._room / "qemu").open("wb"))
        self._ids = itertools.count(1)
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {0: queue.Queue()}
        self._agent: socket.socket | None = None

    def wait_ready(self) -> None:
        """Until its agent speaks, and its network has an address."""
        give_up = time.monotonic() + START_S
        self._agent = self._connect(self._agent_path, give_up)
        threading.Thread(target=self._listen, daemon=True).start()
        while self._answers[0].empty():
            if time.monotonic() > give_up or self.qemu.poll() is not None:
                raise Failed(f"{self.name} did not start: {self._tail()}")
            time.sleep(0.05)
        self.run("ip", "link", "set", "eth0", "up")
        self.run("ip", "address", "add", f"10.0.0.{self.number}/24", "dev", "eth0")
        self.run("hostname", self.name)

    def _connect(self, path: Path, give_up: float) -> socket.socket:
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(str(path))
                return sock
            except OSError:
                sock.close()
                if self.qemu.poll() is not None:
                    raise Failed(f"{self.name}: {(self._room / 'qemu').read_text()}") from None
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)

    def _tail(self) -> str:
        return self.console.read_text(errors="replace")[-1500:] if self.console.exists() else "no console"

    # -- commands -----------------------------------------------------------------

    def run(
        self, *words: str | Path, input: str = "", env: Mapping[str, str] | None = None, limit_s: float = 60,
        check: bool = True,
    ) -> Ran:  # fmt: skip
        """Run a command inside; raises Failed if it does not end well (unless `check` is false)."""
        request = {"run": [*map(str, words)], "input": input, "env": dict(env or {}), "limit_s": limit_s}
        answer = self._ask(request, limit_s + 20)
        ran = Ran(answer["code"], answer["out"], answer["err"])
        if check and ran.code != 0:
            raise Failed(f"{self.name}: {' '.join(map(str, words))}: rc {ran.code}: {ran.out}{ran.err}")
        return ran

    def spawn(self, *words: str | Path, log: str, env: Mapping[str, str] | None = None) -> int:
        """Start something that goes on.  Returns its pid inside."""
        answer = self._ask({"run": [str(one) for one in words], "spawn": log, "env": dict(env or {})}, 60)
        if "pid" not in answer:
            raise Failed(f"{self.name}: {answer}")
        return int(answer["pid"])

    def write(self, path: str, text: str, mode: str = "600") -> None:
        self.run("sh", "-c", f"mkdir -p $(dirname {path}) && cat > {path} && chmod {mode} {path}", input=text)

    def _ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        assert self._agent is not None
        id = next(self._ids)
        mine = self._answers[id] = queue.Queue()
        self._agent.sendall(json.dumps({"id": id, **request}).encode() + b"\n")
        try:
            return mine.get(timeout=limit_s)
        except queue.Empty:
            words = f"{self.name} did not answer {request['run']} in {limit_s:.0f} s"
            raise Failed(f"{words}: {self._tail()}") from None
        finally:
            del self._answers[id]

    def _listen(self) -> None:
        assert self._agent is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._agent.makefile("rb"):
                answer = json.loads(line)
                if (waiting := self._answers.get(answer["id"])) is not None:
                    waiting.put(answer)

    # -- what befalls it ----------------------------------------------------------

    def freeze(self) -> None:
        """As a host that stands still: its clocks go on."""
        os.kill(self.qemu.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.qemu.pid, signal.SIGCONT)

    def link(self, up: bool) -> None:
        """Cut its network, or heal it."""
        self._monitor("set_link", {"name": "net0", "up": up})

    def _monitor(self, command: str, arguments: dict[str, Any]) -> None:
        with self._connect(self._monitor_path, time.monotonic() + 5) as sock:
            lines = sock.makefile("rb")
            lines.readline()
            for one in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                sock.sendall(json.dumps(one).encode() + b"\n")
                while "return" not in (answer := json.loads(lines.readline())):
                    if "error" in answer:
                        raise Failed(f"{self.name}: {command}: {answer['error']}")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.thaw()
        self.qemu.kill()
        self.qemu.wait()


def _khz() -> int:
    """Of this machine's TSC, which the guests see."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("cpu MHz"):
            return int(float(line.partition(":")[2]) * 1000)
    raise Failed("/proc/cpuinfo names no frequency")
