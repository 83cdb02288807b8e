"""LVM2's device filters: lists of a|regex| and r|regex|.

The first that matches any name of a device decides, none means accepted; devices/filter and global_filter
must both accept.  Source: lvm.conf(5), LVM2 lib/filters/filter-regex.c."""

import re
from collections.abc import Sequence


def accepts(rules: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a filter lets a device with these names through; what is no rule decides nothing."""
    for rule in rules:
        action, mark, rest = rule[:1], rule[1:2], rule[2:]
        mark = {"(": ")", "[": "]", "{": "}"}.get(mark, mark)
        if action not in ("a", "r") or not mark or mark not in rest:
            continue
        try:
            found = any(re.search(rest[: rest.rindex(mark)], name) for name in names)
        except re.error:
            continue
        if found:
            return action == "a"
    return True


def rejects_of(vgs: Sequence[str], disks: Sequence[str]) -> list[str]:
    """Rules that keep LVM2 out of the LVs of shared VGs, and of devices through which a guest's disk is read.

    Args: disks: devices that hold PVs of shared VGs; a rule that would reject one is left out."""
    rules = ["r|^/dev/nbd|", "r|^/run/ringfence/|"]
    for vg in sorted(vgs):
        rules += [f"r|^/dev/mapper/{_literal(vg.replace('-', '--'))}-[^-]|", f"r|^/dev/{_literal(vg)}/|"]
    return [rule for rule in rules if all(accepts([rule], (disk,)) for disk in disks)]


def _literal(name: str) -> str:
    """Without backslashes, of which LVM2's configuration would want more."""
    return name.replace(".", "[.]").replace("+", "[+]")


def is_inside(device: str, vgs: Sequence[str], disks: Sequence[str]) -> bool:
    """Whether a device is, or leads to, a volume that may be a guest's disk."""
    return not accepts(rejects_of(vgs, disks), (device,))
