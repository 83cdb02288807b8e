"""The fence domain: victims, the evidence about them, the attempts on them, devices that lied.

Replicated: every node holds the same domain, changed only through the methods below, which the
ordered state calls while it applies entries.  Pure: no clock, no randomness; dates are arguments.

What it promises: a life leaves the victims only through `purged`, and that only after evidence
that counts, and (unless its own successor closed its volumes) after every ready member has said
that the life's write authority must have run out; or through `adopted`, before anybody has begun to
do anything about it.  A life that speaks after its power was "cut"
is a victim again, and the devices that vouched for it are believed no more.

Source: topology and takeover as in cman's fenced and dlm_controld (the lowest node acts, then the
next, levels in order, for ever); what is new is that success is a record, not an exit status."""

from collections.abc import Collection, Iterable

import msgspec

from ringfence.core.evidence import CUTS, DEFAULT_EVIDENCE, Evidence, EvidenceKind
from ringfence.core.ids import Epoch, Life
from ringfence.fencing.level_run import device_of, refuted, switched_off
from ringfence.fencing.policy import POLICY, accepts, why_not
from ringfence.wire.entries import DeviceWord

ATTEMPTS_KEPT = 20
FENCED_KEPT = 64
FENCED_KEPT_PER_NODE = 8
REFUTED_TOO_OFTEN = 2
"""Once may be a frame that was under way when the power went."""


class Attempt(msgspec.Struct):
    """One member's run of one level against one victim."""

    number: int
    actor: int
    level: int
    began_wall_ms: int = 0
    ended: bool = False
    passed: bool = False
    verdict: str = ""
    words: tuple[DeviceWord, ...] = ()
    next_in_ms: int = 0
    """How long the actor said it would wait before the next attempt."""
    covers: list[Life] = []
    """The same node's other victims when it began: power that is cut afterwards is cut for all."""


class Victim(msgspec.Struct):
    """A life that must be fenced before anything it held may move."""

    life: Life
    since: Epoch
    since_wall_ms: int = 0
    reason: str = ""
    """One line: "lost from view 5.1", "its daemon ended", "the fence lied"."""
    due: bool = False
    """False while a grace period or the post-join delay runs: it may come back by itself."""
    lockspaces: list[str] = []
    """Those it was in; a life that we know nothing of may have been in any."""
    evidence: list[Evidence] = []
    lied: bool = False
    """It was given up for fenced once, and spoke again."""
    distrusted: list[str] = []
    """Devices that vouched for its end and were refuted: never believed about it again.  "new-boot" among
    them: two machines share its identity, so that another boot proves nothing about it."""
    attempts: list[Attempt] = []
    """The last 20; the running one is `current` and joins them when it ends."""
    number: int = 0
    """Attempts so far."""
    level: int = 0
    """Next level to try, from 0."""
    turn: int = 0
    """How many members' turns have passed."""
    tried: list[int] = []
    """Members whose turn of this round has passed."""
    round: int = 0
    """How often every ready member has had its turn."""
    current: Attempt | None = None
    bound: list[int] = []
    """Nodes on whose clocks its write authority must have run out."""


class FencedRecord(msgspec.Struct):
    """A life that is over (given up for fenced, or adopted); kept, so that a word from it is noticed."""

    life: Life
    evidence: list[Evidence]
    lockspaces: list[str]
    since: Epoch
    number: int = 0
    next_level: int = 0
    """Where fencing would go on if this turns out to be a lie."""


class Lie(msgspec.Struct, frozen=True):
    """A fence was believed, and its victim spoke."""

    life: Life
    """The life that had been given up."""
    spoke: Life
    """What was heard: the same life, or a later incarnation under the same boot."""
    devices: tuple[str, ...]
    """Quarantined for it; empty after an operator's word."""
    evidence: tuple[Evidence, ...]
    lockspaces: tuple[str, ...]
    moved: bool
    """Its locks had been cleaned up already."""
    what: str


