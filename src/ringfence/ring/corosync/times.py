"""corosync's own token against ringfence.toml's: which differences are harmless.

Grant authority must be over before anybody can have gone on without this node, so it is bound by the
time in which corosync *really* detects a loss (token + consensus).  If that is not longer than `grant_ms`
this node does not join.  Any other difference costs no safety: the purge bound does not depend on the
token.  A longer real token delays failover; a shorter one finds losses earlier than the file promises."""

from ringfence.core.cluster import Timing
from ringfence.core.errors import ConfigError


def unsafe(timing: Timing, token_ms: int, consensus_ms: int) -> None:
    """Raises ConfigError if this node must not join.  0: corosync does not say."""
    detection_ms = token_ms + consensus_ms
    if token_ms and timing.grant_ms >= detection_ms:
        raise ConfigError(
            f"corosync detects a loss after {detection_ms} ms (token {token_ms}, consensus {consensus_ms}), "
            f"and grant_ms = {timing.grant_ms} is not below that: this node could report grants after the "
            "others went on",
            next="raise token in corosync.conf or lower [timing] grant_ms; this node stays out until then",
        )


def compare(timing: Timing, token_ms: int, consensus_ms: int) -> str:
    """What a person should know of the difference; empty: there is none."""
    detection_ms = token_ms + consensus_ms
    if not token_ms or (token_ms, detection_ms) == (timing.token_ms, timing.detection_ms):
        return ""
    return (
        f"corosync's token is {token_ms} ms and its detection time {detection_ms} ms, ringfence.toml says "
        f"{timing.token_ms} and {timing.detection_ms}: make token in corosync.conf and [timing] token_ms the "
        "same, with token_coefficient: 0"
    )
