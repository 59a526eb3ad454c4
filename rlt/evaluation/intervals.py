"""Paired differences with Student's t interval. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from rlt.errors import DataError


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided 95 % confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values and its 95 % t interval; at least two values."""
    if len(values) < 2:
        raise DataError(f"a confidence interval needs at least two values, got {len(values)}")
    mean = fmean(values)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def paired_interval(before: dict[str, float], after: dict[str, float]) -> Interval:
    """Return the mean of `after - before` over the same keys, and its 95 % t interval."""
    if before.keys() != after.keys():
        only = sorted(before.keys() ^ after.keys())
        raise DataError(
            f"pairs need the same problems on both sides, but {len(only)} are on one only, e.g. {only[0]}"
        )
    return mean_interval([after[key] - before[key] for key in before])


def t_quantile(degrees: int, level: float = 0.95) -> float:
    """Return the t for which Student's distribution holds `level` of its mass between -t and t."""
    low, high = 0.0, 1e3
    while high - low > 1e-9 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if _central_mass(middle, degrees) < level else (low, middle)
    return (low + high) / 2


def _central_mass(t: float, degrees: int) -> float:
    """Return the mass between -t and t, by the finite sums that hold for whole degrees of freedom."""
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(degrees // 2):
        total += term
        # 1, 1/2, 1·3/(2·4), … times even powers of the cosine; 1, 2/3, 2·4/(3·5), … times odd ones
        term *= (2 * k + 1 + odd) / (2 * k + 2 + odd) * math.cos(angle) ** 2
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
