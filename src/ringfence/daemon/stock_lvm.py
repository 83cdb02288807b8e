"""Stock LVM2's own commands, run by the daemon: today only `lvchange --refresh`.

Each is a process group of its own, under a limit.  At the limit it is asked to end, and killed only if it
does not: a killed command can leave a table suspended, and whoever writes there waits for ever.  A life that
is lost kills all of them at once (`end_all`), before tables are cut: a command that goes on could load anew
what was cut.  None outlives a daemon that is killed, either (prctl(2), PR_SET_PDEATHSIG): the next one knows
nothing of it.  What it leaves suspended then is reloaded by the next one, or cut."""

import asyncio
import shutil
import time
from collections.abc import Mapping

from ringfence.agents.process import AGENT_PATH, Running
from ringfence.core.errors import Unavailable
from ringfence.engine.orders import LvmRan, RefreshLvs

LVM = "lvm"
WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""Becomes the command that follows, which ends with this process (setpriv(1))."""
KEPT = ("LVM_", "DM_")
"""What of the daemon's environment goes to LVM2: which configuration, which devices (lvm(8), dmsetup(8))."""
ENDS_S = 10.0
"""How long a command may take to end once it is asked to."""
KILLED_S = 1.0
"""How long a killed one is waited for."""
CHECK_S = 0.02


class LvmCommands:
    """Fulfils `ports.StockLvm`.

    Args:
        environment: the daemon's.  LVM_BINARY in it names another program than `lvm`, as for LVM2's own
            scripts (fsadm(8))."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        own = {name: value for name, value in environment.items() if name.startswith(KEPT)}
        self._environment = {
            **own, "PATH": AGENT_PATH, "LC_ALL": "C.UTF-8", "LVM_SUPPRESS_FD_WARNINGS": "1",
        }  # fmt: skip
        self._program = environment.get("LVM_BINARY", LVM)
        self._running: list[Running] = []

    async def refresh(self, order: RefreshLvs) -> LvmRan:
        path = _find(self._program, "lvm2")
        with_us = (_find(WITH_US[0], "util-linux"), *WITH_US[1:])
        names = [f"{order.vg}/{lv}" for lv in order.lvs]
        words = (*with_us, path, "lvchange", "--refresh", "--partial", "--nolocking", *names)
        return await self._run(words, order.limit_ms / 1000)

    async def _run(self, words: tuple[str, ...], limit_s: float) -> LvmRan:
        began_s = time.monotonic()
        process = Running(words, environment=self._environment)
        self._running = [one for one in self._running if not one.gone] + [process]
        try:
            late = await process.ended(b"", asyncio.Event(), limit_s)
            if late:
                process.ask_to_end()
                await process.ended(b"", asyncio.Event(), ENDS_S)
            code = await process.buried()
        finally:
            process.close()
        said = process.err.text({}) or process.out.text({})
        ended_well = not late and code is not None and code >= 0 and process.gone
        return LvmRan(code if ended_well else None, said, int((time.monotonic() - began_s) * 1000))

    async def end_all(self) -> None:
        for process in self._running:
            process.kill()
        give_up_s = time.monotonic() + KILLED_S
        while not all(process.gone for process in self._running):
            if time.monotonic() > give_up_s:
                raise Unavailable("a command of stock LVM2 goes on though it was killed", retry=True)
            await asyncio.sleep(CHECK_S)


def _find(program: str, package: str) -> str:
    path = shutil.which(program, path=AGENT_PATH)
    if path is None:
        raise Unavailable(f"{program} is not on this host", next=f"install the package {package}")
    return path
