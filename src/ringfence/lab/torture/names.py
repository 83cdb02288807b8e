"""What a torture run's clients fight for."""

SPACES = ("app", "db")
RESOURCES = ("leader", "row1", "row2")
"""In each lockspace: for locks of all modes."""
COUNTER = "counter"
"""In each lockspace: the resource whose value block is read and written."""
VG = "vg0"
LVS = ("vm1", "vm2")
LV_SPACE = f"lvm_{VG}"
LV_SIZE_BYTES = 8 << 20
SLOTS = 64
"""Blocks of an LV that its writers write."""
