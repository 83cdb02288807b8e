"""What goes wrong in a world: `fault` says what a fault is, the other modules which there are."""

from ringfence.sim.faults.disks import (
    LateOrders,
    MidOrder,
    MidWrite,
    OwnDiskFault,
    SharedDisk,
    SlotArray,
    SlotRot,
    StuckPaths,
)
from ringfence.sim.faults.fault import Arena, Fault, parse_fault
from ringfence.sim.faults.fencing import (
    Calm,
    Devices,
    Disarm,
    HandBack,
    HandOver,
    Leave,
    LockStop,
    Order,
    Sign,
    Typed,
    Unplug,
)
from ringfence.sim.faults.hosts import (
    AnotherMachine,
    ClockJump,
    ClockRate,
    FreezeDaemon,
    FreezeHost,
    FreezeReady,
    FreezeRenewed,
    FreezeWriter,
    KillDaemon,
    MidStep,
    PowerOff,
    Upgrade,
    WallJump,
)
from ringfence.sim.faults.ring import Cut, Deaf, FreezeRing, PathCut, RingLost, RingStill, SlowRing, SwitchOff

__all__ = [
    "AnotherMachine", "Arena", "Calm", "ClockJump", "ClockRate", "Cut", "Deaf", "Devices", "Disarm",
    "Fault", "FreezeDaemon", "FreezeHost", "FreezeReady", "FreezeRenewed", "FreezeRing",
    "FreezeWriter", "HandBack", "HandOver", "KillDaemon", "LateOrders", "Leave", "LockStop",
    "MidOrder", "MidStep", "MidWrite", "Order", "OwnDiskFault", "PathCut", "PowerOff", "RingLost",
    "RingStill", "SharedDisk", "Sign", "SlotArray", "SlotRot", "SlowRing", "StuckPaths",
    "SwitchOff", "Typed", "Unplug", "Upgrade", "WallJump", "parse_fault",
]  # fmt: skip
