"""A short run of the fuzzer on cases that nobody has seen; `make fuzz MINUTES=60` is a long one."""

import time

import fuzz
import pytest

SECONDS = 6
"""Of CPU."""


@pytest.mark.timeout(600)  # where others want the CPU, too
def test_nothing_that_is_read_crashes_us() -> None:
    first = time.time_ns() // 1000
    print(f"from case {first} on")
    assert fuzz.run(first, SECONDS) > 100


def test_a_case_is_made_from_its_number_alone() -> None:
    made = fuzz.corpus()
    assert [fuzz.case(number, *made) for number in range(50)] == [
        fuzz.case(number, *fuzz.corpus()) for number in range(50)
    ]
