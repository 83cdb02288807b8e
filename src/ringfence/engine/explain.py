"""Why is it stuck?  Lines for people, from whatever this node knows at the moment.

For every wait the chain: who is in the way and since when, what is being done about it, what comes
next, and what a person can do.  Most important first.  Where this node itself cannot act, that
comes before anything else, for then all the rest is only its last news."""

from collections.abc import Sequence
from typing import Any

from ringfence.core.errors import NotFound
from ringfence.core.locknames import lockspace_name, resource_name, vg_of
from ringfence.core.modes import Mode
from ringfence.engine.chains import Chains, who
from ringfence.engine.client_locks import ClientLocks
from ringfence.engine.commands.locking import VG_RESOURCE, space_of
from ringfence.engine.context import Context
from ringfence.engine.handover_entries import under_way
from ringfence.engine.locker import Locker, is_kept
from ringfence.engine.reports import Doing, held_since_ms, in_queues, power_lines, victim_lines
from ringfence.engine.slots import Slots
from ringfence.engine.standing import disarmed_line, restless, standing
from ringfence.engine.state import ClusterState
from ringfence.engine.uses import Use
from ringfence.fencing.domain import Victim
from ringfence.fencing.explain import clock
from ringfence.locks.flags import Flag
from ringfence.locks.lockspace import Lockspace
from ringfence.locks.resource import Lock
from ringfence.membership.barrier import Barrier
from ringfence.wire.entries import HandoverStep

STUCK_ROUND = 1
"""After so many rounds of every device a person is asked for: the devices alone may never do it."""


