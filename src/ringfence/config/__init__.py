"""The host's files: where they lie (`Paths`), ringfence.toml in and out, the devices' secrets.

Promises: a file that is wrong is refused with one line that names the file, the key and the cure;
nothing is guessed, no key is ignored.  What was loaded renders to a file that loads the same."""

from ringfence.config.checks import check_cluster
from ringfence.config.corosync_conf import differences, parse_corosync, render_corosync
from ringfence.config.load import Loaded, load, parse
from ringfence.config.paths import Paths
from ringfence.config.render import render
from ringfence.config.secrets import read_secrets
from ringfence.core.digest import digest_of_config as digest

__all__ = [
    "Loaded",
    "Paths",
    "check_cluster",
    "differences",
    "digest",
    "load",
    "parse",
    "parse_corosync",
    "read_secrets",
    "render",
    "render_corosync",
]
