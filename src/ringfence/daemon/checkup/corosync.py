"""corosync as it is set up here, and as it says that it runs; asked with its own tools.

They are processes, so that a corosync which stands still holds up nobody but them."""

import hashlib
import hmac
import re
from pathlib import Path

from ringfence.config import Paths
from ringfence.core.cluster import ClusterConfig
from ringfence.core.errors import RingfenceError
from ringfence.daemon.checkup.files import file_facts
from ringfence.host.probes import tool
from ringfence.wire.checkup import CorosyncFacts

TOOL_S = 2.0
_MEMBER = re.compile(r"^runtime\.members\.(\d+)\.status \(str\) = joined$", re.M)
_TOKEN = re.compile(r"^runtime\.config\.totem\.token \(u32\) = (\d+)$", re.M)
_QUORATE = re.compile(r"^Quorate:\s+(Yes|No)\s*$", re.M)
_SECURE = re.compile(r"^\s*(secauth:\s*on|crypto_(cipher|hash):\s*(?!none\b)\S+)", re.M | re.I)


def corosync_facts(paths: Paths, cluster: ClusterConfig) -> CorosyncFacts:
    directory = paths.root / "etc/corosync"
    text, key = _read(directory / "corosync.conf"), _read(directory / "authkey")
    members, quorate, token_ms, trouble = _asked()
    return CorosyncFacts(
        conf=_digest(text) if text is not None else "",
        key=_fingerprint(key) if key else "",
        key_file=file_facts(directory / "authkey"),
        encrypted=text is not None and _SECURE.search(text.decode(errors="replace")) is not None,
        members=members,
        quorate=quorate,
        token_ms=token_ms,
        trouble=trouble,
    )


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


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _fingerprint(key: bytes) -> str:
    """Tells keys apart and nothing else: a pseudo-random function of which the key is the key."""
    return hmac.new(key, b"ringfence: is this the same authkey", hashlib.sha256).hexdigest()[:16]
