"""The configuration's digest, as nodes compare it when they meet."""

from ringfence.core.cluster import ClusterConfig
from ringfence.engine.digest import digest_of_config


def digest(config: ClusterConfig) -> str:
    return digest_of_config(config)
