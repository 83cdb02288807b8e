"""A new cluster's files: from names, addresses and fence devices to one directory a host.

Promises: what is written loads, and corosync accepts it; a secret stands in files of mode 0600 alone, never
in ringfence.toml, in NEXT.txt or on a terminal; nothing that exists is overwritten unasked."""

from ringfence.config.setup.fence_words import levels_of
from ringfence.config.setup.files import KEY_BYTES, File, files_of
from ringfence.config.setup.nodes import nodes_of
from ringfence.config.setup.passwords import EVERY, with_passwords
from ringfence.config.setup.plan import Plan, plan_of, timing_for
from ringfence.config.setup.write import kept_from, write

__all__ = [
    "EVERY",
    "KEY_BYTES",
    "File",
    "Plan",
    "files_of",
    "kept_from",
    "levels_of",
    "nodes_of",
    "plan_of",
    "timing_for",
    "with_passwords",
    "write",
]