class Explanation:
    """One answer to `why`.

    Args:
        barrier: of the ring's present view; None without a ring.
        ring_reason: what keeps this node from running, as `Views.why`.
        doing: what this node's own attempt on a victim waits for just now (`Fencer.doing`).
        lvm_waits: which stock commands wait here for something else than a lock (`Lvmlockd.waits`)."""

    def __init__(
        self,
        context: Context,
        locker: Locker,
        clients: ClientLocks,
        barrier: Barrier | None,
        ring_reason: str,
        doing: Doing,
        slots: Slots,
        lvm_waits: Sequence[str] = (),
    ) -> None:
        self._context = context
        self._slots = slots
        self._lvm_waits = lvm_waits
        self._locker = locker
        self._clients = clients
        self._barrier = barrier
        self._ring_reason = ring_reason
        self._doing = doing
        self._chains = Chains(context, locker)

    def of(self, target: str, resource: tuple[str, str] | None) -> dict[str, Any]:
        """Answer for a node, a lock or ("") everything.

        Args:
            resource: (lockspace, resource) behind the target, where the caller knows it (VG/LV).

        Returns {"target", "stuck", "lines"}.  Raises NotFound."""
        if not target:
            lines = self._all()
            stuck = bool(lines)
            lines = [*self._disarmed(), *(lines or ["nothing is stuck"]), *self._by_hand()]
            return _answer(target, stuck, lines)
        state = self._context.state
        known = [*(one.id for one in self._context.config.nodes), *self._victims_nodes()]
        node = next((one for one in known if self._context.name(one) == target), None)
        if node is not None:
            return self._of_node(target, node)
        if resource is None and state is not None and target in state.lockspaces:
            return self._of_space(target, state.lockspaces[target])
        if resource is None and state is not None and space_of(target) in state.lockspaces:
            return self._of_vg(target, state.lockspaces[space_of(target)])
        if resource is None and (by_hand := self._by_hand(target)):
            return _answer(target, False, by_hand)
        return self._of_resource(target, *(resource or self._named(target)))

    def _victims_nodes(self) -> list[int]:
        """Also of nodes that are not configured any more."""
        state = self._context.state
        return [victim.life.node for victim in state.victims()] if state else []

    # -- everything ------------------------------------------------------------------------

    def _all(self) -> list[str]:
        lines = [*self._own_standing(), *restless(self._context)]
        state = self._context.state
        for victim in state.victims() if state else []:
            lines += self._victim_lines(victim)
        for name in state.frozen if state else []:
            lines.append(self._frozen_line(name))
        lines += self._slots.lines()
        lines += power_lines(state) if state else []
        lines += [why for node, why in sorted(self._context.refused.items()) if node != self._context.me]
        for use in self._locker.waiting():
            lines.append(self._use_line(use))
        return [*lines, *self._lvm_waits]

    def _disarmed(self) -> list[str]:
        line = disarmed_line(self._context)
        return [f"{line}; next: ringfence fence arm"] if line else []

    def _own_standing(self) -> list[str]:
        return standing(self._context, self._barrier, self._ring_reason)

    # -- a node ----------------------------------------------------------------------------------

    def _of_node(self, target: str, node: int) -> dict[str, Any]:
        context, state = self._context, self._context.state
        lines = [*self._own_standing(), *(restless(context) if node == context.me else [])]
        victims = [one for one in state.victims() if one.life.node == node] if state else []
        for victim in victims:
            lines += self._victim_lines(victim)
            assert state is not None
            spaces = [name for name in state.frozen if state.freezes(victim, name)]
            lines += self._slots.lines(node=node)
            if spaces:
                lines.append(f"until then these lockspaces are frozen: {', '.join(spaces)}")
        stuck = bool(lines) or node in context.refused
        if not victims:
            lines.append(self._node_line(node))
        lines += power_lines(state, node) if state else []
        lines = [*(self._disarmed() if victims else []), *lines]
        if node == context.me:
            lines += [self._use_line(use) for use in self._locker.waiting()]
            lines += self._lvm_waits
        return _answer(target, stuck or bool(self._locker.waiting() and node == context.me), lines)

    def _node_line(self, node: int) -> str:
        context, state = self._context, self._context.state
        name = context.name(node)
        if state is not None and node in state.lives:
            return f"{name} is a ready member{self._heard(state, node)}: not stuck"
        if self._barrier is not None and node in self._barrier.members:
            return context.refused.get(node, f"{name} is in the ring and not ready yet")
        if state is not None and node in state.out:
            return f"{name} left cleanly; it comes back when its daemon is started"
        return f"{name} is not in the ring; nothing waits for it"

    def _heard(self, state: ClusterState, node: int) -> str:
        if node == self._context.me:
            return ""
        silent_ns = self._context.now_ns - self._context.hearing.last_heard_ns(state.lives[node])
        return f", last heard {silent_ns / 1e9:.1f} s ago"

    # -- a lockspace -----------------------------------------------------------------------------

    def _of_space(self, name: str, space: Lockspace) -> dict[str, Any]:
        context, state = self._context, self._context.state
        assert state is not None
        lines = self._own_standing()
        members = f"in it: {', '.join(context.name(node) for node in space.members)}"
        victims = state.blocking(name)
        how = self._frozen_line(name) if victims else f"lockspace {name} runs"
        lines.append(f"{how}; {members}")
        quiet = len(lines) == 1 and not victims
        lines += self._slots.lines(vg=vg_of(name) or "")
        lines += self._disarmed() if victims else []
        for victim in victims:
            lines += self._victim_lines(victim)
        waiting = self._joining_lines(name, space)
        waiting += [self._use_line(use) for use in self._locker.waiting() if use.lockspace == name]
        vg = vg_of(name) or ""
        killed = self._by_hand(vg) if vg in context.killed else []
        return _answer(name, bool(waiting) or not quiet, [*lines, *waiting, *killed])

    def _of_vg(self, name: str, space: Lockspace) -> dict[str, Any]:
        """Its lockspace, and the lock that every command for it takes."""
        whole = self._of_space(space.name, space)
        lock = self._of_resource(f"VG {name}", space.name, VG_RESOURCE)
        lines = [*whole["lines"], *lock["lines"], *self._by_hand(name)]
        return _answer(name, whole["stuck"] or lock["stuck"], lines)

    def _by_hand(self, vg: str = "") -> list[str]:
        """VGs, or that one, that somebody killed or stopped here by hand.

        Stock LVM2's own words for a killed one ("storage failed for sanlock leases") help nobody here."""
        context = self._context
        me = context.name(context.me)
        killed = [
            f"VG {one} was killed on {me} (lvmlockctl --kill): stock LVM2 gets no lock of it there; "
            f"next, when none of its LVs is active there: lvmlockctl --drop {one}"
            for one in context.killed
            if vg in ("", one)
        ]
        stopped = [
            f"VG {one} was stopped on {me} by hand: it does not start by itself there until the host boots; "
            + (
                "and no disk had it when that host last looked: it was removed, or its disks are missing; "
                "next: ringfence vgs"
                if one in context.unseen
                else f"next: ringfence vgchange --lockstart {one}"
            )
            for one in context.stopped
            if vg in ("", one) and not context.is_in(space_of(one))
        ]
        return [*killed, *stopped]

    # -- a lock ----------------------------------------------------------------------------------

    def _named(self, target: str) -> tuple[str, str]:
        """LOCKSPACE/RESOURCE as it is, in any way to write it.  Raises NotFound, BadInput."""
        lockspace, slash, resource = target.partition("/")
        if slash and lockspace and resource:
            lockspace, resource = lockspace_name(lockspace), resource_name(resource)
        known = self._context.state.lockspaces if self._context.state else {}
        asked = any(use.lockspace == lockspace for use in self._locker.waiting())
        if not slash or not resource or (lockspace not in known and not asked):
            raise NotFound(
                f"{target}: no node, no volume of a readable VG and no lockspace has that name",
                next="ringfence status; ringfence lvs; ringfence locks",
            )
        return lockspace, resource

    def _of_resource(self, target: str, lockspace: str, resource: str) -> dict[str, Any]:
        state = self._context.state
        lines = self._own_standing()
        standing = bool(lines)
        space = state.lockspaces.get(lockspace) if state else None
        queues = in_queues(space.resources[resource]) if space and resource in space.resources else []
        ahead = [lock for _, lock in queues if lock.held is not Mode.UN and lock.flags & Flag.AHEAD]
        holders = [lock for _, lock in queues if lock.held is not Mode.UN and lock not in ahead]
        lines += [self._holder_line(target, lock) for lock in holders]
        lines += [self._ahead_line(target, lock) for lock in ahead]
        lines += self._clients_lines(lockspace, resource)
        lines += self._handover_lines(target, resource)
        waiting = self._waiting_lines(target, lockspace, resource, space, queues)
        waiting += self._behind_its_vg(lockspace, resource)
        lines += waiting
        victims = state.blocking(lockspace) if state else []
        if victims:
            lines += self._disarmed()
            lines.append(self._frozen_line(lockspace))
        vg = vg_of(lockspace) or ""
        lines += self._slots.lines(vg=vg)
        if vg in self._context.killed:
            lines += self._by_hand(vg)
        for victim in victims:
            lines += self._victim_lines(victim)
        if waiting and not victims and not standing:
            lines += self._who_lets_go(target, lockspace, resource, holders)
        if not holders and not waiting:
            running = self._context.running is not None
            said = "nobody holds it and nobody waits for it" if running else "who holds it is not known here"
            lines.append(f"{target}: {said}")
        return _answer(target, standing or bool(waiting) or bool(victims), lines)

    def _holder_line(self, target: str, lock: Lock) -> str:
        token = f", token {lock.token}" if lock.token else ""
        name = self._context.name(lock.owner)
        return f"{target} is held {lock.held.name} by {name} since {clock(lock.since_ms)}{token}"

    def _handover_lines(self, target: str, uuid: str) -> list[str]:
        """Of an LV that is on its way to another host, how far it is and what comes next."""
        context, state = self._context, self._context.state
        one = under_way(state, uuid) if state is not None else None
        if one is None:
            return []
        giver, taker = context.name(one.giver), context.name(one.taker)
        what = f"{target} is being handed over from {giver} to {taker} since {clock(one.since_ms)}"
        if one.step is HandoverStep.TAKE:
            return [f"{what}: it is {taker}'s as soon as {giver} has let go, or is proven fenced"]
        if one.step is HandoverStep.LEND:
            how = f"ringfence handover {target} --to {taker}, or --abort"
            return [f"{what}: it is prepared, and {giver} writes on; next: on {giver}, {how}"]
        return [f"{what}: until that is decided it is {giver}'s"]

    def _ahead_line(self, target: str, lock: Lock) -> str:
        name = self._context.name(lock.owner)
        return f"{target}: {name} asked for it ahead of a command; nobody uses it, and who wants it gets it"

    def _clients_lines(self, lockspace: str, resource: str) -> list[str]:
        """Who of this node's clients holds it; what another node's do, only that one can tell."""
        me = self._context.name(self._context.me)
        lines = []
        for row in self._locker.node_locks.rows(lockspace, resource):
            use = self._locker.use(row.lock_id) if row.lock_id is not None else None
            if row.lock_id is None and is_kept(lockspace, resource):
                lines.append(f"{me} keeps it from an earlier use: nobody holds it there")
            elif row.orphan:
                since = clock(row.since_ms)
                purge = f"ringfence lockspace purge {lockspace} {resource}"
                lines.append(
                    f"on {me}, an orphan holds it {row.held.name} since {since}: its client ended; "
                    f"next: take it over there (flag ORPHAN), or: {purge}"
                )
            elif use is not None and use.held is None and row.held is not Mode.UN:
                lines.append(f"{me} has it, and may not tell {who(use)} so: that takes grant authority")
            elif use is not None and row.held is not Mode.UN:
                line = f"on {me}, {who(use)} holds it {row.held.name} since {clock(held_since_ms(row, use))}"
                cached = self._clients.cached_line(use)
                lines.append(f"{line}; {cached}" if cached else line)
        return lines

    def _waiting_lines(
        self,
        target: str,
        lockspace: str,
        resource: str,
        space: Lockspace | None,
        queues: list[tuple[str, Lock]],
    ) -> list[str]:
        here = (lockspace, resource)
        uses = [use for use in self._locker.waiting() if (use.lockspace, use.resource) == here]
        lines = [self._use_line(use) for use in uses]
        shown = [self._context.me] if uses else []
        for queue, lock in queues:
            if queue != "granted" and lock.owner not in shown:
                line = self._wait_line(target, lock.owner, lock.wanted, lock.since_ms)
                behind = space.resources[resource].blockers(lock) if space else []
                names = dict.fromkeys(self._context.name(one.owner) for one in behind)
                lines.append(f"{line}, behind {', '.join(names)}" if names else line)
        for op in space.deferred.values() if space else ():
            if op.resource == resource and op.mode is not None and op.owner not in shown:
                lines.append(self._wait_line(target, op.owner, op.mode, op.now_ms))
        if (lockspace, resource) in self._locker.grants.waiting():
            lines.append(
                f"{target} is granted to {self._context.name(self._context.me)}, which may not use it yet: "
                "that takes grant authority and a running lockspace"
            )
        return lines + self._joining_lines(lockspace, space)

    def _wait_line(self, target: str, node: int, mode: Mode, since_ms: int) -> str:
        return f"{self._context.name(node)} waits for {mode.name} on {target} since {clock(since_ms)}"

    def _use_line(self, use: Use) -> str:
        """A wish of this node's client, and the chain of those who are in its way."""
        me = self._context.name(self._context.me)
        asked = f"{me} waits for {use.wanted.name} on {use.what} since {clock(use.since_wall_ms)}"
        if use.deadline_ns is not None:
            left_ms = max(0, (use.deadline_ns - self._context.now_ns) // 1_000_000)
            asked = f"{asked}, for {left_ms / 1000:.1f} s more"
        return ", ".join([f"{asked} ({who(use)})", *self._chains.lines(use)])

    def _behind_its_vg(self, lockspace: str, resource: str) -> list[str]:
        """What waits here for the VG's lock: a command for an LV takes that one first."""
        vg, state = vg_of(lockspace), self._context.state
        if vg is None or resource == VG_RESOURCE:
            return []
        where = (lockspace, VG_RESOURCE)
        uses = [use for use in self._locker.waiting() if (use.lockspace, use.resource) == where]
        if not uses:
            return []
        space = state.lockspaces.get(lockspace) if state else None
        held = in_queues(space.resources[VG_RESOURCE]) if space and VG_RESOURCE in space.resources else []
        others = [lock for _, lock in held if lock.held > Mode.NL and lock.owner != self._context.me]
        lines = [self._use_line(use) for use in uses]
        return lines + [self._holder_line(f"VG {vg}", lock) for lock in others]

    def _joining_lines(self, lockspace: str, space: Lockspace | None) -> list[str]:
        context, state = self._context, self._context.state
        lines = []
        for joiner, missing in sorted(space.joining.items()) if space else []:
            names = ", ".join(context.name(node) for node in missing)
            lines.append(f"{context.name(joiner)} joins {lockspace}: waits for the word of {names}")
        for name, joiner in state.pending_joins if state else []:
            if name == lockspace:
                lines.append(f"{context.name(joiner)} joins {lockspace} when it runs again")
        return lines

    def _who_lets_go(self, target: str, lockspace: str, resource: str, holders: list[Lock]) -> list[str]:
        state = self._context.state
        lines = []
        for lock in holders:
            if lock.owner == self._context.me or state is None or lock.owner not in state.lives:
                continue
            name = self._context.name(lock.owner)
            line = f"{name} is a ready member{self._heard(state, lock.owner)}"
            if is_kept(lockspace, resource):
                lines.append(f"{line}; next: the wait ends when it lets go; `ringfence locks` there says who")
            else:
                lines.append(f"{line}; next: on {name}, ringfence lvchange -an {target}")
        return lines

    # -- victims ------------------------------------------------------------------------------------

    def _frozen_line(self, lockspace: str) -> str:
        state = self._context.state
        assert state is not None
        blocking = state.blocking(lockspace)
        names = ", ".join(dict.fromkeys(self._context.name(one.life.node) for one in blocking))
        until = f"{names} is proven fenced"
        if all(state.domain.proven(one) for one in blocking):
            until = f"the write authority of {names}, proven fenced, has run out"
            if any(lockspace in state.unmarked(one) for one in blocking):
                until = f"{names}, proven fenced, is marked on the VG's disk, and its authority has run out"
        return f"lockspace {lockspace} is frozen: nothing is granted in it until {until}"

    def _victim_lines(self, victim: Victim) -> list[str]:
        context, state = self._context, self._context.state
        assert state is not None
        lines = victim_lines(context, state, victim, self._doing)
        if context.running is not None and context.me not in victim.bound:
            left_ms = context.hearing.bound_left_ms(victim.life, context.now_ns, context.config.timing)
            lines.append(
                f"purge bound: in {left_ms / 1000:.1f} s its write authority must have run out, "
                f"on the clock of {context.name(context.me)}"
            )
        if victim.round >= STUCK_ROUND and not state.domain.proven(victim):
            name = context.name(victim.life.node)
            lines.append(
                f"every device was tried {'once' if victim.round == 1 else f'{victim.round} times'}: "
                f"make sure that {name} is off, then: ringfence fence confirm {name}"
            )
        return lines


def _answer(target: str, stuck: bool, lines: list[str]) -> dict[str, Any]:
    return {"target": target, "stuck": stuck, "lines": list(dict.fromkeys(lines))}
