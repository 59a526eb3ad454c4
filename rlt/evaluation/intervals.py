"""95 % confidence intervals of means over problems. Plain numbers in, plain numbers out.

Problems are drawn at random, and the samples of one depend on each other, so the problem is the unit. The
methods for shares were chosen by simulation (scripts/interval_coverage.py, docs/intervals.md), because
Student's interval covers 77 % of the time instead of 95 where few problems are solved:

* a share: Clopper and Pearson (1934) with an effective sample size, as in Korn and Graubard (1998);
  Student's quantile takes its degrees of freedom from the kurtosis of the problems;
* a difference of shares: on each side the wider of Student's interval and of Hall's (1992), which removes the
  skewness by a transformation; where few problems differ, or each change is whole, the exact intervals of
  gains and losses, combined by MOVER (Newcombe 1998, Zou and Donner 2008).

R evaluations, N problems: functions that end in `_bounds` take many evaluations at once, as the simulation
needs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from rlt.errors import DataError
from rlt.evaluation.special import Floats, beta_quantile, t_quantile

NORMAL = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
_FEW_SOLVED = 3
"""With fewer problems' worth of right answers, or of wrong ones, the spread says nothing of the rest."""
_FEW_MIXED = 5
_FEW_DIFFER = 6
_SYMMETRIC = 1e-6
"""Below this skewness Hall's transformation changes nothing."""


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
    half = float(t_quantile(len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def paired_interval(before: Mapping[str, float], after: Mapping[str, float]) -> Interval:
    """Return the mean of `after - before` over the same keys, and its 95 % t interval."""
    return mean_interval(_differences(before, after))


def share_interval(shares: Sequence[float], samples: float = math.inf) -> Interval:
    """Return the mean of the problems' shares of right answers, with an interval within 0 and 1.

    `samples` is how many there are of each problem: they cannot be worth more than as many problems.
    """
    _check_number(shares)
    low, high = share_bounds(np.array([shares], dtype=float), samples)
    return Interval(fmean(shares), float(low[0]), float(high[0]))


def paired_share_interval(before: Mapping[str, float], after: Mapping[str, float]) -> Interval:
    """Return the mean difference of shares over the same problems; its interval never has width zero."""
    changes = _differences(before, after)
    _check_number(changes)
    low, high = paired_bounds(np.array([changes], dtype=float))
    return Interval(fmean(changes), float(low[0]), float(high[0]))


def share_bounds(shares_RN: Floats, samples: float = math.inf) -> tuple[Floats, Floats]:
    """Return the bounds of `share_interval` for each row."""
    size_R = _effective_size(shares_RN, samples)
    return _clopper_pearson(shares_RN.mean(axis=1) * size_R, size_R)


def paired_bounds(changes_RN: Floats) -> tuple[Floats, Floats]:
    """Return the bounds of `paired_share_interval` for each row of differences by problem."""
    are_whole_R = np.isin(changes_RN, (-1, 0, 1)).all(axis=1)
    few_R = (changes_RN != 0).sum(axis=1) < _FEW_DIFFER
    by_counts_R = are_whole_R | few_R | _is_constant(changes_RN)
    low_R, high_R = np.empty(len(changes_RN)), np.empty(len(changes_RN))
    for chosen_R, bounds in ((by_counts_R, _gains_and_losses), (~by_counts_R, _without_skewness)):
        if chosen_R.any():
            low_R[chosen_R], high_R[chosen_R] = bounds(changes_RN[chosen_R])
    return np.maximum(low_R, -1.0), np.minimum(high_R, 1.0)


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


def _is_constant(values_RN: Floats) -> np.ndarray:
    return values_RN.max(axis=1) == values_RN.min(axis=1)


def _effective_size(shares_RN: Floats, samples: float) -> Floats:
    """Return how many independent answers are as sure as these: the number of problems at least.

    Nothing in [0, 1] with the same mean has more spread than 0s and 1s, so fewer than the problems they
    cannot be. That bound counts where the spread is no guide.
    """
    num, mean_R = shares_RN.shape[1], shares_RN.mean(axis=1)
    num_mixed_R = np.minimum((shares_RN > 0).sum(axis=1), (shares_RN < 1).sum(axis=1))
    are_whole_R = np.isin(shares_RN, (0, 1)).all(axis=1)
    is_at_the_edge_R = (num * np.minimum(mean_R, 1 - mean_R) < _FEW_SOLVED) | (num_mixed_R < _FEW_MIXED)
    by_spread_R = ~(are_whole_R | is_at_the_edge_R | _is_constant(shares_RN))
    size_R = np.full(len(shares_RN), float(num))
    if by_spread_R.any():
        shares_RN, mean_R = shares_RN[by_spread_R], mean_R[by_spread_R]
        quantile_R = NORMAL / t_quantile(_degrees(shares_RN))
        found_R = num * mean_R * (1 - mean_R) / shares_RN.var(axis=1, ddof=1) * quantile_R**2
        size_R[by_spread_R] = np.clip(found_R, num, num * samples)
    return size_R


def _degrees(values_RN: Floats) -> Floats:
    """Return the degrees of freedom of a variance: 2 variance² over its own variance.

    Of normal values it is about their number; a few outliers leave little.
    """
    num = values_RN.shape[1]
    squares_RN = (values_RN - values_RN.mean(axis=1, keepdims=True)) ** 2
    kurtosis_R = (squares_RN**2).mean(axis=1) / squares_RN.mean(axis=1) ** 2
    excess_R = np.maximum(kurtosis_R - 1, 2 / num)  # at 2 / num and below all N - 1 count
    return np.clip(2 * num / excess_R, 1.0, num - 1.0)


def _without_skewness(changes_RN: Floats) -> tuple[Floats, Floats]:
    """Return the wider of Student's bound and of Hall's on each side.

    A few large gains among many small ones leave the truth above Student's interval. Hall's long side covers
    it, with half the degrees of freedom that the kurtosis leaves (with all of them coverage fell to 90 % for
    30 problems). His short side is too short where outliers on both sides only look skewed.
    """
    num, mean_R = changes_RN.shape[1], changes_RN.mean(axis=1)
    error_R = changes_RN.std(axis=1, ddof=1) / math.sqrt(num)
    student = float(t_quantile(num - 1))
    t_R = t_quantile(np.maximum(1.0, _degrees(changes_RN) / 2))
    deviations_RN = changes_RN - mean_R[:, None]
    skew_R = (deviations_RN**3).mean(axis=1) / changes_RN.std(axis=1) ** 3 / math.sqrt(num)
    down_R = np.maximum(student, _hall(t_R, skew_R))
    up_R = np.maximum(student, -_hall(-t_R, skew_R))
    return mean_R - down_R * error_R, mean_R + up_R * error_R


def _hall(quantile_R: Floats, skew_R: Floats) -> Floats:
    """Return the t whose transform is the quantile: the inverse of Hall's. `skew_R` is divided by √N."""
    skewed_R = np.where(np.abs(skew_R) < _SYMMETRIC, _SYMMETRIC, skew_R)
    return 3 / skewed_R * (np.cbrt(1 + skewed_R * (quantile_R - skewed_R / 6)) - 1)


def _clopper_pearson(right_R: Floats, size_R: Floats) -> tuple[Floats, Floats]:
    """Return the exact bounds of shares; `right_R` of `size_R` need not be whole."""
    wrong_R = size_R - right_R
    none_R, all_R = right_R < 1e-9 * size_R, wrong_R < 1e-9 * size_R
    low_R = beta_quantile(0.025, np.where(none_R, 1.0, right_R), wrong_R + 1)
    high_R = beta_quantile(0.975, right_R + 1, np.where(all_R, 1.0, wrong_R))
    return np.where(none_R, 0.0, low_R), np.where(all_R, 1.0, high_R)


def _gains_and_losses(changes_RN: Floats) -> tuple[Floats, Floats]:
    """Return the bounds of mean gain - mean loss, each with its exact interval, put together by MOVER.

    The correlation is that of two outcomes of one problem, which exclude each other.
    """
    num_R = np.full(len(changes_RN), float(changes_RN.shape[1]))
    gain_R, loss_R = np.maximum(changes_RN, 0).mean(axis=1), np.maximum(-changes_RN, 0).mean(axis=1)
    gain_low_R, gain_high_R = _clopper_pearson(num_R * gain_R, num_R)
    loss_low_R, loss_high_R = _clopper_pearson(num_R * loss_R, num_R)
    correlation_R = -np.sqrt(gain_R * loss_R / np.maximum((1 - gain_R) * (1 - loss_R), 1e-12))
    down_R = _together(gain_R - gain_low_R, loss_high_R - loss_R, correlation_R)
    up_R = _together(gain_high_R - gain_R, loss_R - loss_low_R, correlation_R)
    return gain_R - loss_R - down_R, gain_R - loss_R + up_R


def _together(one_R: Floats, other_R: Floats, correlation_R: Floats) -> Floats:
    return np.sqrt(np.maximum(one_R**2 + other_R**2 - 2 * correlation_R * one_R * other_R, 0))
