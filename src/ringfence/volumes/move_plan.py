"""pvmove, planned: which extents of which LVs lie where nothing is to be left, and where each of them goes.

Stock LVM2 gathers all of it in one temporary LV, pvmove0, and moves it through that; here each LV goes by
itself, under its own lock (`moves`), so that it can be moved by the host that uses it.  What is not moved
here is left where it is, and named.  Without `--alloc anywhere` no extent goes to the PV that it comes from,
nor to one that another stripe of the same segment lies on.

Source: LVM2 tools/pvmove.c (_get_allocatable_pvs, _set_up_pvmove_lv), lib/metadata/pv_manip.c."""

from collections.abc import Iterator, Sequence

import msgspec

from ringfence.core.errors import Refused
from ringfence.volumes.model import Lv, Stripe, Vg
from ringfence.volumes.moves import Move, check_stock, keepers, kept, set_apart
from ringfence.volumes.plan import Maker, check_plain, find_lv
from ringfence.volumes.policies import INHERIT, allocate
from ringfence.volumes.pv_list import free_areas


class Wanted(msgspec.Struct, frozen=True):
    """What is to be moved, and where it may go."""

    runs: tuple[Stripe, ...]
    """All on one PV."""
    lv: str = ""
    """Of this LV alone; empty: of all."""
    areas: tuple[Stripe, ...] | None = None
    """Free extents; None: all that are free on other PVs."""
    policy: str = INHERIT

    @property
    def pv(self) -> str:
        return self.runs[0].pv


class Plan(msgspec.Struct, frozen=True):
    moves: tuple[tuple[Lv, tuple[Move, ...]], ...]
    """Of LVs in the order of the text; nothing of what is on its way already."""
    stays: tuple[Refused, ...]
    """Why an LV that lies there is not moved; one for each."""

    @property
    def extents(self) -> int:
        return sum(move.source.extent_count for _, moves in self.moves for move in moves)


def plan_moves(vg: Vg, wanted: Wanted, most_lvs: int) -> Plan:
    """Choose the extents, for so many LVs at most.

    Raises NotFound, Refused: there is not room for all of them; a pvmove of stock LVM2's is under way."""
    check_stock(vg)
    only = find_lv(vg, wanted.lv) if wanted.lv else None
    keeping = {one.keeps_for: one for one in keepers(vg)}
    stays: list[Refused] = []
    lacking: list[tuple[Lv, list[_Piece]]] = []
    for name in dict.fromkeys(_names_on(vg, wanted.runs)):
        lv = vg.by_name[name]
        if lv.keeps_for or (only is not None and lv is not only):
            continue
        why = _why_it_stays(vg, lv)
        if why is not None:
            stays.append(why)
            continue
        pieces = list(_pieces(vg, lv, keeping.get(lv.uuid), wanted.runs))
        if pieces:
            lacking.append((lv, pieces))
    areas = wanted.areas if wanted.areas is not None else free_areas(vg)
    _check_room(vg, wanted, areas, sum(piece.run.extent_count for _, pieces in lacking for piece in pieces))
    moves = []
    for lv, pieces in lacking[:most_lvs]:
        policy = _policy(vg, lv, wanted)
        mine: list[Move] = []
        for piece in pieces:
            rows = _allocated(areas, piece, policy, mine)
            areas = _less(areas, rows)
            mine += _paired(piece.run, rows)
        moves.append((lv, tuple(mine)))
    return Plan(tuple(moves), tuple(stays))


def reserve(vg: Vg, plan: Plan, uuids: Sequence[str], maker: Maker) -> Vg:
    """The VG with all of a plan's places set apart.  Args: uuids: fresh ones, one for each LV."""
    keeping = {one.keeps_for: one for one in keepers(vg)}
    for (lv, moves), uuid in zip(plan.moves, uuids, strict=True):
        vg = set_apart(vg, lv, keeping.get(lv.uuid), moves, uuid, maker)
    return vg


def _why_it_stays(vg: Vg, lv: Lv) -> Refused | None:
    if lv.slots:
        return Refused(
            f"Logical volume {vg.name}/{lv.name} holds the disk slots of the VG",
            next=f"with the VG stopped on every host: lvm pvmove -n {lv.name}",
        )
    try:
        check_plain(vg, lv, f"lvm pvmove -n {lv.name}")
    except Refused as error:
        return error
    return None


