"""Stock LVM2 at work on hosts that lose daemons, power, quorum and time: no LV is active on two of them.

The truth is kept here.  A table writes, and a command changes metadata, with nobody's authority asked, until
its host has no power, it is cut, or it ends by itself.  Devices say the truth, if they work: a lie would free
what an unchecked path writes to, and that is known (ARCHITECTURE, *What is prevented*)."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from engine_ring import Host, World

from ringfence.core.evidence import Power
from ringfence.engine import inputs, leaving
from ringfence.engine.lvm_notes import LvmNotes
from ringfence.engine.views import Views
from ringfence.wire import client as calls
from ringfence.wire.lvmlockd import LvmAsked

LVS = ("a", "b")
ROUNDS = 250
SEEDS = range(4)


class TwoWriters(Exception):
    """The promise is broken."""


class Command:
    """A command of LVM2 on a host: requests one after the other, and what it does between them."""

    def __init__(self, host: Host, pid: int, kind: str, lv: str) -> None:
        self.host, self.pid, self.kind, self.lv = host, pid, kind, lv
        self.step = 0
        self.answers = 0
        self.waits = False
        self.changes = False
        """It holds the VG's lock to change metadata, and may write."""

    @property
    def runs(self) -> bool:
        return self.host.processes.get(self.pid) == 1000 + self.pid

    def ask(self, op: str, **fields: Any) -> None:
        asked = LvmAsked(
            op, self.pid, 1000 + self.pid, cmd="lvcmd", vg_name="vg0", vg_lock_type="dlm", **fields
        )
        self.answers = len(self.host.lvm_answers)
        self.waits = True
        self.host.lvm(self.pid, asked)

    def answer(self) -> int | None:
        for client, answered in self.host.lvm_answers[self.answers :]:
            if client == self.pid:
                self.waits = False
                return answered.result
        return None


