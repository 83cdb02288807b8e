"""The readiness barrier: from every member's first word in a view to who carries the state.

After each view every member multicasts `Ready`.  Once all were delivered, every member computes
the same `Verdict` from the same words, so no second round is needed.

What it promises: state is taken on only from members that took part in the last primary view
anyone knows of, that agree among themselves, and that nobody has declared a victim.  Where that
leaves nobody, nobody carries state, and the cluster may only begin afresh (with every absent node
as a victim of unknown life).

Of one primary epoch the longest state is not always the best.  A ring that is parted may deliver to each
side what the other misses, and a host that was frozen meanwhile may take in, late, what it alone has heard:
neither of the two states is then the beginning of the other.  The one that most members share goes on, of
several the longest, then the lowest member's; whoever has applied what it lacks is stale, for what its
clients asked stands in no state any more.  That is safe whichever it is.  What a node does stands on its own
state alone, so all that the dropped entries have led to was done by one who is stale.  In the carried state
that one is a victim in every lockspace that it was in, or had asked to join, when they parted; and it is in
no other, for a join needs the word of all who are ready, and whom its own side has called a victim meanwhile
is struck.  A fence proof that is dropped is sought again.

Where states differ of those who have applied the same, a rule or a memory is broken, and no choice is safe.

A member whose daemon stands still, or hangs, never says anything, though its host is in the ring.  The others
wait for it for a while and go on without it (`silent`, `leave_out`), if they can, as if it were not in the
view.

Rules that the safety model shows to be load-bearing: a later epoch on anyone's disk voids older
state ("epoch not kept on disk": a token goes back in 6 steps); a victim that returns is stale
("victim not stale on rejoin": two writers in 12)."""

from collections.abc import Collection, Mapping

import msgspec

from ringfence.core.cluster import ClusterConfig
from ringfence.core.ids import Epoch, Life
from ringfence.membership.quorum import is_primary, votes_of
from ringfence.wire import CLEAN_STOP, LEAVE_OUT, RAGGED_ENDS, UNSAID, WHOLE_PREFIX
from ringfence.wire.ring import Ready


class Verdict(msgspec.Struct, frozen=True):
    """What a complete barrier means.  Every member computes the same one.

    In a view that is not primary nobody takes, drops or begins anything: a suspended node keeps
    its state, so `behind`, `stale` and `empty` are empty there and `carriers` only informs."""

    primary: bool
    carriers: tuple[int, ...] = ()
    """Members whose state is the best: highest (primary epoch, position), digest agreed."""
    behind: tuple[int, ...] = ()
    """State that is the beginning of the carried one, in the same primary epoch: takes the snapshot, keeps
    its life."""
    stale: tuple[int, ...] = ()
    """State of an earlier primary epoch, or with entries that the carried one lacks, a minority's digest, or
    a life that is a victim or fenced:
    drops its data paths and comes back as a new incarnation."""
    empty: tuple[int, ...] = ()
    """No state yet: takes the snapshot."""
    fresh: bool = False
    """Nobody carries state, and the cluster may form a new one now."""
    again: bool = False
    """Fresh, but nobody can begin: all are stale, or have yet to close their data paths.  (Two nodes
    that called each other victims.)  Every member speaks once more, as whoever it is by then."""
    out: tuple[Life, ...] = ()
    """Fresh: lives that had left cleanly before, and have not been let in again since, sorted."""
    divergent: bool = False
    """Digests differ of those who have applied the same, and no majority agrees: all freeze and shout.  Never
    primary."""
    victims: tuple[Life, ...] = ()
    """Every life that any member knows as a victim, sorted."""
    sender: int | None = None
    """The lowest carrier: multicasts the snapshot, if anybody needs it."""
    procdown: tuple[int, ...] = ()
    """Nodes whose daemon left while their host stayed, as every carrier's ring reported it."""
    differs: tuple[int, ...] = ()
    """Members with another configuration: not ready, no vote in this view, to be named."""
    protocol: int = 1
    """What is spoken in this view."""
    foreign: tuple[int, ...] = ()
    """Members that do not speak it, or do not say: not ready, no vote in this view, to be named."""


