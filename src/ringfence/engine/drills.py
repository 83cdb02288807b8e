"""Drills on this node: asked for, run, and tidied up after an actor that was lost.

A drill begins as an entry, so that there is one at a time and all know of it; it runs as a command on the
node that was asked; it ends as an entry.  If its actor is lost, the lowest ready member switches on again
what the drill may have left off, and ends it."""

from collections.abc import Callable

import msgspec

from ringfence.core.errors import NotFound, Refused, RingfenceError
from ringfence.core.evidence import CUTS, Evidence
from ringfence.core.ids import Life
from ringfence.core.locknames import GLOBAL_SPACE, VG_SPACE
from ringfence.engine.commands import drills as commands
from ringfence.engine.commands.drills import Verdict
from ringfence.engine.context import Context
from ringfence.engine.drill_entries import refusal
from ringfence.engine.facts import DrillGranted, DrillOver
from ringfence.engine.state import ClusterState
from ringfence.engine.tasks import Tasks
from ringfence.fencing import drills
from ringfence.fencing.actor import may_start
from ringfence.fencing.drills import Drill
from ringfence.wire import FENCING
from ringfence.wire.client import FenceDrill, Reply
from ringfence.wire.entries import DrillAttempted, DrillBegan, DrillEnded
from ringfence.wire.proving import DrillKind

Answer = Callable[[Reply], None]


class _Asker(msgspec.Struct):
    id: str
    answer: Answer


class Drills:
    def __init__(self, context: Context, tasks: Tasks) -> None:
        self._context = context
        self._tasks = tasks
        self._asker: _Asker | None = None
        """Who waits for this node's drill."""
        self._runs: Life | None = None
        """The drilled life whose drill this node runs, or tidies up."""
        self._gave_way: list[Life] = []
        """Victims for whom its calls were cancelled already."""

    def ask(self, call: FenceDrill, who: str, id: str, answer: Answer) -> None:
        """Begin a drill; `answer` gets its replies: {"line"} while it goes on, {"passed", "verdict", "lines"}
        at its end.

        Raises:
            NotFound: no such node, or no outlets to drill.
            Refused: it cannot begin now."""
        context = self._context
        state = context.must_act()
        context.must_speak(FENCING, "drills")
        entry = DrillBegan(_kind(call), context.node_named(call.node), _level(context, call), who)
        why = refusal(state, context.me, entry)
        if why or self._asker is not None:
            raise Refused(f"not drilled: {why or 'a drill goes on'}", next=_next(context, call, entry, why))
        self._asker = _Asker(id, answer)
        context.submit(entry)

    def lost(self, error: RingfenceError) -> None:
        """This life is stale."""
        asker, self._asker, self._runs = self._asker, None, None
        if asker is not None:
            asker.answer(Reply(asker.id, error=error.as_dict()))

    # -- the ordered state ---------------------------------------------------------------

    def granted(self, fact: DrillGranted) -> None:
        state = self._context.running
        if fact.actor != self._context.life or state is None or state.drill is None:
            return
        drill, config = state.drill, state.config
        world = _World(self._context, drill, self._tell)
        if drill.kind is DrillKind.CABLING:
            controllers = drills.controllers(config)
            uses = drills.uses_of(config, drill)
            command = commands.cabling(config, drill.life.node, uses, controllers, world)
        else:
            context = self._context
            me, wall_ms = context.me, context.wall_ms
            command = commands.destructive(config, drill.life, drill.level, me, wall_ms, world)
        self._run(drill, f"the drill of {self._context.name(drill.life.node)}", command)

    def over(self, fact: DrillOver) -> None:
        asker = self._asker
        if fact.actor != self._context.life or asker is None:
            return
        self._asker = None
        if fact.refused:
            error = Refused(f"not drilled: {fact.verdict}", next="ringfence status", retry=True)
            asker.answer(Reply(asker.id, error=error.as_dict()))
            return
        result = {"passed": fact.passed, "verdict": fact.verdict, "lines": list(fact.lines)}
        asker.answer(Reply(asker.id, result=result))

    # -- time --------------------------------------------------------------------------------

    def look(self) -> None:
        state = self._context.running
        if state is None or state.drill is None:
            return
        drill = state.drill
        if self._runs == drill.life:
            self._give_way(state)
        elif self._successor(state, drill) == self._context.me:
            self._tidy(state, drill)

    def _successor(self, state: ClusterState, drill: Drill) -> int | None:
        """Who ends it for an actor that was lost; the drilled node only if nobody else is left."""
        if drill.actor in state.lives.values() or self._context.outbox.unapplied(DrillEnded):
            return None
        others = [node for node in state.ready if node != drill.life.node]
        return (others or list(state.ready))[0]

    def _tidy(self, state: ClusterState, drill: Drill) -> None:
        actor = state.name(drill.actor.node)
        world = _World(self._context, drill, self._tell)
        uses = drills.uses_of(state.config, drill)
        command = commands.tidied(state.config, drill.life.node, uses, actor, world)
        self._run(drill, f"the end of the drill of {state.name(drill.life.node)}", command)

    def _give_way(self, state: ClusterState) -> None:
        """What fencing needs is free at once; but a drill that cuts the power is itself the fence.

        Once for each victim: later calls of the drill stand behind those of the fence (`AgentCalls`)."""
        drill = state.drill
        assert drill is not None
        lives = [victim.life for victim in state.victims()]
        if lives == self._gave_way:
            return
        self._gave_way = lives
        world = _World(self._context, drill, self._tell)
        devices = [use.device for use in drills.uses_of(state.config, drill)]
        mine = world.lost() and drill.kind is DrillKind.CABLING
        needed = [device for device in devices if mine or world.needed(device)]
        if needed:
            self._tasks.cancel_calls(needed)

    def _run(self, drill: Drill, what: str, command: commands.Steps) -> None:
        self._runs, self._gave_way = drill.life, []

        def finished(verdict: Verdict | None, error: RingfenceError | None) -> None:
            if self._runs != drill.life:
                return  # this life is stale: the drill is its successor's
            self._runs = None
            if verdict is None:
                verdict = Verdict(False, str(error))
            entry = DrillEnded(drill.life, verdict.passed, verdict.verdict, verdict.lines, verdict.liars)
            self._context.submit(entry)

        self._tasks.start(what, command, finished)

    def _tell(self, line: str) -> None:
        if self._asker is not None:
            self._asker.answer(Reply(self._asker.id, result={"line": line}, final=False))


