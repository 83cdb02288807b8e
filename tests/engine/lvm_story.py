"""Stock LVM2's requests on hosts of a small cluster, driven by lines of text.

    HOST.PID OP [un|sh|ex] [VG[/LV]] [option=value ...] [option ...]    a request; PID names the command
    HOST.PID ends                                                       its connection ends
    HOST.PID value                                                      what it reads in the VG's value block
    HOST.PID ends hung-up                                               ... by the daemon: it may run on
    HOST exits PID                                                      its process has ended
    HOST.PID ends unread                                                ... over a reply that it did not read
    HOST activate VG/LV [ey|sy] | deactivate VG/LV | makes VG/LV        ringfence's own commands
    HOST creates VG/LV                                                  ... in a VG that there is
    HOST removes VG/LV [force] | stops VG | leaves [force]              likewise
    HOST daemon dies | daemon is back [late]                            killed; the next one starts
    HOST makes-table VG/LV | tables [hang|give in]                      what device-mapper has; cannot be cut
    HOST notes                                                          what a next daemon would find
    powerless                                                           no device can fence anybody
    HOST why [TARGET]                                                   what stands still, and for what
    HOST reloads CODE [WORDS]                                           how its `lvchange --refresh` ends
    HOST table VG/LV [hangs]                                            device-mapper has one; it is not cut
    pass MS | freeze HOST | lose HOST | lie HOST | thaw HOST            what becomes of time and hosts
    locks                                                               who has what in the cluster

Scenario files hold commands, a line of four dashes, and what happened: each answer, each line of a log, each
change of a VG that is published.  `REWRITE=1 pytest` records; a person reads the diff."""

import errno
import re
import shlex
from pathlib import Path
from typing import Any

from engine_ring import Host, World

from ringfence.core.cluster import Lvmlockd
from ringfence.core.errors import RingfenceError
from ringfence.core.evidence import Power
from ringfence.core.locknames import VG_SPACE
from ringfence.core.modes import Mode
from ringfence.engine import inputs
from ringfence.engine.commands.locking import VG_RESOURCE, parse_lvb
from ringfence.engine.orders import LvmRan
from ringfence.wire import client as calls
from ringfence.wire import lvmlockd as numbers
from ringfence.wire.lvmlockd import LvmAnswered, LvmAsked

RULE = "----"
_UUID = re.compile(r"\w{6}(-\w{4}){5}-\w{6}")
CLUSTER = "ring"
TOLD = ("refresh-failed", "vg-killed", "vg-dropped")
LIMITS = Lvmlockd(vg_wait_ms=10_000)
OWN = {
    number: name
    for name, number in vars(numbers).items()
    if name.startswith("E") and isinstance(number, int)
}


class BadCommand(Exception):
    """The scenario says something that the harness does not know."""


