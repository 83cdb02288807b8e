"""LVM2's commands that ringfence has none of: the refusal says how stock LVM2 does it."""

from __future__ import annotations

from ringfence.cli.verbs import ROOMS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = (
    "lvconvert lvdisplay lvmconfig lvmdevices lvmdiskscan lvscan pvchange pvdisplay pvscan vgconvert "
    "vgdisplay vgexport vgextend vgimport vgimportclone vgimportdevices vgmerge vgmknodes vgreduce vgrename "
    "vgscan vgsplit vgck vgcfgbackup vgcfgrestore pvremove pvresize pvck lvextend lvreduce lvresize "
    "lvrename"
)
COMMANDS = frozenset(_NAMES.split())


def refuse_stock_command(words: Sequence[str]) -> None:
    """Raises BadInput if this is one of them."""
    if words[0] in COMMANDS and words[0] not in ROOMS:
        from ringfence.cli.verbs.words import left_to_stock

        raise left_to_stock(words[0], words[0], [word for word in words[1:] if word != "--json"])
