"""corosync as it is set up here, and as it says that it runs; asked with its own tools.

They are processes, so that a corosync which stands still holds up nobody but them."""

import hashlib
import hmac
import re
from pathlib import Path

import msgspec

from ringfence.config import Paths
from ringfence.config.corosync_conf import CorosyncConf, differences, parse_corosync
from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import ConfigError, RingfenceError
from ringfence.daemon.checkup.files import file_facts
from ringfence.host.probes import tool
from ringfence.wire.checkup import CorosyncFacts

TOOL_S = 2.0
_MEMBER = re.compile(r"^runtime\.members\.(\d+)\.status \(str\) = joined$", re.M)
_TOKEN = re.compile(r"^runtime\.config\.totem\.token \(u32\) = (\d+)$", re.M)
_QUORATE = re.compile(r"^Quorate:\s+(Yes|No)\s*$", re.M)


def corosync_facts(paths: Paths, cluster: ClusterConfig) -> CorosyncFacts:
    directory = paths.root / "etc/corosync"
    conf, disagreements = _conf(directory / "corosync.conf", cluster)
    try:
        key = (directory / "authkey").read_bytes()
    except OSError:
        key = b""
    members, quorate, token_ms, trouble = _asked()
    return CorosyncFacts(
        conf=_digest(conf) if conf is not None else "",
        key=_fingerprint(key) if key else "",
        key_file=file_facts(directory / "authkey"),
        encrypted=conf is not None and conf.encrypted,
        differences=disagreements,
        members=members,
        quorate=quorate,
        token_ms=token_ms,
        trouble=trouble,
    )


def _conf(path: Path, cluster: ClusterConfig) -> tuple[CorosyncConf | None, tuple[str, ...]]:
    """What the file says, if it says anything; and where that disagrees with ringfence.toml."""
    try:
        conf = parse_corosync(path.read_text(encoding="utf-8", errors="replace"), str(path))
    except FileNotFoundError:
        return None, (f"there is no {path}",)
    except OSError as error:
        return None, (f"cannot read {path}: {error.strerror}",)
    except ConfigError as error:
        return None, (str(error),)
    return conf, tuple(differences(cluster, conf))


def _asked() -> tuple[tuple[int, ...] | None, bool | None, int | None, str]:
    try:
        runtime = tool(("corosync-cmapctl", "runtime."), TOOL_S)
        quorum = tool(("corosync-quorumtool", "-s"), TOOL_S)
    except RingfenceError as error:
        return None, None, None, str(error)
    return read_runtime(runtime, quorum)


def read_runtime(runtime: str, quorum: str) -> tuple[tuple[int, ...] | None, bool | None, int | None, str]:
    """(members, quorate, token_ms, "") from what the tools print; None where they do not say."""
    members = tuple(sorted(int(node) for node in _MEMBER.findall(runtime)))
    token, quorate = _TOKEN.search(runtime), _QUORATE.search(quorum)
    return (
        members or None,
        quorate[1] == "Yes" if quorate else None,
        int(token[1]) if token else None,
        "",
    )


def _digest(conf: CorosyncConf) -> str:
    """Of what corosync makes of the file: comments, paths and logging may differ from host to host."""
    return hashlib.blake2b(msgspec.msgpack.encode(conf), digest_size=8).hexdigest()


def _fingerprint(key: bytes) -> str:
    """Tells keys apart and nothing else: a pseudo-random function of which the key is the key."""
    return hmac.new(key, b"ringfence: is this the same authkey", hashlib.sha256).hexdigest()[:16]