class Truth:
    def __init__(self, directory: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World(directory, 3)
        self.commands: list[Command] = []
        self.pid = 10
        self.did: Counter[str] = Counter()
        self.world.pass_ms(1000)

    def run(self) -> None:
        for _ in range(ROUNDS):
            getattr(self, self.chance.choice(ACTIONS))()
            self.check()
            for command in list(self.commands):
                self.go_on(command)
                self.check()
            self.world.pass_ms(self.chance.choice([50, 100, 100, 400]))
            self.check()

    def check(self) -> None:
        hosts = [one for id, one in self.world.hosts.items() if self.world.power[id] is Power.ON]
        for lv in LVS:
            active = [one.name for one in hosts if f"vg0/{lv}" in one.tables]
            if len(active) > 1:
                raise TwoWriters(f"vg0/{lv} is active on {' and '.join(active)}")
        changing = [one for one in self.commands if one.changes and one.runs and one.host in hosts]
        if len({one.host.id for one in changing}) > 1:
            raise TwoWriters(f"vg0 is changed on {' and '.join(one.host.name for one in changing)}")

    # -- commands ---------------------------------------------------------------------

    def begin(self, kind: str) -> None:
        host = self.chance.choice(list(self.world.hosts.values()))
        if host.node is None or host.frozen or len(self.commands) > 6:
            return
        self.pid += 1
        host.processes[self.pid] = 1000 + self.pid
        self.commands.append(Command(host, self.pid, kind, self.chance.choice(LVS)))

    def activates(self) -> None:
        self.begin("activate")

    def deactivates(self) -> None:
        self.begin("deactivate")

    def changes(self) -> None:
        self.begin("change")

    def go_on(self, command: Command) -> None:
        """Its next step, if it is not in the middle of something."""
        host = command.host
        if host.frozen:
            return
        if not command.runs:
            self.end(command)
            return
        if command.waits and host.node is not None:
            result = command.answer()
            if result is None:
                return
            if result < 0 and command.step == 1:
                self.end(command)  # the VG is not to be had
                return
        elif command.waits and not command.changes:
            self.end(command)  # its connection is broken
            return
        getattr(self, f"_{command.kind}")(command)

    def end(self, command: Command) -> None:
        self.commands.remove(command)
        command.host.feed(inputs.LvmGone(command.pid))
        command.host.end_process(command.pid)
        self.world.run()

    def _last(self, command: Command) -> int:
        return next((a.result for c, a in reversed(command.host.lvm_answers) if c == command.pid), -1)

    def _start(self, command: Command, mode: str) -> bool:
        """The VG is locked; where it is not started, it is started instead.  Whether it is locked now."""
        if command.step:
            return True
        state = command.host.node.context.state
        if state is not None and "lvm_vg0" in state.lockspaces:
            command.step = 1
            command.ask("lock_vg", mode=mode)
        else:
            command.kind = "started"
            command.ask("start_vg", vg_lock_args="1.0.0:ring")
        return False

    def _started(self, command: Command) -> None:
        self.end(command)

    def _activate(self, command: Command) -> None:
        if not self._start(command, "sh"):
            return
        if command.step == 1:
            command.step = 2
            lv = f"uuid-{command.lv}"
            command.ask("lock_lv", mode="ex", lv_name=command.lv, lv_uuid=lv, opts=("persistent",))
            return
        table = f"vg0/{command.lv}"
        if self._last(command) in (0, -114) and table not in command.host.tables:
            command.host.tables.append(table)
            self.did["activated"] += 1
        self.end(command)

    def _deactivate(self, command: Command) -> None:
        if not self._start(command, "sh"):
            return
        if command.step == 1:
            command.step = 2
            table = f"vg0/{command.lv}"
            if table in command.host.tables:
                command.host.tables.remove(table)
            lv = f"uuid-{command.lv}"
            command.ask("lock_lv", mode="un", lv_name=command.lv, lv_uuid=lv, opts=("persistent",))
            return
        self.end(command)

    def _change(self, command: Command) -> None:
        if command.changes:
            if self.chance.random() < 0.1:
                self.did["changed"] += 1
                self.end(command)
            return
        if self._start(command, "ex"):
            command.changes = True

    # -- what befalls hosts -------------------------------------------------------------

    def members(self) -> list[int]:
        return [id for id, one in self.world.hosts.items() if one.node is not None and not one.frozen]

    def view(self, how: str = "nodedown") -> None:
        members = self.members()
        if members:
            self.world.view(*members, how=how)
            self.world.run()

    def any(self) -> Host:
        return self.world.hosts[self.chance.choice(list(self.world.hosts))]

    def daemon_dies(self) -> None:
        host = self.any()
        if host.node is not None and not host.frozen:
            host.kill()
            host.watched = []
            self.did["killed"] += 1
            self.view("procdown")

    def daemons_are_back(self) -> None:
        for id, host in self.world.hosts.items():
            if host.node is None and self.world.power[id] is Power.ON:
                left = host.left_open()
                host.reaped = not host.lvm_locks
                host.ended = None
                host.start(left)
                self.did["shown"] += bool(left)
        self.view()

    def freezes(self) -> None:
        host = self.any()
        if host.node is not None and not host.frozen:
            self.world.freeze(host.id)
            self.view()

    def thaws(self) -> None:
        for id, host in self.world.hosts.items():
            if host.frozen:
                self.world.thaw(id)
        self.view()

    def boots(self) -> None:
        for id, power in self.world.power.items():
            if power is Power.OFF:
                host = self.world.hosts[id]
                host.reaped, host.ended = True, None
                self.did["fenced"] += 1
                self.world.boot(id, *sorted({*self.members(), id}))

    def devices_fail(self) -> None:
        for device in self.world.config.devices:
            for action in ("off", "status"):
                self.world.says[device.name, action] = Power.UNKNOWN

    def devices_work(self) -> None:
        self.world.says.clear()

    def tables_hang(self) -> None:
        self.any().tables_hang = True

    def tables_give_in(self) -> None:
        for host in self.world.hosts.values():
            host.tables_hang = False

    def leaves(self) -> None:
        host = self.any()
        if host.node is not None and not host.frozen:
            host.ask(calls.Leave(force=self.chance.random() < 0.7))
            self.world.pass_ms(200)
            if host.ended is not None:
                self.did["left"] += 1
                host.kill()
                host.lvm_locks = {}
                self.view("leave")


ACTIONS = (
    *["activates"] * 8, *["deactivates"] * 4, *["changes"] * 6, *["daemon_dies"] * 2,
    *["daemons_are_back"] * 6, "freezes", *["thaws"] * 4, *["boots"] * 3, "devices_fail",
    *["devices_work"] * 2, "tables_hang", *["tables_give_in"] * 2, "leaves",
)  # fmt: skip


def test_no_lv_is_active_on_two_hosts(tmp_path: Path) -> None:
    did: Counter[str] = Counter()
    for seed in SEEDS:
        truth = Truth(fresh(tmp_path, seed), seed)
        truth.run()
        kinds = [kind for host in truth.world.hosts.values() for kind in host.kinds()]
        did += truth.did + Counter(kind for kind in kinds if kind in ("adopted", "adoption-refused", "stale"))
    wanted = {"activated", "changed", "killed", "shown", "fenced", "left", "adopted", "stale"}
    assert wanted <= did.keys(), did


def fresh(directory: Path, seed: int) -> Path:
    found = directory / str(seed)
    found.mkdir()
    return found


def closed_though_tables_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    def dropped(self: Host, generation: int, node: object) -> None:
        self.lvm_locks, self.lvm_lost = {}, False
        self.feed(inputs.PathsDropped(generation))

    monkeypatch.setattr(Host, "_dropped", dropped)


def all_is_called_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Views._say_ready

    def say_ready(self: Any) -> None:
        self._context.left_open = ()
        real(self)

    monkeypatch.setattr(Views, "_say_ready", say_ready)


def leaves_with_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "refuse_tables", lambda active: iter(()))


def notes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LvmNotes, "granted", lambda self, use, *, persistent: None)


@pytest.mark.parametrize(
    ("mutant", "seed"),
    [
        (closed_though_tables_stand, 2),
        (all_is_called_closed, 0),
        (leaves_with_tables, 0),
        (notes_nothing, 0),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_without_a_rule_two_hosts_write(
    tmp_path: Path, mutant: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """seed: where it was noticed last, to begin with; it may be another since."""
    mutant(monkeypatch)
    for one in range(seed, seed + 60):
        try:
            Truth(fresh(tmp_path, one), one).run()
        except TwoWriters:
            return
    pytest.fail("nobody noticed")