class _World:
    """Fulfils `commands.World` from the state as it is at each moment."""

    def __init__(self, context: Context, drill: Drill, tell: Callable[[str], None]) -> None:
        self._context = context
        self._drill = drill
        self._say = tell
        self._said = ""
        self._passed = False
        """The host's power was cut and it is to come back."""
        self._ready = context.state.ready if context.state is not None else ()

    def tell(self, line: str) -> None:
        if line != self._said:  # what is waited for is said once
            self._said = line
            self._say(line)

    def acts(self) -> bool:
        """As whoever fences: a host that was frozen must not wake up and switch."""
        context = self._context
        ready = context.running is not None and not context.vetoed
        return may_start(ready=ready, primary=ready, heartbeat_back=context.heartbeat_back, calm=context.calm)

    def lost(self) -> bool:
        state = self._context.running
        return state is not None and bool(state.domain.of_node(self._drill.life.node))

    def stays_off(self) -> bool:
        state, node = self._context.running, self._drill.life.node
        if state is None or self._passed or state.config.fence_action == "reboot":
            return False
        fenced = [record for record in state.domain.fenced if record.life == self._drill.life]
        cut = any(one.kind in CUTS for record in fenced for one in record.evidence)
        return cut and node not in state.lives

    def needed(self, device: str) -> str:
        state = self._context.running
        if state is None:
            return ""
        for victim in state.victims():
            if victim.life.node == self._drill.life.node or state.domain.proven(victim):
                continue
            levels = state.config.levels_of(victim.life.node)
            if any(device in level.names for level in levels):
                return state.name(victim.life.node)
        return ""

    def others_lost(self) -> list[str]:
        state = self._context.running
        if state is None:
            return []
        gone = [node for node in self._ready if node not in state.lives and node != self._drill.life.node]
        return [state.name(node) for node in gone]

    def attempted(self, evidence: Evidence | None) -> None:
        self._passed = evidence is not None
        self._context.submit(DrillAttempted(self._drill.life, evidence))

    def returned(self) -> bool:
        state, old = self._context.running, self._drill.life
        life = state.lives.get(old.node) if state is not None else None
        return life is not None and life.boot != old.boot

    def now_ms(self) -> int:
        return self._context.now_ns // 1_000_000


def _kind(call: FenceDrill) -> DrillKind:
    return DrillKind.DESTRUCTIVE if call.destructive else DrillKind.CABLING


def _level(context: Context, call: FenceDrill) -> int:
    """From 0.  Raises NotFound, Refused."""
    node = context.node_named(call.node)
    levels = context.config.levels_of(node)
    if not call.destructive:
        found = drills.cabling_level(context.config, node)
        if found is None:
            raise NotFound(
                f"{call.node} has no fence level with two outlets: there are no cables to drill",
                next="name an outlet for each of its power supplies in one level",
            )
        return found
    if not 1 <= call.level <= len(levels):
        raise NotFound(f"{call.node} has no fence level {call.level}", next="ringfence config show")
    if not drills.power_level(context.config, node, call.level - 1):
        raise Refused(
            f"level {call.level} of {call.node} cuts it from its storage: its heartbeat would not stop",
            next="drill a level that cuts its power",
        )
    return call.level - 1


def _next(context: Context, call: FenceDrill, entry: DrillBegan, why: str) -> str:
    if entry.node == context.me:
        return f"run ringfence fence drill {call.node} on another node"
    state = context.running
    spaces = state.lockspaces if state is not None else {}
    held = sorted(name for name, space in spaces.items() if entry.node in space.members)
    if why.startswith(f"{call.node} is in lockspace"):
        left = [name for name in held if name == GLOBAL_SPACE or not name.startswith(VG_SPACE)]
        ways = ["ringfence vgchange --lockstop", *(f"ringfence lockspace leave {name}" for name in left)]
        return f"on {call.node}: {'; '.join(ways)}; then drill again"
    return "ringfence status"
