"""Lengths of completions for the benchmarks: all equal, or with the long tail that sampled text has."""

from __future__ import annotations

import math
import random

MEAN_SHARE = 1 / 4
"""Of the limit: the mean length, as in the forecast."""


def lengths(mix: str, count: int, limit: int) -> list[int]:
    """Return tokens of each completion: a quarter of the limit in the mean.

    lognormal: with sigma 1, always the same, the first one at the limit.
    """
    if mix == "equal":
        return [max(1, round(MEAN_SHARE * limit))] * count
    draw = random.Random(0)
    shape = [math.exp(draw.gauss(0, 1)) for _ in range(count - 1)]

    def scaled(scale: float) -> list[int]:
        return [limit, *(max(1, min(limit, round(scale * x))) for x in shape)]

    low, high = 0.0, float(limit)
    while high - low > 1e-6 * limit:
        middle = (low + high) / 2
        low, high = (low, middle) if sum(scaled(middle)) > MEAN_SHARE * limit * count else (middle, high)
    return scaled(low)
