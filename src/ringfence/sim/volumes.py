"""Admins at work: on every host one that makes VGs and LVs, activates, removes and lists them, and where a
story is about that (`Scenario.volumes`) grows and renames them.

They are clients like others (`workload`), with LVM2's verbs.  What a report says under locks must be
what the disks said at some moment between the question and the answer."""

from collections.abc import Callable
from typing import Any

from ringfence.sim.disk import DISKS
from ringfence.sim.host import Host
from ringfence.sim.metadata import Metadata
from ringfence.sim.safety import SafetyViolation
from ringfence.sim.scheduler import Scheduler
from ringfence.sim.storage import Trouble
from ringfence.sim.workload import Client, Workload
from ringfence.wire import client as calls
from ringfence.wire.client import Call, Reply

VG = "vg1"
LVS = ("lv0", "lv1", "lv2", "lv3")
EXTENT_BYTES = 16 << 10
VERBS = {
    "create": 10, "activate": 8, "shared": 3, "deactivate": 6, "remove": 7, "list": 2, "groups": 2,
    "lockstart": 1, "lockstop": 1, "vgcreate": 1, "vgremove": 0.3, "pvcreate": 0.3,
}  # fmt: skip
CHANGING = VERBS | {
    "create": 14, "activate": 14, "extend": 8, "rename": 4, "remove": 10, "pvmove": 8, "vgremove": 0,
}  # fmt: skip
"""Where it is LVs that matter."""

AT_A_HOST = 2
"""Admins, where it is LVs that matter: their commands meet at one of them."""