class Story:
    def __init__(self, directory: Path, count: int = 2) -> None:
        self.world = World(directory, count, lvmlockd=LIMITS)
        self.hosts = {f"n{id}": host for id, host in self.world.hosts.items()}
        self.uuids: dict[str, str] = {}
        """What is printed as "VG/LV" instead of a uuid."""
        self.names: dict[tuple[str, int], str] = {}
        self.waiting: dict[tuple[str, int], str] = {}
        self.seen: dict[str, tuple[int, int, int]] = {}
        self.lines: list[str] = []
        self.world.pass_ms(1000)  # until all have authority
        self.pass_over()

    def pass_over(self) -> None:
        """What happened until now is not told."""
        self.tell()
        self.lines = []

    def do(self, line: str) -> list[str]:
        """Returns what happened.  Raises BadCommand."""
        self.lines = []
        word, *rest = shlex.split(line)
        host, _, pid = word.partition(".")
        try:
            if pid:
                self.command(host, int(pid), *rest)
            elif host in self.hosts:
                self.own(self.hosts[host], *rest)
            else:
                getattr(self, f"do_{word}")(*rest)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            raise BadCommand(f"{line}: {error}") from None
        self.tell()
        if pid and (host, int(pid)) in self.waiting:
            self.lines.append(f"{word} {self.waiting[host, int(pid)]} waits")
        return self.lines

    # -- stock commands ----------------------------------------------------------------

    def command(self, name: str, pid: int, op: str, *words: str) -> None:
        host = self.hosts[name]
        if op == "ends":
            self.waiting.pop((name, pid), None)
            host.feed(inputs.LvmGone(pid, unread="unread" in words, hung_up="hung-up" in words))
            if "hung-up" not in words:
                host.end_process(pid)
            self.world.run()
            return
        if op == "value":
            self.lines.append(f"{name}.{pid} value {self.value(host, pid)}")
            return
        if (name, pid) in self.waiting:
            raise BadCommand(f"{name}.{pid} waits for an answer")
        host.processes.setdefault(pid, 1000 + pid)
        asked = self.asked(pid, op, list(words))
        self.waiting[name, pid] = op
        host.processes[pid] = asked.started
        host.lvm(pid, asked)

    def value(self, host: Host, pid: int) -> str:
        """What its command's lock of a VG has read in the value block."""
        (use,) = [
            use
            for use in host.node._running.locker.uses()
            if use.resource == VG_RESOURCE and use.owner.who.endswith(f"(pid {pid})")
        ]
        version = parse_lvb(use.held.lvb)
        return "not valid" if version is None else str(version.number)

    def asked(self, pid: int, op: str, words: list[str]) -> LvmAsked:
        fields: dict[str, object] = {"cmd": "lvcmd", "vg_lock_type": "dlm"}
        opts = []
        for word in words:
            key, equals, value = word.partition("=")
            if equals:
                fields[key] = int(value) if value.isdecimal() else value
            elif word in ("un", "sh", "ex"):
                fields["mode"] = word
            elif "/" in word and op == "refresh_lv":
                fields |= {"path": f"/dev//{word}", "lv_uuid": self.uuids.get(word, "uuid")}
            elif "/" in word:
                vg, _, lv = word.partition("/")
                fields |= {"vg_name": vg, "lv_name": lv, "lv_uuid": self.uuids.get(word, f"uuid-{lv}")}
            elif word.startswith("vg"):
                fields["vg_name"] = word
            else:
                opts.append(word)
        if op == "start_vg":
            fields.setdefault("vg_lock_args", f"1.0.0:{CLUSTER}")
        return LvmAsked(op, pid, 1000 + pid, opts=tuple(opts), **fields)  # type: ignore[arg-type]

    # -- ringfence's own -------------------------------------------------------------------

    def daemon(self, host: Host, *words: str) -> None:
        others = [id for id, one in self.world.hosts.items() if one is not host and one.node is not None]
        if words == ("dies",):
            host.kill()
            self.waiting = {key: op for key, op in self.waiting.items() if key[0] != _name(host)}
            self.world.view(*others, how="procdown")
            self.world.run()
        elif words[:2] == ("is", "back"):
            if words[2:] == ("late",):
                hosts = self.world.hosts.values()
                self.world.until(lambda: any("victim-due" in one.kinds() for one in hosts))
            left = host.left_open()
            host.reaped = not host.lvm_locks
            host.start(left)
            self.world.view(*self.world.hosts)
            self.world.run()
            self.world.pass_ms(1000)
        else:
            raise BadCommand(" ".join(words))

    def tables(self, host: Host, *words: str) -> None:
        if words:
            host.tables_hang = {("hang",): True, ("give", "in"): False}[words]
            self.world.pass_ms(2000)
        found = ", ".join(host.tables) or "no table"
        self.lines.append(f"{_name(host)} has {found}, and {self.standing(host)}")

    def standing(self, host: Host) -> str:
        return "acts" if host.running else host.node._running._views.why

    def noted(self, host: Host) -> None:
        for one in host.lvm_locks.values():
            whose = f"process {one.pid}" if one.pid else "active"
            self.lines.append(f"{_name(host)} noted: {one.what} {one.mode}, {whose}")

    def own(self, host: Host, verb: str, *words: str) -> None:
        if verb in ("daemon", "tables"):
            getattr(self, verb)(host, *words)
        elif verb == "notes":
            self.noted(host)
        elif verb == "makes-table":
            host.tables += words
        elif verb == "leaves":
            self.answer(host, calls.Leave(force=words == ("force",)))
        elif verb == "stops":
            self.answer(host, calls.VgChange("lockstop", words[0]))
        elif verb == "removes":
            vg, _, lv = words[0].partition("/")
            self.answer(host, calls.LvRemove(vg, lv, force=words[1:] == ("force",)))
        else:
            self.own_volume(host, verb, *words)

    def answer(self, host: Host, call: Any) -> None:
        try:
            self.lines.append(f"{_name(host)} did: {self.done(host, call)['message']}")
        except RingfenceError as error:
            self.lines.append(f"{_name(host)} refused: {error}")

    def own_volume(self, host: Host, verb: str, volume: str = "", how: str = "ey") -> None:
        vg, _, lv = volume.partition("/")
        try:
            if verb == "why":
                lines = self.done(host, calls.Why(volume))["lines"]
                self.lines += [f"{_name(host)} why: {self.readable(line)}" for line in lines]
            elif verb == "exits":
                host.end_process(int(volume))
                self.world.run()
            elif verb == "makes":
                self.done(host, calls.VgCreate(vg, (str(self.world.image),), shared=True))
                self.done(host, calls.LvCreate(vg, lv, size_bytes=4 << 20, activate="n"))
                self.uuids[volume] = self.done(host, calls.LvChange(vg, lv, activate="n"))["uuid"]
            elif verb == "reloads":
                host.lvm_ran = LvmRan(int(volume), how.removeprefix("ey"), 4)
            elif verb == "table":
                host.tables.append(volume)
                host.tables_hang = how == "hangs"
            elif verb == "creates":
                self.done(host, calls.LvCreate(vg, lv, size_bytes=4 << 20, activate="n"))
            elif verb in ("activate", "deactivate"):
                how = how if verb == "activate" else "n"
                self.done(host, calls.LvChange(vg, lv, activate=how, wait_ms=0))
            else:
                raise BadCommand(verb)
        except RingfenceError as error:
            self.lines.append(f"{_name(host)} refused: {error}")

    def done(self, host: Host, call: Any) -> Any:
        id = host.ask(call)
        self.world.until(lambda: id in host.replies)
        return host.reply(id)

    # -- time and hosts ---------------------------------------------------------------------

    def do_pass(self, time_ms: str) -> None:
        self.world.pass_ms(int(time_ms))

    def do_freeze(self, host: str) -> None:
        self.world.freeze(self.hosts[host].id)

    def do_lose(self, host: str) -> None:
        """Frozen, and the ring goes on without it."""
        lost = self.hosts[host].id
        self.world.freeze(lost)
        self.world.view(*(id for id in self.world.members if id != lost))
        self.world.run()

    def do_lie(self, host: str) -> None:
        """Its controller says that it is off, whatever it is told."""
        for action in ("off", "status"):
            self.world.says[f"bmc{self.hosts[host].id}", action] = Power.OFF

    def do_powerless(self) -> None:
        for device in self.world.config.devices:
            for action in ("off", "status"):
                self.world.says[device.name, action] = Power.UNKNOWN

    def do_thaw(self, host: str) -> None:
        """It wakes, and is let into a view of all."""
        self.world.thaw(self.hosts[host].id, *self.world.hosts)

    def do_locks(self) -> None:
        awake = [host.node.context for host in self.hosts.values() if host.node and not host.frozen]
        state = next(context.state for context in awake if context.state is not None)
        back = {uuid: name for name, uuid in self.uuids.items()}
        for space in sorted(state.lockspaces):
            for name in sorted(state.lockspaces[space].resources):
                resource = state.lockspaces[space].resources[name]
                granted = (*resource.granted, *resource.converting)
                held = [f"n{one.owner}:{one.held.name}" for one in granted if one.held > Mode.NL]
                waits = [f"n{one.owner}:{one.wanted.name}" for one in resource.waiting]
                words = [*held, *(["waiting", *waits] if waits else [])]
                self.lines.append(f"{space.removeprefix(VG_SPACE)} {back.get(name, name)} {' '.join(words)}")

    # -- what happened -----------------------------------------------------------------------

    def tell(self) -> None:
        for name, host in self.hosts.items():
            answers, notes, events = self.seen.get(name, (0, 0, 0))
            for client, answered in host.lvm_answers[answers:]:
                self.waiting.pop((name, client), None)
                self.lines.append(f"{name}.{client} {answered.op} {_said(answered)}")
            self.lines += [f"{name} log: {self.readable(what)}" for what in host.notes[notes:]]
            self.lines += [f"{name} reloads {' '.join(run.lvs)}" for run in host.refreshes]
            host.refreshes.clear()
            told = [event.what for event in host.events[events:] if event.kind in TOLD]
            self.lines += [f"{name} log: {self.readable(what)}" for what in told]
            if name == "n1":
                self.lines += [f"published: {e.what}" for e in host.events[events:] if e.kind == "vg-changed"]
            self.seen[name] = len(host.lvm_answers), len(host.notes), len(host.events)

    def readable(self, text: str) -> str:
        for name, uuid in self.uuids.items():
            text = text.replace(uuid, name)
        return text


