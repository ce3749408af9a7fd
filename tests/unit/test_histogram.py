from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_sked import histogram

COUNTS = st.lists(st.integers(0, 1000), min_size=histogram.CLASSES, max_size=histogram.CLASSES)


def test_a_bound_belongs_to_the_class_below_it() -> None:
    assert [histogram.class_of(seconds) for seconds in (-1.0, 0.0, 0.001, 0.0011, 3600.0, 3601.0)] == [
        0,
        0,
        0,
        1,
        17,
        18,
    ]


def test_of_nothing_there_is_no_quantile() -> None:
    assert histogram.quantile([0] * histogram.CLASSES, 0.5) is None


@pytest.mark.parametrize(("share", "seconds"), [(0.5, 0.001), (0.95, 0.0955), (1.0, 0.1)])
def test_a_quantile_lies_in_its_class(share: float, seconds: float) -> None:
    counts = [50, 0, 0, 0, 0, 0, 50, *[0] * 12]

    assert histogram.quantile(counts, share) == pytest.approx(seconds, abs=0.001)


def test_beyond_the_last_bound_nobody_knows_how_late_it_is() -> None:
    assert histogram.quantile([0] * 18 + [7], 0.5) == math.inf
    assert histogram.quantile([0] * 17 + [7, 0], 1.0) == 3600.0


@given(COUNTS, COUNTS)
def test_quantiles_rise_and_those_of_a_sum_lie_between_those_of_its_parts(one: list[int], other: list[int]) -> None:
    both = [a + b for a, b in zip(one, other, strict=True)]
    for share in (0.5, 0.95, 0.99):
        parts = [
            each for each in (histogram.quantile(one, share), histogram.quantile(other, share)) if each is not None
        ]
        whole = histogram.quantile(both, share)
        if whole is not None:
            assert min(parts) - 1e-9 <= whole <= max(parts) + 1e-9
    quantiles = [histogram.quantile(both, share) or 0.0 for share in (0.1, 0.5, 0.95, 0.99, 1.0)]
    assert quantiles == sorted(quantiles)


@given(st.floats(-10, 10_000))
def test_a_value_lies_within_the_bounds_of_its_class(seconds: float) -> None:
    number = histogram.class_of(seconds)
    assert number == len(histogram.BOUNDS) or seconds <= histogram.BOUNDS[number]
    assert number == 0 or seconds > histogram.BOUNDS[number - 1]
