"""What many LVs are made of, in a few extents: they can be opened if, and only if, all of it can."""

import random
from pathlib import Path

from ringfence.block.extents import Extents, outline
from ringfence.core.errors import RingfenceError
from ringfence.wire.block import Extent, Place

SIZE_BYTES = 64 * 4096
UNITS = (4096, 512, 4096, 4096, 4096, 256)


def opens(extents: list[Extent]) -> bool:
    try:
        Extents(extents).close()
    except RingfenceError:
        return False
    return True


def draw(rng: random.Random, paths: list[str]) -> Extent:
    unit = rng.choice(UNITS)
    start = rng.randrange(-1 if rng.random() < 0.05 else 0, SIZE_BYTES // unit) * unit
    length = rng.randrange(0 if rng.random() < 0.05 else 1, 5) * unit
    if rng.random() < 0.2:
        beside = (Place(rng.choice(paths), rng.randrange(SIZE_BYTES // unit) * unit),)
        return Extent(rng.choice(paths), start, 2 * length, beside, unit)
    return Extent(rng.choice(paths), start, length)


def test_it_opens_if_and_only_if_each_does(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("one", "other")]
    for path in paths:
        Path(path).write_bytes(bytes(SIZE_BYTES))
    answers = []
    for seed in range(400):
        rng = random.Random(seed)
        extents = [draw(rng, [*paths, *[""] * (seed % 5 == 0)]) for _ in range(rng.randrange(1, 6))]
        assert opens(outline(extents)) == opens(extents), (seed, extents)
        answers.append(opens(extents))
    assert 100 < sum(answers) < 300
    assert not opens(outline([Extent(str(tmp_path / "none"), 0, 4096)]))


def test_it_is_short() -> None:
    many = [Extent(path, number * 8192, 4096) for path in ("/a", "/b") for number in range(1000)]
    assert len(outline(many)) == 4
