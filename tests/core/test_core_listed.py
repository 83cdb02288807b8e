"""Long lists, as people are told of them."""

import pytest

from ringfence.core.listed import listed


@pytest.mark.parametrize(
    ("names", "told"),
    [([], ""), (["a"], "a"), (["a", "b"], "a, b"), (("a", "b", "c"), "a, b and 1 more")],
)
def test_the_first_and_how_many_more(names: list[str], told: str) -> None:
    assert listed(names, 2) == told