class Domain(msgspec.Struct):
    victims: list[Victim] = []
    """Sorted by life."""
    fenced: list[FencedRecord] = []
    """In the order in which they were given up."""
    quarantined: dict[str, str] = {}
    """Device -> why: still fired, no longer believed."""
    refuted: dict[str, int] = {}
    """How often each device's claim was contradicted on the spot."""

    # -- reading -----------------------------------------------------------------

    def victim(self, life: Life) -> Victim | None:
        return next((victim for victim in self.victims if victim.life == life), None)

    def of_node(self, node: int) -> list[Victim]:
        return [victim for victim in self.victims if victim.life.node == node]

    def counts(self, victim: Victim, evidence: Evidence) -> bool:
        """Whether evidence on record is still believed: none of its devices has lied since."""
        if evidence.kind.value in victim.distrusted:
            return False
        return not any(
            device in self.quarantined or device in victim.distrusted for device in evidence.devices
        )

    def proven(self, victim: Victim) -> bool:
        """There is evidence that this life can no longer write."""
        return any(self.counts(victim, evidence) for evidence in victim.evidence)

    def ended_itself(self, victim: Victim) -> bool:
        """It is proven that nothing of this life runs, by its own successor or its host's next boot."""
        kinds = (EvidenceKind.VOLUMES_CLOSED, EvidenceKind.NEW_BOOT)
        return any(one.kind in kinds and self.counts(victim, one) for one in victim.evidence)

    def fenced_lives(self) -> tuple[Life, ...]:
        """Lives given up for fenced, for `Ready`: whoever still lives one must start again."""
        return tuple(sorted({record.life for record in self.fenced}))

    def barred(self, life: Life) -> bool:
        """Whether `life` is, or shares its boot with, one that was fenced by a lie and runs on."""
        return any(
            victim.lied and (victim.life == life or victim.life.same_boot(life)) for victim in self.victims
        )

    # -- victims come ------------------------------------------------------------

    def add(
        self, life: Life, since: Epoch, reason: str, due: bool, lockspaces: Collection[str], wall_ms: int
    ) -> Victim | None:
        """A life was lost without a clean leave.

        To add a victim again changes nothing but that it is due, and in more lockspaces.

        Returns: the victim; None if this very life was given up for fenced already (a member that
        was away remembers an old victim): only its own voice makes it a victim again."""
        if any(record.life == life for record in self.fenced):
            return None
        victim = self.victim(life)
        if victim is None:
            victim = Victim(life, since, since_wall_ms=wall_ms, reason=reason, due=due)
            self.victims = sorted([*self.victims, victim], key=lambda one: one.life)
        victim.due = victim.due or due
        victim.lockspaces = sorted({*victim.lockspaces, *lockspaces})
        return victim

    def spoke(
        self, life: Life, wall_ms: int, epoch: Epoch, cuts: Collection[EvidenceKind] = CUTS
    ) -> Lie | None:
        """A frame of `life` was delivered.  If its power was "cut", the fence lied.

        Every life of that boot which was given up on a cut is a victim again, at once due; the
        devices behind the evidence are quarantined, and what they said of it counts no more.

        Args: cuts: the kinds of evidence that were a "cut".

        Returns: what to record, or None if there is nothing wrong with hearing it."""
        first: Lie | None = None
        for record in [one for one in self.fenced if _same(one.life, life) and _cut(one.evidence, cuts)]:
            lie = self._expose(record, life, cuts, moved=True)
            self.fenced.remove(record)
            victim = Victim(record.life, epoch, wall_ms, number=record.number, level=record.next_level)
            self.victims = sorted([*self.victims, victim], key=lambda one: one.life)
            self._again(victim, lie, record.lockspaces)
            first = first or lie
        for victim in self.victims:
            if _same(victim.life, life) and _cut(victim.evidence, cuts):
                record = self._record(victim)
                lie = self._expose(record, life, cuts, moved=False)
                victim.since, victim.since_wall_ms, victim.level = epoch, wall_ms, record.next_level
                self._again(victim, lie, record.lockspaces)
                first = first or lie
        return first

    def _expose(
        self, record: FencedRecord, spoke: Life, kinds: Collection[EvidenceKind], *, moved: bool
    ) -> Lie:
        cuts = tuple(evidence for evidence in record.evidence if evidence.kind in kinds)
        devices = tuple(dict.fromkeys(device for evidence in cuts for device in evidence.devices))
        words = "; ".join(evidence.how for evidence in cuts)
        what = f"{spoke} speaks, though life {record.life} was given up for fenced ({words}): the fence lied"
        self.quarantine(devices, f"vouched that {record.life} was off, and {spoke} spoke")
        return Lie(record.life, spoke, devices, cuts, tuple(record.lockspaces), moved, what)

    def _again(self, victim: Victim, lie: Lie, lockspaces: list[str]) -> None:
        """Fence it anew.  What was said and seen before it spoke is void, the purge bound too."""
        victim.lied = victim.due = True
        victim.reason = "the fence lied"
        victim.lockspaces = sorted({*victim.lockspaces, *lockspaces})
        kinds = [one.kind.value for one in lie.evidence if one.kind is EvidenceKind.NEW_BOOT]
        victim.distrusted = sorted({*victim.distrusted, *lie.devices, *kinds})
        victim.evidence, victim.attempts, victim.bound, victim.tried = [], [], [], []
        victim.current = None

    # -- evidence ------------------------------------------------------------------

    def witness(
        self,
        evidence: Evidence,
        *,
        naive: bool = False,
        words: Collection[str] = DEFAULT_EVIDENCE,
        virtual: bool = False,
    ) -> bool:
        """Take evidence that was multicast.  Returns whether it counts.

        It counts only for the very life it names (power that an attempt has cut counts for the
        node's other lives that were victims when the attempt began), if the policy accepts its
        kind, and if none of its devices has been caught lying.

        Args: as `policy.accepts`."""
        victim = self.victim(evidence.life)
        if victim is None or self.refusal(evidence, naive=naive, words=words, virtual=virtual):
            return False
        for life in [evidence.life, *self._covered(victim, evidence)]:
            other = self.victim(life)
            if other is None:
                continue
            copy = msgspec.structs.replace(evidence, life=life)
            accepted = accepts(copy.kind, lied=other.lied, naive=naive, words=words, virtual=virtual)
            if accepted and self.counts(other, copy) and copy not in other.evidence:
                other.evidence = [*other.evidence, copy]
        return True

    def refusal(
        self, evidence: Evidence, *, naive: bool, words: Collection[str], virtual: bool
    ) -> str:
        """For people: why `witness` does not take it; "": it does.  Arguments as there."""
        victim = self.victim(evidence.life)
        if victim is None:
            return f"{evidence.life} does not wait to be fenced"
        if not accepts(evidence.kind, lied=victim.lied, naive=naive, words=words, virtual=virtual):
            return why_not(evidence.kind, lied=victim.lied, words=words, virtual=virtual)
        if not self.counts(victim, evidence):
            return f"{', '.join(evidence.devices) or 'its boot id'} vouched for a lie before"
        by_attempt = POLICY[evidence.kind].by_attempt and (victim.lied or victim.life.unknown)
        if by_attempt and self._attempt_of(victim, evidence) is None:
            return "it may be older than the loss"
        return ""

    def _attempt_of(self, victim: Victim, evidence: Evidence) -> Attempt | None:
        """The witness's newest attempt since this victim was made: its evidence is not older."""
        attempts = [*victim.attempts, *([victim.current] if victim.current else [])]
        return next((one for one in reversed(attempts) if one.actor == evidence.seen_by), None)

    def _covered(self, victim: Victim, evidence: Evidence) -> list[Life]:
        if evidence.kind not in (EvidenceKind.HOST_OFF, EvidenceKind.OUTLETS_OFF):
            return []
        attempt = self._attempt_of(victim, evidence)
        return attempt.covers if attempt else []

    def remember_liars(self, quarantined: Iterable[tuple[str, str]]) -> None:
        """What a disk knows of devices that were caught lying, for a state that begins afresh."""
        for device, why in quarantined:
            self.quarantined.setdefault(device, why)

    def quarantine(self, devices: Collection[str], why: str) -> None:
        """Devices were caught lying (by a drill, or a life that goes on): still fired, no longer believed."""
        for device in devices:
            self.quarantined.setdefault(device, why)

    def release_quarantine(self, device: str) -> None:
        """A drill passed, or an operator trusts the device again.  What it said stays void."""
        self.quarantined.pop(device, None)

    # -- attempts --------------------------------------------------------------------

    def switched_off(self, victim: Victim) -> dict[str, int]:
        """Uses that were explicitly switched off since this is a victim, with the attempt in which that was.

        Also in an attempt on another life of the node, if this one was a victim when it began.  Not by a
        device that was refuted `REFUTED_TOO_OFTEN` times: it cannot switch this host off, and that it
        was told to is no reason to believe its "already off"."""
        found: dict[str, int] = {}
        refuted_by: dict[str, int] = {}
        for attempt in self._attempts_about(victim):
            found |= switched_off(attempt.words, attempt.number)
            for device in refuted(attempt.verdict, attempt.words):
                refuted_by[device] = refuted_by.get(device, 0) + 1
        return {
            label: number
            for label, number in found.items()
            if refuted_by.get(device_of(label), 0) < REFUTED_TOO_OFTEN
        }

    def _attempts_about(self, victim: Victim) -> list[Attempt]:
        return [
            attempt
            for other in self.of_node(victim.life.node)
            for attempt in [*other.attempts, *([other.current] if other.current is not None else [])]
            if other is victim or victim.life in attempt.covers
        ]

    def actor_for(self, victim: Victim, ready: tuple[int, ...]) -> int | None:
        """Whose turn it is: the lowest ready member that has not tried in this round.

        Never the victim's own node, though it may be back in a later life."""
        able = [node for node in sorted(ready) if node != victim.life.node]
        untried = [node for node in able if node not in victim.tried]
        return next(iter(untried or able), None)

    def ends_round(self, victim: Victim, ready: tuple[int, ...], levels: int) -> bool:
        """Whether a failure of the running attempt means that every ready member has tried every
        level: then comes the pause (`actor.backoff_ms`), which whoever is next must wait out."""
        attempt = victim.current
        return (
            attempt is not None
            and attempt.level + 1 >= levels
            and all(
                node == attempt.actor or node in victim.tried for node in ready if node != victim.life.node
            )
        )

    def began(self, life: Life, actor: int, level: int, number: int, wall_ms: int) -> bool:
        """A member starts the victim's next level.  Returns False for a stale or doubled word."""
        victim = self.victim(life)
        if victim is None or victim.current is not None or number != victim.number + 1:
            return False
        others = [other.life for other in self.of_node(life.node) if other is not victim]
        victim.current = Attempt(number, actor, level, wall_ms, covers=others)
        victim.number, victim.level = number, level
        return True

    def said(self, life: Life, actor: int, number: int, word: DeviceWord) -> bool:
        """An agent of the running attempt ended.  Returns False if no such attempt runs."""
        victim = self.victim(life)
        attempt = victim.current if victim is not None else None
        if attempt is None or (attempt.actor, attempt.number) != (actor, number):
            return False
        attempt.words = (*attempt.words, word)
        return True

    def ended(
        self,
        life: Life,
        number: int,
        passed: bool,
        verdict: str,
        words: tuple[DeviceWord, ...] = (),
        next_in_ms: int = 0,
        *,
        ready: tuple[int, ...],
        levels: int,
    ) -> bool:
        """The running attempt ended.  Unless it brought evidence, the next level is due, and after
        the last level the next member's turn.  Returns False if no such attempt runs."""
        victim = self.victim(life)
        if victim is None or victim.current is None or victim.current.number != number:
            return False
        attempt = victim.current
        attempt.passed, attempt.verdict, attempt.words = passed, verdict, words
        attempt.next_in_ms = next_in_ms
        self._close(victim)
        if not self.proven(victim):
            victim.level = attempt.level + 1
            if victim.level >= levels:
                self._pass_turn(victim, attempt.actor, ready)
        return True

    def actor_gone(self, ready: tuple[int, ...]) -> None:
        """Attempts of members that are not ready any more end here, and the turn passes.

        What such an agent still does cannot be known: the next member begins at the first level."""
        for victim in self.victims:
            attempt = victim.current
            if attempt is not None and attempt.actor not in ready:
                attempt.verdict = "the acting member left"
                self._close(victim)
                self._pass_turn(victim, attempt.actor, ready)
            elif victim.tried:
                self._end_round(victim, ready)

    def stopped(self, verdict: str) -> None:
        """No agent may run any more: running attempts end without a result, and the turn stays."""
        for victim in self.victims:
            if victim.current is not None:
                victim.current.verdict = verdict
                self._close(victim)

    def contradicted(self, devices: Collection[str]) -> None:
        """Devices claimed "off" and were refuted on the spot.  Nothing was believed, so they are
        counted but not quarantined: that is for lies found out after the fact."""
        for device in devices:
            self.refuted[device] = self.refuted.get(device, 0) + 1

    def _close(self, victim: Victim) -> None:
        assert victim.current is not None
        victim.current.ended = True
        victim.attempts = [*victim.attempts, victim.current][-ATTEMPTS_KEPT:]
        victim.current = None

    def _pass_turn(self, victim: Victim, actor: int, ready: tuple[int, ...]) -> None:
        victim.turn += 1
        victim.level = 0
        victim.tried = sorted({*victim.tried, actor})
        self._end_round(victim, ready)

    def _end_round(self, victim: Victim, ready: tuple[int, ...]) -> None:
        if all(node in victim.tried for node in ready if node != victim.life.node):
            victim.round += 1
            victim.tried = []

    # -- victims go --------------------------------------------------------------------

    def bound_passed(self, life: Life, node: int) -> None:
        """On the clock of `node`, this life's write authority must have run out."""
        victim = self.victim(life)
        if victim is not None:
            victim.bound = sorted({*victim.bound, node})

    def purgeable(self, ready: tuple[int, ...]) -> list[Life]:
        """Lives whose locks may be cleaned up now: proven, and past the bound on every ready clock.

        A life whose own successor has verified that its volumes are closed has nothing left to
        run out."""
        return [
            victim.life
            for victim in self.victims
            if self.proven(victim)
            and (self._closed(victim) or (ready and all(node in victim.bound for node in ready)))
        ]

    def _closed(self, victim: Victim) -> bool:
        return any(evidence.kind is EvidenceKind.VOLUMES_CLOSED for evidence in victim.evidence)

    def purged(self, life: Life) -> FencedRecord:
        """The caller cleans up the life's locks now: it is a victim no more, but never forgotten."""
        victim = self.victim(life)
        assert victim is not None, f"{life} is no victim"
        assert self.proven(victim), f"{life} is purged without evidence"
        record = self._record(victim)
        return self._given_up(victim, record)

    def adopted(self, life: Life, evidence: Evidence) -> FencedRecord:
        """Its successor goes on with its volumes: it need not be fenced, and never comes back itself."""
        victim = self.victim(life)
        assert victim is not None, f"{life} is no victim"
        late = victim.due or victim.lied or bool(victim.evidence)
        assert not late, f"{life} is adopted too late"
        victim.evidence = [evidence]
        return self._given_up(victim, self._record(victim))

    def _given_up(self, victim: Victim, record: FencedRecord) -> FencedRecord:
        self.victims = [other for other in self.victims if other is not victim]
        self.fenced = _pruned([*self.fenced, record])
        return record

    def _record(self, victim: Victim) -> FencedRecord:
        levels = [attempt.level for attempt in victim.attempts if attempt.passed]
        if victim.current is not None:
            levels.append(victim.current.level)  # its evidence came, its end did not yet
        next_level = levels[-1] + 1 if levels else victim.level
        return FencedRecord(
            victim.life, victim.evidence, victim.lockspaces, victim.since, victim.number, next_level
        )


def _same(one: Life, other: Life) -> bool:
    return (one == other and not one.unknown) or one.same_boot(other)


def _cut(evidences: list[Evidence], cuts: Collection[EvidenceKind]) -> bool:
    return any(evidence.kind in cuts for evidence in evidences)


def _pruned(records: list[FencedRecord]) -> list[FencedRecord]:
    """The newest 64, and of every node the latest 8 whatever their age; order kept."""
    kept: list[FencedRecord] = []
    per_node: dict[int, int] = {}
    for age, record in enumerate(reversed(records)):
        per_node[record.life.node] = per_node.get(record.life.node, 0) + 1
        if age < FENCED_KEPT or per_node[record.life.node] <= FENCED_KEPT_PER_NODE:
            kept.append(record)
    return kept[::-1]