class Admins:
    """Args:
    pace_ms: how long one rests between two commands, at the most.
    idle: they do nothing.
    changing: they grow and rename LVs, too, and remove some without a wipe."""

    def __init__(
        self, scheduler: Scheduler, workload: Workload, hosts: list[Host], metadata: Metadata, pace_ms: float,
        *, idle: bool = False, changing: bool = False,
    ) -> None:
        self._scheduler, self._workload, self._metadata = scheduler, workload, metadata
        self._pace_ms = pace_ms
        self._idle = idle
        self._verbs = CHANGING if changing else VERBS
        self._changing = changing
        at_a_host = AT_A_HOST if changing else 1
        self._made = LVS[0]
        """The LV that somebody has asked for last."""
        self._devices = DISKS
        self.done = self.refused = self.listed = 0
        self.clients = [workload.add(host, self._next) for host in hosts for _ in range(at_a_host)]

    def _next(self, client: Client) -> None:
        host = client.host
        if not self._workload.busy:
            if self._workload.litters(host):
                self._workload.sweep(client)
            elif host.block.open:
                self._ask(client, calls.LvChange(VG, "", "n"))
            else:
                self._workload.rest(client, 400)
            return
        if self._idle:
            self._workload.rest(client, self._pace_ms)
            return
        if self._metadata.named(VG) is None and self._scheduler.chance(0.7):
            self._ask(client, calls.VgCreate(VG, self._devices, shared=True, extent_size_bytes=EXTENT_BYTES))
            return
        rng = self._scheduler.rng
        verb = rng.choices(list(self._verbs), list(self._verbs.values()))[0]
        if verb == "groups":
            self._report(client, calls.Vgs(VG))
        else:
            # Who has LVs open does not wait for others for ever: they may wait for these.
            wait_ms = rng.choice([0, 1000, 4000] if host.block.open else [None, None, 0, 4000])
            self._ask(client, self._call(verb, rng.choice(LVS), wait_ms))

    def _call(self, verb: str, lv: str, wait_ms: int | None) -> Call:
        rng = self._scheduler.rng
        match verb:
            case "create":
                activate = rng.choice(["ey", "n"])
                self._made = lv
                extents = rng.randrange(2, 6) if self._changing else rng.randrange(1, 4)
                return calls.LvCreate(VG, lv, extents=extents, activate=activate, wait_ms=wait_ms)
            case "activate":
                if self._changing and self._scheduler.chance(0.3):
                    lv = ""  # all there are, together
                elif self._changing and self._scheduler.chance(0.7):
                    lv = self._made  # perhaps before it is zeroed
                return calls.LvChange(VG, lv, "ey", wait_ms)
            case "shared":
                return calls.LvChange(VG, lv, "sy", wait_ms)
            case "deactivate":
                return calls.LvChange(VG, rng.choice(["", lv]), "n", wait_ms)
            case "remove":
                wipe = not self._changing or self._scheduler.chance(0.5)
                return calls.LvRemove(VG, lv, force=self._scheduler.chance(0.3), wipe=wipe)
            case "extend":
                return calls.LvResize(VG, lv, extents=rng.randrange(1, 4), sign="+")
            case "rename":
                return calls.LvRename(VG, lv, rng.choice(LVS))
            case "list":
                return calls.Lvs(VG)
            case "pvmove" if self._scheduler.chance(0.15):
                return calls.PvMove(abort=True, wait_ms=wait_ms)
            case "pvmove":
                which, asks = rng.choice(["", lv]), self._scheduler.chance(0.7)
                return calls.PvMove(rng.choice(DISKS), lv=which, background=asks, wait_ms=wait_ms)
            case "vgremove":
                return calls.VgRemove(VG, force=self._scheduler.chance(0.7))
            case "vgcreate":
                return calls.VgCreate(VG, self._devices, shared=True, extent_size_bytes=EXTENT_BYTES)
            case "pvcreate":
                return calls.PvCreate(self._devices[:1])
            case _:
                return calls.VgChange(verb, VG)

    def probe(self, host: Host) -> None:
        """When all is mended: the host lists the VG as it is on the disks.  Raises SafetyViolation."""
        committed = self._metadata.named(VG)
        if committed is None or host.daemon is None:
            return

        def then(reply: Reply) -> None:
            rows = reply.result["rows"] if reply.error is None else []
            if [row["vg_seqno"] for row in rows] != [committed.seqno]:
                said = rows or reply.error
                raise SafetyViolation(f"8: {host.name} lists {said}, not version {committed.seqno}")

        client = next(one for one in self.clients if one.host is host)
        self._workload.ask(client, calls.Vgs(VG), then)

    def _ask(self, client: Client, call: Call, then: Callable[[Reply], None] = lambda reply: None) -> None:
        def answered(reply: Reply) -> None:
            if reply.error is None:
                self.done += 1
                if call not in (calls.Lvs(VG), calls.Vgs(VG)):
                    self._scheduler.note(f"{client.host.name} {_words(call)}")
            else:
                self.refused += 1
                self._scheduler.note(f"{client.host.name} {_words(call)}: {reply.error['message']}")
            then(reply)
            self._workload.rest(client, self._pace_ms if self._workload.busy else 300)

        self._workload.ask(client, call, answered)

    def _report(self, client: Client, call: Call) -> None:
        before, asked_ns = self._metadata.named(VG), self._scheduler.now_ns

        def then(reply: Reply) -> None:
            storage = client.host.storage
            sick = storage.trouble is not Trouble.NONE or storage.troubled_ns >= asked_ns
            if before is None or sick or reply.error is not None or reply.result["stale"]:
                return
            after = self._metadata.named(VG)
            row: dict[str, Any] = next(iter(reply.result["rows"]))
            self.listed += 1
            same = after is not None and after.uuid == before.uuid == row["vg_uuid"]
            if same and after is not None and not before.seqno <= row["vg_seqno"] <= after.seqno:
                raise SafetyViolation(
                    f"8: {client.host.name} reports version {row['vg_seqno']} of {VG}, though it was at "
                    f"{before.seqno} when asked and is at {after.seqno}"
                )

        self._ask(client, call, then)


def _words(call: Call) -> str:
    fields = [
        str(getattr(call, name)) for name in ("action", "vg", "lv", "activate") if getattr(call, name, "")
    ]
    return " ".join([type(call).__name__.lower(), *fields])