def _name(host: Host) -> str:
    return f"n{host.id}"


def _said(answered: LvmAnswered) -> str:
    number = -answered.result
    word = OWN.get(number) or errno.errorcode.get(number, str(answered.result))
    words = ["ok" if not answered.result else word if number > 0 else str(answered.result)]
    words += answered.flags
    if answered.vg_lock_args:
        words.append(f"args={answered.vg_lock_args}")
    if answered.mode:
        words.append(f"mode={answered.mode}")
    if answered.holder:
        words.append(f"holder={answered.holder}")
    if answered.dump is not None:
        words += ["", *_UUID.sub("UUID", answered.dump.decode()).splitlines()]
        return "\n  ".join([" ".join(words[: words.index("")]), *words[words.index("") + 1 :]])
    return " ".join(words)


def replay(path: Path, directory: Path) -> tuple[str, str]:
    """(the file's text, what it says when it is played now)."""
    text = path.read_text()
    hosts = re.search(r"^# hosts: (\d+)$", text, re.MULTILINE)
    story, out = Story(directory, int(hosts[1]) if hosts else 2), []
    for block in text.strip().split("\n\n"):
        command = block.split(f"\n{RULE}\n")[0].removesuffix(f"\n{RULE}")
        comments = [line for line in command.splitlines() if line.startswith("#")]
        words = [line for line in command.splitlines() if not line.startswith("#")]
        happened = [one for line in words for one in story.do(line)]
        out.append("\n".join([*comments, *words, *([RULE, *happened] if words else [])]))
    return text, "\n\n".join(out) + "\n"
