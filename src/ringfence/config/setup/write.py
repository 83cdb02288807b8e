"""Writes a cluster's directory: all of it, or nothing.

It is written beside its place and then moved there.  What is there already is replaced only if asked, only
if it is such a directory, and what a person or chance made in it (authkey, node ids, secrets filled in) goes
on."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ringfence.config.load import parse
from ringfence.config.secrets import parse_secrets
from ringfence.config.setup.files import CLOSED, File
from ringfence.config.setup.plan import Plan
from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import BadInput, ConfigError, Refused

MARK = "NEXT.txt"
KEY_SIZES = range(128, 4097)


class Kept(msgspec.Struct, frozen=True):
    """What an earlier directory of this cluster holds that no command line can say again."""

    authkey: bytes = b""
    ids: dict[str, int] = {}
    """By node name."""
    secrets: dict[str, dict[str, str]] = {}
    version: int = 0
    """The highest of any host's file; 0: there is none."""

    def into(self, plan: Plan) -> Plan:
        """With what was filled in; what the plan says itself wins.

        Hosts that stay keep their node ids, and newcomers get ids that nobody had: in what hosts remember a
        node is its id, so when a host is taken out the others must not move up."""
        filled = []
        for secret in plan.secrets:
            values = {**self.secrets.get(secret.device, {}), **secret.values}
            missing = () if values else secret.missing
            filled.append(msgspec.structs.replace(secret, values=values, missing=missing))
        # Hosts go by the newer version: a changed file with an old one would be taken for what it replaces.
        version = max(plan.config.version, self.version + 1)
        config = msgspec.structs.replace(plan.config, version=version)
        plan = msgspec.structs.replace(plan, config=config, secrets=tuple(filled))
        if plan.imported:  # there the ids are those of the cluster that runs
            return plan
        fresh = itertools.count(max(self.ids.values(), default=0) + 1)
        nodes = [
            msgspec.structs.replace(node, id=self.ids.get(node.name) or next(fresh))
            for node in plan.config.nodes
        ]
        config = msgspec.structs.replace(plan.config, nodes=tuple(sorted(nodes, key=lambda node: node.id)))
        return msgspec.structs.replace(plan, config=config)


def kept_from(out: Path, force: bool) -> Kept:
    """Look whether `out` may be written, and what of it goes on.

    Raises:
        Refused: it is there and `force` was not given, or it is something else.
        BadInput: its place cannot be read or written.
    """
    try:
        return _kept_from(out, force)
    except OSError as error:
        raise BadInput(f"cannot read {out}: {error.strerror}", next="choose another --out") from None


def _kept_from(out: Path, force: bool) -> Kept:
    if not out.exists():
        if not out.absolute().parent.is_dir():
            raise BadInput(f"there is no directory {out.absolute().parent}", next="make it, or another --out")
        return Kept()
    if not out.is_dir():
        raise Refused(f"{out} is there and no directory", next="choose another --out")
    if not any(out.iterdir()):
        return Kept()
    if not (out / MARK).is_file():
        raise Refused(f"{out} holds something else", next="choose another --out")
    if not force:
        raise Refused(
            f"{out} is there already",
            next="--force writes it anew; its authkey and the secrets of devices that stay go on",
        )
    keys = [path.read_bytes() for path in sorted(out.glob("*/authkey"))]
    secrets = {path.name: parse_secrets(path) for path in sorted((out / "secrets").glob("*"))}
    found = _configs(out)
    ids = {node.name: node.id for node in found[0].nodes} if found else {}
    version = max((one.version for one in found), default=0)
    return Kept(next((key for key in keys if len(key) in KEY_SIZES), b""), ids, secrets, version)


def _configs(out: Path) -> list[ClusterConfig]:
    """Of each host's file that can be read; a person may have edited them."""
    found = []
    for path in sorted(out.glob("*/ringfence.toml")):
        try:
            found.append(parse(path.read_text(encoding="utf-8")).cluster)
        except (ConfigError, UnicodeDecodeError):
            continue
    return found


def write(files: Sequence[File], out: Path) -> None:
    """Only its owner may look into the directory.  Raises BadInput: the place cannot be written."""
    place = out.resolve()
    try:
        new = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))  # mode 0700
        try:
            for file in files:
                _write(new / file.path, file.data, file.mode)
            _exchange(new, place)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror}", next="choose another --out") from None


def _exchange(new: Path, place: Path) -> None:
    """Killed between the moves it leaves the old one as `new`/.old; else one of them is in place."""
    if not place.exists():
        new.rename(place)
        return
    old = new / ".old"
    place.rename(old)
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(place / ".old")


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(
        mode=0o700 if mode == CLOSED and path.parent.name == "secrets" else 0o755, exist_ok=True
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, CLOSED), "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), mode)  # whatever the umask