class _Piece(msgspec.Struct, frozen=True):
    run: Stripe
    beside: tuple[str, ...]
    """PVs of the other stripes of its segment."""


def _names_on(vg: Vg, runs: Sequence[Stripe]) -> Iterator[str]:
    on = {
        name
        for run in runs
        for use in (vg.index.uses[run.pv].exact, vg.index.uses[run.pv].guessed)
        for start, end, name in use
        if start < run.start_extent + run.extent_count and run.start_extent < end
    }
    yield from (name for name in vg.by_name if name in on)


def _pieces(vg: Vg, lv: Lv, keeper: Lv | None, runs: Sequence[Stripe]) -> Iterator[_Piece]:
    """What of an LV lies there and is not on its way already; in the order of the LV."""
    going = [move.source for move in kept(vg, keeper).moves] if keeper is not None else []
    for segment in lv.segments:
        for number, stripe in enumerate(segment.stripes):
            beside = tuple(one.pv for at, one in enumerate(segment.stripes) if at != number)
            for run in sorted(runs, key=lambda one: one.start_extent):
                common = _common(stripe, run)
                for part in _outside(common, going) if common is not None else ():
                    yield _Piece(part, beside)


def _common(one: Stripe, other: Stripe) -> Stripe | None:
    first = max(one.start_extent, other.start_extent)
    last = min(one.start_extent + one.extent_count, other.start_extent + other.extent_count)
    return Stripe(one.pv, first, last - first) if one.pv == other.pv and first < last else None


def _outside(run: Stripe, taken: Sequence[Stripe]) -> list[Stripe]:
    """What of a run is in none of these."""
    parts = [run]
    for one in taken:
        parts = [left for part in parts for left in _minus(part, one)]
    return parts


def _minus(run: Stripe, taken: Stripe) -> list[Stripe]:
    common = _common(run, taken)
    if common is None:
        return [run]
    behind = common.start_extent + common.extent_count
    return [
        Stripe(run.pv, first, last - first)
        for first, last in (
            (run.start_extent, common.start_extent),
            (behind, run.start_extent + run.extent_count),
        )
        if first < last
    ]


def _policy(vg: Vg, lv: Lv, wanted: Wanted) -> str:
    policy = next(
        one
        for one in (wanted.policy, lv.policy, vg.header.string("allocation_policy") or "", "normal")
        if one not in ("", INHERIT)
    )
    return "cling" if policy == "cling_by_tags" else policy


def _check_room(vg: Vg, wanted: Wanted, areas: Sequence[Stripe], extents: int) -> None:
    free = sum(area.extent_count for area in areas if area.pv != wanted.pv or wanted.policy == "anywhere")
    if extents > free:
        raise Refused(
            f'Volume group "{vg.name}" has insufficient free space ({free} extents elsewhere): '
            f"{extents} required",
            next="move less: extents (PV:0-99), or one LV (-n); or add a PV: vgextend",
        )


def _allocated(
    areas: Sequence[Stripe], piece: _Piece, policy: str, before: Sequence[Move]
) -> Sequence[Stripe]:
    """Where a piece goes: where the LV's piece before it went on, if there is room, else anew."""
    barred = () if policy == "anywhere" else (piece.run.pv, *piece.beside)
    fit = [area for area in areas if area.pv not in barred]
    if before and not piece.beside:
        last = before[-1].target
        end = last.start_extent + last.extent_count
        behind = next((one for one in fit if (one.pv, one.start_extent) == (last.pv, end)), None)
        if behind is not None and behind.extent_count >= piece.run.extent_count:
            return (Stripe(behind.pv, end, piece.run.extent_count),)
    return [row[0] for row in allocate(fit, piece.run.extent_count, policy=policy)]


def _less(areas: Sequence[Stripe], taken: Sequence[Stripe]) -> tuple[Stripe, ...]:
    return tuple(part for area in areas for part in _outside(area, taken))


def _paired(run: Stripe, targets: Sequence[Stripe]) -> Iterator[Move]:
    at = run.start_extent
    for target in targets:
        yield Move(Stripe(run.pv, at, target.extent_count), target)
        at += target.extent_count
