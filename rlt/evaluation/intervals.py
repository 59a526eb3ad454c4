"""95 % confidence intervals of means over problems. Plain numbers in, plain numbers out.

Problems are drawn at random, and the samples of one depend on each other, so the problem is the unit. The
methods for shares were chosen by simulation (scripts/interval_coverage.py), because Student's interval covers
77 % of the time instead of 95 where few problems are solved:

* a share: Clopper and Pearson (1934) with an effective sample size, as in Korn and Graubard (1998);
  Student's quantile takes its degrees of freedom from the kurtosis of the problems;
* a difference of shares: Student's interval with half of these degrees of freedom; where few problems differ,
  or each change is whole, those of gains and losses combined by MOVER (Newcombe 1998, Zou and Donner 2008).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from rlt.errors import DataError
from rlt.evaluation.special import beta_quantile, t_quantile

NORMAL = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
_FEW_SOLVED = 3
"""With fewer problems' worth of right answers, or of wrong ones, the spread says nothing of the rest."""
_FEW_MIXED = 5
_FEW_DIFFER = 6


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
    _check_number(values)
    mean = fmean(values)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def paired_interval(before: Mapping[str, float], after: Mapping[str, float]) -> Interval:
    """Return the mean of `after - before` over the same keys, and its 95 % t interval."""
    return mean_interval(_differences(before, after))


def share_interval(shares: Sequence[float], samples: float = math.inf) -> Interval:
    """Return the mean of the problems' shares of right answers, with an interval within 0 and 1.

    `samples` is how many there are of each problem: they cannot be worth more than as many problems.
    """
    _check_number(shares)
    mean = fmean(shares)
    size = _effective_size(shares, samples)
    return Interval(mean, *_clopper_pearson(mean * size, size))


def paired_share_interval(before: Mapping[str, float], after: Mapping[str, float]) -> Interval:
    """Return the mean difference of shares over the same problems; its interval never has width zero."""
    changes = _differences(before, after)
    _check_number(changes)
    spread = stdev(changes)
    are_whole = all(change in (-1, 0, 1) for change in changes)
    if are_whole or spread == 0 or sum(change != 0 for change in changes) < _FEW_DIFFER:
        return _gains_and_losses(changes)
    mean = fmean(changes)
    # Half of them: with all, coverage fell to 91 % where few of 30 problems carry the difference.
    half = t_quantile(max(1.0, _degrees(changes) / 2)) * spread / math.sqrt(len(changes))
    return Interval(mean, max(-1.0, mean - half), min(1.0, mean + half))


def _check_number(values: Sequence[float]) -> None:
    if len(values) < 2:
        raise DataError(f"a confidence interval needs at least two values, got {len(values)}")


def _differences(before: Mapping[str, float], after: Mapping[str, float]) -> list[float]:
    if before.keys() != after.keys():
        only = sorted(before.keys() ^ after.keys())
        raise DataError(
            f"pairs need the same problems on both sides, but {len(only)} are on one only, e.g. {only[0]}"
        )
    return [after[key] - before[key] for key in before]


def _effective_size(shares: Sequence[float], samples: float) -> float:
    """Return how many independent answers are as sure as these: the number of problems at least.

    Nothing in [0, 1] with the same mean has more spread than 0s and 1s, so fewer than the problems they
    cannot be. That bound counts where the spread is no guide.
    """
    mean, num = fmean(shares), len(shares)
    spread = stdev(shares)
    num_mixed = min(sum(share > 0 for share in shares), sum(share < 1 for share in shares))
    are_whole = all(share in (0, 1) for share in shares)
    is_at_the_edge = num * min(mean, 1 - mean) < _FEW_SOLVED or num_mixed < _FEW_MIXED
    if are_whole or spread == 0 or is_at_the_edge:
        return float(num)
    size = num * mean * (1 - mean) / spread**2 * (NORMAL / t_quantile(_degrees(shares))) ** 2
    return max(float(num), min(size, num * samples))


def _degrees(values: Sequence[float]) -> float:
    """Return the degrees of freedom of a variance: 2 variance² over its own variance.

    Of normal values it is about their number; a few outliers leave little.
    """
    num, mean = len(values), fmean(values)
    squares = [(value - mean) ** 2 for value in values]
    kurtosis = fmean(square**2 for square in squares) / fmean(squares) ** 2
    if kurtosis <= 1 + 2 / num:
        return num - 1.0
    return min(num - 1.0, max(1.0, 2 * num / (kurtosis - 1)))


def _clopper_pearson(right: float, size: float) -> tuple[float, float]:
    """Return the exact bounds of a share; `right` of `size` need not be whole."""
    wrong = size - right
    tiny = 1e-9 * size
    low = 0.0 if right < tiny else beta_quantile(0.025, right, wrong + 1)
    high = 1.0 if wrong < tiny else beta_quantile(0.975, right + 1, wrong)
    return low, high


def _gains_and_losses(changes: Sequence[float]) -> Interval:
    """Return the difference of mean gain and mean loss, each with its exact interval, put together by MOVER.

    The correlation is that of two outcomes of one problem, which exclude each other.
    """
    num = len(changes)
    gain, loss = fmean(max(c, 0) for c in changes), fmean(max(-c, 0) for c in changes)
    gain_low, gain_high = _clopper_pearson(num * gain, num)
    loss_low, loss_high = _clopper_pearson(num * loss, num)
    correlation = -math.sqrt(gain * loss / max((1 - gain) * (1 - loss), 1e-12))
    down = _together(gain - gain_low, loss_high - loss, correlation)
    up = _together(gain_high - gain, loss - loss_low, correlation)
    return Interval(gain - loss, max(-1.0, gain - loss - down), min(1.0, gain - loss + up))


def _together(one: float, other: float, correlation: float) -> float:
    return math.sqrt(one**2 + other**2 - 2 * correlation * one * other)
