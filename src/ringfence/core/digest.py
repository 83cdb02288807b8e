"""Digests of what must be equal on all nodes, whatever order its dicts were filled in."""

import hashlib
from typing import Any

import msgspec

from ringfence.core.cluster import DEFAULTS, ClusterConfig


def digest_of(value: Any) -> str:
    data = msgspec.msgpack.encode(msgspec.to_builtins(value, str_keys=True), order="deterministic")
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def digest_of_config(config: ClusterConfig) -> str:
    """As nodes compare it when they meet.  What is left out is in it too: as the defaults' number."""
    return digest_of((DEFAULTS, config))
