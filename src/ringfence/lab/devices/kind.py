"""What there is to know of a kind of simulated device."""

import os
import shutil
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import msgspec

from ringfence.agents.process import AGENT_PATH
from ringfence.core.errors import Unavailable
from ringfence.lab.devices.model import Simulated
from ringfence.lab.lies import Lie


class Launch(msgspec.Struct, frozen=True):
    """How a simulator is started."""

    argv: list[str]
    env: dict[str, str] = {}


class Site(msgspec.Struct, frozen=True):
    """Where one simulator works, and with what."""

    dir: Path
    """Its own; there already."""
    power: Path
    """The power switch's socket."""
    password: str

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """A file of its own; by default nobody else may read it, for secrets stand in most of them."""
        path = self.dir / name
        path.unlink(missing_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "w") as file:
            os.fchmod(fd, mode)  # another thread may have narrowed the umask for a socket of its own
            file.write(text)
        return path


class Kind:
    name: ClassVar[str]
    bmc: ClassVar[bool]
    """Else it is a PDU."""
    udp: ClassVar[bool]
    """Else TCP."""
    agent: ClassVar[str]
    programs: ClassVar[Mapping[str, str]]
    """Program -> the Debian package that has it; the simulator's and the agent's."""
    modules: ClassVar[Mapping[str, str]] = {}
    """Python module -> the distribution that has it."""
    lies: ClassVar[Collection[Lie]]
    quick: ClassVar[Mapping[str, str]] = {"power_timeout": "8"}
    """What a lab tells the agent beside: its devices act at once, so that it need not be patient."""
    timeout_ms: ClassVar[int] = 20000
    """The agent's whole run at most: a status, an order, and some looks."""

    def check(self) -> None:
        """Raises Unavailable: names what is not installed."""
        missing = {name: where for name, where in self.programs.items() if find_program(name) is None}
        if missing:
            packages = " ".join(sorted(set(missing.values())))
            raise Unavailable(
                f"devices of kind {self.name} need {', '.join(missing)}", next=f"apt-get install {packages}"
            )
        absent = {name: where for name, where in self.modules.items() if find_spec(name) is None}
        if absent:
            raise Unavailable(
                f"devices of kind {self.name} need the Python module {', '.join(absent)}",
                next=f"pip install {' '.join(sorted(set(absent.values())))} (or: make .venv/.dev)",
            )

    def parameters(self, one: Simulated) -> dict[str, str]:
        """What the agent must be told; a PDU's without the plug."""
        raise NotImplementedError

    def secrets(self, password: str) -> dict[str, str]:
        return {"password": password}

    def launch(self, one: Simulated, site: Site) -> Launch:
        """Write the simulator's files.  Raises OSError."""
        raise NotImplementedError

    def show(self, site_dir: Path, supplies: Mapping[str, str]) -> None:
        """The state of its host's supplies has changed."""


def find_program(name: str) -> str | None:
    """Administrators' directories are looked through as well: agents are there, and daemons."""
    return shutil.which(name, path=AGENT_PATH)


def at(one: Simulated) -> dict[str, str]:
    return {"ip": one.address, "ipport": str(one.port)}
