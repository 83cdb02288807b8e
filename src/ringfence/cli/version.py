"""--version: which one it is, and which of its parts in C are in use."""

from importlib.metadata import version

from ringfence.block import fastpath
from ringfence.client import exchange


def version_lines() -> list[str]:
    """The first as every program has it.  Without C all is the same, and slower."""
    parts = {
        "client/exchange": "" if exchange.IN_C else "it was not built, or from another version of ringfence",
        "block/fastpath": fastpath.trouble(),
    }
    told = [f"{name} {f'no ({why})' if why else 'yes'}" for name, why in parts.items()]
    return [f"ringfence, version {version('ringfence')}", f"in C: {', '.join(told)}"]
