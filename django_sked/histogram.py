"""How late messages were started: counts by class, which can be added up over minutes, queues and workers."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

#: The upper bounds of the classes, in seconds; what is later than the last of them is in one more class.
BOUNDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
)
CLASSES = len(BOUNDS) + 1


def class_of(seconds: float) -> int:
    """The class of one value; what is not late at all is in the first."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Seconds below which this share of all lies, from 0 to 1; None when there are none.

    As exact as the classes: within one, values are taken to be spread evenly. In the last class, which has
    no upper bound, infinity.
    """
    wanted = share * sum(counts)
    if not wanted:
        return None
    below = 0
    for index, count in enumerate(counts[: len(BOUNDS)]):
        if count and below + count >= wanted:
            lower = BOUNDS[index - 1] if index else 0.0
            return lower + (BOUNDS[index] - lower) * (wanted - below) / count
        below += count
    return math.inf