class Barrier:
    """Collects the `Ready` of every member of one view."""

    def __init__(self, epoch: Epoch, members: tuple[int, ...]) -> None:
        self.epoch = epoch
        self.members = tuple(sorted(members))
        self._words: dict[int, tuple[Life, Ready]] = {}
        self.left_out: tuple[int, ...] = ()
        """Who is in the ring's view, and takes no part in it: nothing was heard of them in time."""
        self._void: tuple[int, ...] = ()
        """Members whose disks say nothing against anybody."""

    @property
    def complete(self) -> bool:
        return len(self._words) == len(self.members)

    @property
    def missing(self) -> tuple[int, ...]:
        """Members whose Ready has not been delivered yet."""
        return tuple(node for node in self.members if node not in self._words)

    def life(self, node: int) -> Life | None:
        """The life under which a member spoke in this barrier."""
        word = self._words.get(node)
        return word[0] if word else None

    def ready(self, node: int) -> Ready | None:
        word = self._words.get(node)
        return word[1] if word else None

    def add(self, node: int, life: Life, ready: Ready) -> None:
        """Note a member's word.  Until the barrier is complete a later word replaces an earlier one
        (the member went stale meanwhile); afterwards the verdict stands, whatever is said.  Who was left
        out, and is heard before that, is a member again."""
        if self.complete:
            return
        if node in self.left_out:
            self.left_out = tuple(one for one in self.left_out if one != node)
            self.members = tuple(sorted((*self.members, node)))
        if node in self.members:
            self._words[node] = (life, ready)

    def silent(self, config: ClusterConfig) -> tuple[int, ...]:
        """Members that have said nothing yet, if the others can go on without them; else nobody.

        They must carry the state, and be primary: a majority of them has then been through the last primary
        view, and none of those left out can know of a later one (two of two: as if the other were gone).
        And whoever is left out must understand that it is, when it goes on."""
        silent = self.missing
        rest = Barrier(self.epoch, tuple(node for node in self.members if node not in silent))
        rest._words = self._words
        if not silent or not rest.members:
            return ()
        verdict = rest.verdict(config)
        return silent if verdict.primary and verdict.carriers and verdict.protocol >= LEAVE_OUT else ()

    def leave_out(self, nodes: Collection[int]) -> None:
        """Go on without these members, as far as they have not spoken by now."""
        silent = tuple(node for node in self.missing if node in nodes)
        self.left_out = tuple(sorted((*self.left_out, *silent)))
        self.members = tuple(node for node in self.members if node not in silent)

    def verdict(self, config: ClusterConfig) -> Verdict:
        """Who carries the state, who takes it, who must start again.  Only once complete."""
        assert self.complete, f"barrier {self.epoch} still misses {self.missing}"
        victims = sorted({life for _, ready in self._words.values() for life in ready.victims})
        mute = tuple(node for node in self.members if self._words[node][1].speaks == UNSAID)
        differs = self._differs(config, tuple(node for node in self.members if node not in mute))
        alike = tuple(node for node in self.members if node not in (*differs, *mute))
        self._void = self._lost_halves(config)
        struck = self._struck()
        protocol = self._protocol(config, alike, struck)
        able = tuple(node for node in alike if protocol in self._words[node][1].speaks)
        top, divergent = self._best(tuple(node for node in able if node not in struck))
        carriers = () if divergent or self._outdated(top) else top
        # Beside a state that cannot be understood none may be begun: whoever has it may go on with it.
        unknown = any(self._words[node][1].has_state for node in mute)
        primary = not divergent and bool(carriers or not unknown) and is_primary(config, able, bool(carriers))
        behind, stale, empty = self._roles(able, carriers, struck) if primary else ((), (), ())
        fresh = primary and not carriers
        return Verdict(
            primary=primary,
            carriers=carriers,
            behind=behind,
            stale=stale,
            empty=empty,
            fresh=fresh,
            out=self._out() if fresh and protocol >= CLEAN_STOP else (),
            again=fresh and not any(self._words[node][1].reaped for node in empty),
            divergent=divergent,
            victims=tuple(victims),
            sender=carriers[0] if carriers and (behind or empty) else None,
            procdown=self._procdown(carriers),
            differs=differs,
            protocol=protocol,
            foreign=tuple(node for node in self.members if node not in (*differs, *able)),
        )

    def _lost_halves(self, config: ClusterConfig) -> tuple[int, ...]:
        """Of two that were parted, the one that comes back without state and had only suspected the other.

        Alone with a victim that was not proven fenced it had no authority, so it granted nothing in the
        epoch that its disk remembers, and that may well be the higher one: each half has its own.  Else a
        half that lost would strike down the one that went on, with all that is written there."""
        if not config.two_node:
            return ()
        lives = [life for life, word in self._words.values() if word.has_state]
        return tuple(
            node
            for node, (_, word) in self._words.items()
            if not word.has_state and any(one in word.victims and one not in word.fenced for one in lives)
        )

    def _struck(self) -> tuple[int, ...]:
        """Members whose present life somebody knows as a victim, or as fenced already.

        What only a disk remembers does not strike a member that has been through a later primary view
        than that disk: the view that gave it up has ended, and whoever remembers it has begun a new life
        since.  (Else the lost half of two, once fenced and back, would strike down the half that went on.)
        In the same primary view it does: a life can be given up, and purged, while the view goes on."""
        return tuple(node for node in self.members if self._accused(node))

    def _accused(self, node: int) -> bool:
        life, word = self._words[node]
        return any(
            (life in ready.victims or life in ready.fenced)
            and (ready.has_state or not word.has_state or word.primary <= ready.disk_epoch)
            for accuser, (_, ready) in self._words.items()
            if accuser not in self._void
        )

    def _best(self, nodes: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
        """Those with the highest (primary epoch, followers, position) that have applied the same as the first
        of them, and have the majority's digest; divergent?

        Heads are counted, not votes: a vote says how much a node's presence weighs, not its memory."""
        stateful = [(node, self._words[node][1]) for node in nodes if self._words[node][1].has_state]
        if not stateful:
            return (), False
        newest = max(ready.primary for _, ready in stateful)
        recent = [(node, ready) for node, ready in stateful if ready.primary == newest]
        rank = {
            node: (sum(self._begins(other, ready) for _, other in recent), ready.position)
            for node, ready in recent
        }
        best = max(rank.values())
        top = [(node, ready) for node, ready in recent if rank[node] == best]
        if self._all_speak(RAGGED_ENDS):
            _, lowest = top[0]
            top = [(node, ready) for node, ready in top if ready.told == lowest.told]
        digests = [ready.digest for _, ready in top]
        agreed = max(sorted(set(digests)), key=digests.count)
        if digests.count(agreed) * 2 <= len(digests):
            return (), True
        return tuple(node for node, ready in top if ready.digest == agreed), False

    def _all_speak(self, protocol: int) -> bool:
        """All members must judge alike, so none may be from before that."""
        return all(protocol in word.speaks for _, word in self._words.values())

    def _begins(self, ready: Ready, longer: Ready) -> bool:
        """Whether a state of the same primary epoch is the beginning of a longer one, or all of it.

        A ring delivers in one order, and leaves out: what was applied of each sender tells whether anything
        was left out.  A sender that only one of the two knows left, or was let in, in between."""
        if not self._all_speak(WHOLE_PREFIX):
            return ready.position <= longer.position
        return ready.position <= longer.position and all(
            count <= longer.told.get(node, count) for node, count in ready.told.items()
        )

    def _outdated(self, top: tuple[int, ...]) -> bool:
        """Some member's disk has seen a later primary epoch than the best state went through."""
        known = [ready.disk_epoch for node, (_, ready) in self._words.items() if node not in self._void]
        newest = max(known, default=Epoch())
        return bool(top) and newest > self._words[top[0]][1].primary

    def _out(self) -> tuple[Life, ...]:
        """Who had left cleanly before all that carried state were lost, and has not been back since.

        Whoever is let in again has authority only once a majority has kept that on disk.  One of these is
        here, for here is a majority too: with the highest epoch of all, or with the same as others that
        had not come so far.  So all who know of the highest epoch must agree; but for those whose memory of
        it ends with their own goodbye, where another has seen that goodbye, and so all that they had."""
        newest = max(ready.disk_epoch for _, ready in self._words.values())
        known = {node: ready.out for node, (_, ready) in self._words.items() if ready.disk_epoch == newest}
        told = [out for node, out in known.items() if not _seen_off(node, known)]
        lives = {life for out in told for life in out}
        return tuple(sorted(life for life in lives if all(life in out for out in told)))

    def _roles(
        self, able: tuple[int, ...], carriers: tuple[int, ...], struck: tuple[int, ...]
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        best = self._words[carriers[0]][1] if carriers else None
        behind: list[int] = []
        stale: list[int] = []
        empty: list[int] = []
        for node in able:
            ready = self._words[node][1]
            if node in carriers:
                continue
            if node in struck:
                stale.append(node)
            elif not ready.has_state:
                empty.append(node)
            elif (
                best
                and ready.primary == best.primary
                and ready.position < best.position
                and self._begins(ready, best)
            ):
                behind.append(node)
            else:
                stale.append(node)
        return tuple(behind), tuple(stale), tuple(empty)

    def _procdown(self, carriers: tuple[int, ...]) -> tuple[int, ...]:
        if not carriers:
            return ()
        first = self._words[carriers[0]][1].procdown
        return tuple(
            sorted(node for node in first if all(node in self._words[c][1].procdown for c in carriers))
        )

    def _protocol(self, config: ClusterConfig, alike: tuple[int, ...], struck: tuple[int, ...]) -> int:
        """What is spoken: as the carried state is written, unless all can do more.

        All are the *configured* nodes: one that is away for its own upgrade must not find, when it is
        back, that the others went on without it.  A protocol is never lowered while a state is carried:
        what was ordered in it could not be understood.  Where nobody carries state it is the one that
        has the most votes, the newest of those."""
        speaks = {node: self._words[node][1].speaks for node in alike}
        carriers, _ = self._best(tuple(node for node in alike if node not in struck))
        if not carriers or self._outdated(carriers):
            offered = sorted({one.high for one in speaks.values()})
            return max(offered, key=lambda p: (votes_of(config, [n for n in alike if p in speaks[n]]), p))
        active = self._words[carriers[0]][1].protocol
        complete = all(node.id in alike for node in config.nodes)
        common = min(one.high for one in speaks.values())
        if complete and common > active and all(common in one for one in speaks.values()):
            return common
        return active

    def _differs(self, config: ClusterConfig, nodes: tuple[int, ...]) -> tuple[int, ...]:
        """Those whose configuration is not the carriers'; without state, not the most votes'."""
        digests = {node: self._words[node][1].config_digest for node in nodes}
        carriers, _ = self._best(nodes)
        if carriers:
            right = digests[carriers[0]]
        else:
            weights = [
                (votes_of(config, [n for n in nodes if digests[n] == digests[node]]), -node)
                for node in nodes
            ]
            right = digests[-max(weights)[1]]
        return tuple(node for node in nodes if digests[node] != right)


def _seen_off(node: int, known: Mapping[int, tuple[Life, ...]]) -> bool:
    """Whether `node` remembers its own goodbye, its last word of that epoch, and so does another."""
    mine = [life for life in known[node] if life.node == node]
    return any(life in out for other, out in known.items() if other != node for life in mine)
