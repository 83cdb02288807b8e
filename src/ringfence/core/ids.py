"""Who and when: nodes, lives, epochs and fencing tokens.

A *life* is one continuous existence of one node's daemon state: a node id, on one enrolled
machine, under one boot of it, in one incarnation.  Evidence is always about a life, never
about a node, so that proof about last week's boot says nothing about today's."""

import msgspec


class Life(msgspec.Struct, frozen=True, order=True, array_like=True):
    """One life of a node.  All fields empty but `node` means: a life that we know nothing of."""

    node: int
    machine: str = ""
    boot: str = ""
    incarnation: int = 0

    @property
    def unknown(self) -> bool:
        return not self.boot

    def same_boot(self, other: "Life") -> bool:
        """True if both are incarnations within one boot of one machine (never for unknown lives)."""
        return (
            self.node == other.node
            and self.boot == other.boot
            and self.machine == other.machine
            and not self.unknown
        )

    def __str__(self) -> str:
        return f"{self.node}/{self.boot[:8] or 'unknown'}.{self.incarnation}"


class Epoch(msgspec.Struct, frozen=True, order=True, array_like=True):
    """A view's number: the ring's sequence, then its representative (lowest member)."""

    seq: int = 0
    rep: int = 0

    def __str__(self) -> str:
        return f"{self.seq}.{self.rep}"


class Token(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """A fencing token: where in the total order a grant was made.  Orders by its parts."""

    seq: int
    rep: int
    position: int

    @property
    def epoch(self) -> Epoch:
        return Epoch(self.seq, self.rep)

    def __str__(self) -> str:
        return f"{self.seq}.{self.rep}.{self.position}"

    @classmethod
    def parse(cls, text: str) -> "Token":
        """Inverse of str().  Raises ValueError on anything else."""
        seq, rep, position = text.split(".")
        return cls(int(seq), int(rep), int(position))
