"""A new cluster's files: from names, addresses and fence devices to one directory a host.

Promises: what is written loads, and corosync accepts it; a secret stands in files of mode 0600 alone, never
in ringfence.toml, in NEXT.txt or on a terminal; nothing that exists is overwritten unasked."""

from ringfence.config.setup.agents import Sort, confirms_of, stock_agent
from ringfence.config.setup.files import File, files_of
from ringfence.config.setup.nodes import nodes_of
from ringfence.config.setup.plan import Plan, Secret, plan_of, timing_for
from ringfence.config.setup.write import kept_from, write

__all__ = [
    "File",
    "Plan",
    "Secret",
    "Sort",
    "confirms_of",
    "files_of",
    "kept_from",
    "nodes_of",
    "plan_of",
    "stock_agent",
    "timing_for",
    "write",
]
