"""Two hosts with a real corosync and a real Pacemaker each, and switches that are files.

A host is a namespace of each kind (network, mounts, processes, name), so that Pacemaker finds its own
/run, /dev/shm and /var/lib/pacemaker there, and goes with all its children when the host's first process
is killed.  Its /usr/sbin has agents of the stock names that switch a file and write down that they did."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ringfence.client import Connection, connect
from ringfence.config import Paths, render
from ringfence.core.cluster import ClusterConfig, NodeConfig, Timing
from ringfence.core.errors import RingfenceError
from ringfence.lab.corosync import CorosyncFiles, new_key, remove_leftovers
from ringfence.lab.network import Network, address

TOKEN_MS = 1000
UP_S = 90.0
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
KEPT = ("cib", "pengine", "cores", "blackbox")
SWITCH = Path(__file__).with_name("fence_switch.py")
MOUNTS = """
mount --bind "$1/run" /run &&
mount -t tmpfs lab /dev/shm &&
mount --bind "$1/pacemaker" /var/lib/pacemaker &&
mount -t overlay lab -o "lowerdir=$2:/usr/sbin" /usr/sbin &&
hostname "$3" && : > "$1/up" && exec sleep infinity
"""
CIB = """<cib crm_feature_set="3.0.14" validate-with="pacemaker-3.0" admin_epoch="1" epoch="1"
num_updates="0"><configuration><crm_config><cluster_property_set id="all">
<nvpair id="deadtime" name="dc-deadtime" value="1s"/><nvpair id="action" name="stonith-action" value="off"/>
<nvpair id="stonith" name="stonith-enabled" value="true"/>
</cluster_property_set></crm_config><nodes/><resources>{devices}</resources><constraints/>
<fencing-topology>{levels}</fencing-topology></configuration><status/></cib>
"""


class Host:
    """One host; what runs in it ends with `close`."""

    def __init__(self, name: str, root: Path, sbin: Path, network: str) -> None:
        self.name = name
        self.root = root
        self._network = network
        self._inside: list[subprocess.Popen[bytes]] = []
        self._first = subprocess.Popen(
            ["nsenter", f"--net={network}", "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork",
             "--kill-child", "--mount-proc", "sh", "-c", MOUNTS, "sh", str(root), str(sbin), name],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        give_up = time.monotonic() + 60
        while not (root / "up").exists():
            assert time.monotonic() < give_up, f"{name} has no namespaces"
            time.sleep(0.02)

    def argv(self, words: Sequence[str]) -> list[str]:
        first = f"/proc/{self._first.pid}/ns"
        inside = [f"--{kind}={first}/{kind}" for kind in ("uts", "ipc")]
        return [
            "nsenter", f"--net={self._network}", f"--mount={first}/mnt", *inside,
            f"--pid={first}/pid_for_children", *words,
        ]  # fmt: skip

    def start(self, words: Sequence[str], name: str = "", **environment: str) -> None:
        with (self.root / f"{name or Path(words[0]).name}.out").open("wb") as out:
            started = subprocess.Popen(
                self.argv(words), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={"PATH": PATH, **environment},
            )  # fmt: skip
        self._inside.append(started)

    def run(self, *words: str, stdin: str = "", limit_s: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(words), input=stdin, text=True, capture_output=True, timeout=limit_s, check=False,
            env={"PATH": PATH, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    def freeze(self) -> None:
        """Every process in it stands still: it says nothing more, and would go on where it is."""
        ours = os.readlink(f"/proc/{self._first.pid}/ns/pid_for_children")
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and os.readlink(entry / "ns/pid") == ours:
                    os.kill(int(entry.name), signal.SIGSTOP)

    def close(self) -> None:
        """As power goes: all its processes at once.  May be called twice."""
        for one in (self._first, *self._inside):
            one.kill()  # nsenter, too: it stands still with what it waits for
            one.wait()
            remove_leftovers(one.pid)


class PacemakerWorld:
    """Hosts n1 and n2, Pacemaker on both with a leader.

    Args:
        devices: primitives of class stonith, as XML (`primitive`).
        levels: fencing-level elements.
    """

    def __init__(self, devices: str, levels: str = "") -> None:
        self.dir = Path(tempfile.mkdtemp(dir="/tmp", prefix="rfpcmk"))
        self.switch = self.dir / "switch"
        self.timing = Timing(token_ms=TOKEN_MS, grant_ms=TOKEN_MS, grace_ms=2000)
        self.hosts: dict[int, Host] = {}
        self._network = Network(2)
        try:
            self._install()
            self._configure(CIB.format(devices=devices, levels=levels))
            self._up()
        except BaseException:
            self.close()
            raise

    def _install(self) -> None:
        """Agents of these names: they are what a level of Pacemaker's is made of."""
        self.switch.mkdir()
        sbin = self.dir / "sbin"
        sbin.mkdir()
        (sbin / "fence_ringfence").symlink_to(Path(sys.executable).with_name("fence_ringfence"))
        for name in ("fence_ipmilan", "fence_apc", "fence_scsi"):
            text = SWITCH.read_text().replace("@STATE@", str(self.switch))
            (sbin / name).write_text(f"#!{sys.executable} -IS\n{text}")
            (sbin / name).chmod(0o755)

    def _configure(self, cib: str) -> None:
        nodes = tuple(NodeConfig(one, f"n{one}", addresses=(address(one),), manual=True) for one in (1, 2))
        config = ClusterConfig("lab", ring="corosync", two_node=True, timing=self.timing, nodes=nodes)
        key = new_key()
        self.dir.chmod(0o755)  # Pacemaker's daemons are not all root
        for number, namespace in self._network.hosts.items():
            root = self.dir / f"n{number}"
            CorosyncFiles(root).write(config, "udpu", key)
            for name in ("run", "log", *(f"pacemaker/{one}" for one in KEPT)):
                (root / name).mkdir(parents=True)
            (root / "pacemaker/cib/cib.xml").write_text(cib)
            for path in (root / "log", root / "pacemaker", *(root / "pacemaker").rglob("*")):
                shutil.chown(path, "hacluster", "haclient")
            self.hosts[number] = Host(f"n{number}", root, self.dir / "sbin", namespace.path)

    def _up(self) -> None:
        for host in self.hosts.values():
            host.start(CorosyncFiles(host.root).argv())
        for host in self.hosts.values():
            eventually(lambda host=host: host.run("corosync-cpgtool").returncode == 0, host)
            host.start(
                ["pacemakerd"], PCMK_logfile=str(host.root / "log/pacemaker.log"), PCMK_logfacility="none"
            )
        for host in self.hosts.values():
            eventually(lambda host=host: "Online: [ n1 n2 ]" in host.run("crm_mon", "-1").stdout, host)

    def settle(self) -> None:
        """Wait until Pacemaker's leader has carried out its first plan.  Its nodes are online before, but
        until then it plans nothing for one that is lost."""
        for host in self.hosts.values():
            eventually(lambda host=host: self._has_planned(host), host)

    def _has_planned(self, host: Host) -> bool:
        told = host.run("crmadmin", "-S", host.name).stdout
        return any(state in told for state in ("S_IDLE", "S_NOT_DC"))

    def join(self, config: ClusterConfig) -> None:
        """Start ringfence on both hosts, over their corosync; returns once both are ready."""
        config = msgspec.structs.replace(config, ring="corosync", two_node=True, timing=self.timing)
        for host in self.hosts.values():
            paths = Paths(host.root)
            paths.etc.mkdir(parents=True)
            paths.file.write_text(render(config))
            (host.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
            (host.root / "run/boot_id").write_text(f"{uuid.uuid4()}\n")
            own = ["--root", str(host.root)]
            host.start([sys.executable, "-m", "ringfence.block", *own], "block")
            host.start([sys.executable, "-m", "ringfence", "daemon", "--node", host.name, *own], "daemon")
        for host in self.hosts.values():
            eventually(lambda host=host: len(self._ready(host)) == 2, host)

    def _ready(self, host: Host) -> list[str]:
        try:
            with self.daemon(host) as daemon:
                return [one["name"] for one in daemon.status()["members"] if one["state"] == "ready"]
        except RingfenceError:
            return []

    def daemon(self, host: Host) -> Connection:
        """To the one on this host.  Raises Unavailable."""
        return connect(Paths(host.root).socket, retry_ms=0)

    @contextlib.contextmanager
    def fed_by(self, plug: str, host: Host) -> Iterator[None]:
        """As long as the block runs, the host loses its power when the plug goes off."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.02):
                if self.power(plug) == "off":
                    host.close()
                    return

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()

    def power(self, plug: str) -> str:
        return (self.switch / plug).read_text() if (self.switch / plug).exists() else "on"

    def set(self, plug: str, power: str) -> None:
        (self.switch / plug).write_text(power)

    def lie(self, plug: str, way: str) -> None:
        """ignored | unreachable | slow (2 s an off) | "" for the truth."""
        (self.switch / f"{plug}.lie").write_text(way)

    def switched(self) -> list[str]:
        """What the switch was asked to do, "fence_ipmilan off bmc2" a line, without the looks."""
        log = self.switch / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if line.split()[1] in ("on", "off", "reboot")]

    def forget(self) -> None:
        """All plugs on, no lies, nothing asked."""
        for path in self.switch.iterdir():
            path.unlink()

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()
        self._network.close()
        shutil.rmtree(self.dir, ignore_errors=True)


def primitive(id: str, agent: str, **parameters: str) -> str:
    """A device, as Pacemaker's configuration has it."""
    pairs = "".join(
        f'<nvpair id="{id}-{key}" name="{key}" value="{value}"/>' for key, value in parameters.items()
    )
    return (
        f'<primitive id="{id}" class="stonith" type="{agent}">'
        f'<instance_attributes id="{id}-all">{pairs}</instance_attributes></primitive>'
    )


def level(target: str, index: int, *devices: str) -> str:
    names = ",".join(devices)
    return f'<fencing-level id="{target}-{index}" target="{target}" index="{index}" devices="{names}"/>'


def eventually(holds, host: Host, within_s: float = UP_S) -> None:
    give_up = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > give_up:
            told = "".join(path.read_text(errors="replace")[-3000:] for path in host.root.glob("*.out"))
            raise AssertionError(f"{host.name}: not within {within_s:g} s; {told}")
        time.sleep(0.1)
