"""Where ringfence keeps what on a host.  One root moves everything (a lab host lives under its own)."""

from pathlib import Path

import msgspec


class Paths(msgspec.Struct, frozen=True):
    """All places below one root.  Nothing is created here."""

    root: Path = Path("/")

    @classmethod
    def meant(cls, root: Path | None, socket: str) -> "Paths":
        """Of the host that a command is about.

        Args:
            root: what the user named; goes first.
            socket: the daemon's socket that the environment names: `ringfence lab env` sets it, and whoever
                talks to a lab host's daemon means that host's files, too.
        """
        if root is None:
            below = cls().socket.parts[1:]
            parts = Path(socket).absolute().parts
            root = Path(*parts[: -len(below)]) if socket and parts[-len(below) :] == below else Path("/")
        return cls(root.absolute())

    # -- what the admin writes -------------------------------------------------

    @property
    def etc(self) -> Path:
        return self.root / "etc/ringfence"

    @property
    def file(self) -> Path:
        return self.etc / "ringfence.toml"

    @property
    def secrets(self) -> Path:
        """One file a device: SECRETS/DEVICE, lines of key=value, mode 0600."""
        return self.etc / "secrets"

    # -- what must survive a reboot ----------------------------------------------

    @property
    def var(self) -> Path:
        return self.root / "var/lib/ringfence"

    @property
    def disk_state(self) -> Path:
        """What the engine keeps: highest primary epoch, incarnation, victims."""
        return self.var / "state.json"

    @property
    def history(self) -> Path:
        return self.var / "history.db"

    @property
    def archive(self) -> Path:
        """Metadata of VGs as it was before each change that this host made."""
        return self.var / "archive"

    @property
    def backup(self) -> Path:
        """... and after the last one: BACKUP/VG."""
        return self.var / "backup"

    @property
    def incidents(self) -> Path:
        """The block service's incidents that no daemon has recorded yet."""
        return self.var / "incidents"

    @property
    def agents(self) -> Path:
        """What fence agents said of themselves; it may be lost."""
        return self.var / "agents.json"

    @property
    def hub_state(self) -> Path:
        """The hub's highest epoch."""
        return self.var / "hub.epoch"

    # -- what is gone after a reboot ---------------------------------------------

    @property
    def run(self) -> Path:
        return self.root / "run/ringfence"

    @property
    def socket(self) -> Path:
        """The daemon's client socket."""
        return self.run / "socket"

    @property
    def lvmlockd_socket(self) -> Path:
        """Where stock LVM2 looks for lvmlockd; of another root than / LVM_LVMLOCKD_SOCKET tells it."""
        return self.root / "run/lvm/lvmlockd.socket"

    @property
    def lvmlockd_pid(self) -> Path:
        """Without which it takes lvmlockd for not running."""
        return self.root / "run/lvmlockd.pid"

    @property
    def block_socket(self) -> Path:
        """The block service's control socket."""
        return self.run / "block"

    @property
    def hub_socket(self) -> Path:
        """Where a hub of this host's own listens, unless [hub] socket says otherwise."""
        return self.run / "hub"

    @property
    def dev(self) -> Path:
        """DEV/VG/LV is the socket of an active LV."""
        return self.run / "dev"

    @property
    def authority(self) -> Path:
        """Authority pages; see host.pages."""
        return self.run / "authority"

    @property
    def lvm_locks(self) -> Path:
        """Locks that stock LVM2 has through this daemon; see host.lvm_locks."""
        return self.run / "lvm-locks"

    @property
    def lock(self) -> Path:
        """Held by the one daemon of this root."""
        return self.run / "daemon.lock"
