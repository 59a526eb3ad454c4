"""Paired intervals against numbers worked out by hand and against tables."""

import math

import numpy as np
import pytest
from interval_coverage import coverage, paired_coverage

from rlt.errors import DataError
from rlt.evaluation.intervals import (
    mean_interval,
    paired_bounds,
    paired_interval,
    paired_share_interval,
    share_bounds,
    share_interval,
)
from rlt.evaluation.special import beta_mass, beta_quantile, t_quantile


@pytest.mark.parametrize(
    ("degrees", "t"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (63, 1.9983)]
)
def test_t_quantiles_equal_the_tables(degrees: int, t: float):
    assert t_quantile(degrees) == pytest.approx(t, abs=5e-5)


def test_a_paired_interval_by_hand():
    # differences 1, 2, 3: mean 2, standard deviation 1, half width 4.3027 · 1/sqrt(3) = 2.4841
    interval = paired_interval({"a": 1.0, "b": 5.0, "c": -2.0}, {"b": 7.0, "c": 1.0, "a": 2.0})
    assert interval.mean == pytest.approx(2.0)
    assert interval.low == pytest.approx(-0.4841, abs=1e-4)
    assert interval.high == pytest.approx(4.4841, abs=1e-4)
    assert str(interval) == "+2.000 [-0.484, +4.484]"


def test_pairing_is_narrower_than_the_spread_between_problems():
    before = {str(i): 10.0 * i for i in range(8)}
    after = {key: value + 1 + 0.01 * int(key) for key, value in before.items()}
    assert paired_interval(before, after).low > 1


def test_unlike_problems_are_refused():
    with pytest.raises(DataError, match=r"2 are on one only, e\.g\. b"):
        paired_interval({"a": 1.0, "b": 2.0}, {"a": 1.0, "c": 2.0})


def test_one_value_has_no_interval():
    with pytest.raises(DataError, match="at least two values, got 1"):
        mean_interval([1.0])


@pytest.mark.parametrize(
    ("mass", "a", "b", "x"),
    [(0.975, 3, 28, 0.22073540152296187), (0.025, 2.5, 40.25, 0.010086984760574713), (0.5, 1, 1, 0.5)],
)
def test_beta_quantiles_equal_scipys(mass, a, b, x):
    """scipy 1.17.1, stats.beta.ppf."""
    assert beta_quantile(mass, a, b) == pytest.approx(x, rel=1e-12)
    assert beta_mass(x, a, b) == pytest.approx(mass, rel=1e-12)


@pytest.mark.parametrize(("degrees", "t"), [(4.5, 2.6589123472044034), (497, 1.9647486136388719)])
def test_t_quantiles_equal_scipys(degrees, t):
    assert t_quantile(degrees) == pytest.approx(t, rel=1e-12)


def test_one_sample_of_each_problem_is_clopper_pearson():
    """scipy 1.17.1, stats.binomtest(5, 30).proportion_ci()."""
    found = share_interval([1.0] * 5 + [0.0] * 25)
    assert (found.low, found.high) == pytest.approx((0.05642169646830169, 0.3472116988341439), rel=1e-10)


def test_a_few_samples_of_hard_problems_are_no_certainty():
    """One of 64 samples of one problem of 30 is right: as sure as 30 answers, not as 1,920."""
    found = share_interval([1 / 64] + [0.0] * 29, 64)
    assert found.high > 0.115
    assert found.low < 1e-4


def test_samples_count_no_more_than_they_are():
    """Half of 2 samples of each of 40 problems: 80 answers at most, whatever their spread says."""
    shares = [0.5] * 38 + [0.0, 1.0]
    found = share_interval(shares, 2)
    # binomtest(40, 80).proportion_ci() is 0.3861 to 0.6139
    assert (found.low, found.high) == pytest.approx((0.3861, 0.6139), abs=1e-4)


@pytest.mark.parametrize(
    ("num", "samples", "accuracy", "shape"),
    [
        (30, 64, 0.033, 1.0),
        (30, 64, 0.5, None),
        (30, 64, 0.97, 1.0),
        (100, 4, 0.02, 3.0),
        (500, 4, 0.99, 0.4),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_claim(num, samples, accuracy, shape):
    """1,000 evaluations each; the t interval covers 77 % of the first. The script makes the whole table."""
    held = coverage(np.random.default_rng(0), num, samples, shape, accuracy, 1000)
    assert held > 0.935
    assert shape is not None or held < 0.985


@pytest.mark.parametrize(
    ("num", "samples", "accuracy", "gain", "shape"),
    [
        (30, 1, 0.033, 0.03, None),
        (30, 1, 0.1, 0.0, None),
        (30, 64, 0.96, 0.03, 3.0),
        (30, 64, 0.01, 0.03, 3.0),
        (30, 64, 0.5, 0.0, 1.0),
        (500, 4, 0.99, 0.0, 1.0),
    ],
)
def test_paired_intervals_hold_the_truth(num, samples, accuracy, gain, shape):
    """The t interval covers 78 % of the first, and 87 % of the fourth; half its degrees 92.4 of the third."""
    held, claimed = paired_coverage(np.random.default_rng(1), num, samples, shape, accuracy, gain, 1000)
    assert held > 0.935
    assert gain or claimed < 0.05
    assert not 0.2 <= accuracy <= 0.8 or held < 0.985


def test_many_evaluations_at_once_are_as_one_by_one():
    rng = np.random.default_rng(2)
    shares = np.concatenate([rng.binomial(8, rng.beta(0.5, 1, (20, 12))) / 8, rng.binomial(1, 0.3, (5, 12))])
    one = [share_interval(row.tolist(), 8) for row in shares]
    np.testing.assert_allclose([(f.low, f.high) for f in one], np.transpose(share_bounds(shares, 8)), 1e-9)
    changes = shares[:-1] - shares[1:]
    pairs = [({str(i): 0.0 for i in range(12)}, {str(i): v for i, v in enumerate(row)}) for row in changes]
    found = [paired_share_interval(*pair) for pair in pairs]
    np.testing.assert_allclose([(f.low, f.high) for f in found], np.transpose(paired_bounds(changes)), 1e-9)


def test_a_skewed_difference_has_a_long_side():
    """Against Hall's formula by hand: changes 27 of 0.02, and 0.3, 0.5, 0.8, of 30 problems."""
    changes = [0.02] * 27 + [0.3, 0.5, 0.8]
    keys = [str(i) for i in range(30)]
    found = paired_share_interval(dict.fromkeys(keys, 0.0), dict(zip(keys, changes, strict=True)))
    mean = sum(changes) / 30
    moments = [sum((c - mean) ** k for c in changes) / 30 for k in (2, 3, 4)]
    error = (moments[0] / 29) ** 0.5
    skew = moments[1] / moments[0] ** 1.5 / 30**0.5
    t = float(t_quantile(30 / (moments[2] / moments[0] ** 2 - 1)))  # half of 2 N / (kurtosis - 1)

    def hall(quantile: float) -> float:
        inside = 1 + skew * (quantile - skew / 6)
        return 3 / skew * (math.copysign(abs(inside) ** (1 / 3), inside) - 1)

    assert found.high == pytest.approx(mean - error * hall(-t))
    assert found.low == pytest.approx(mean - error * max(hall(t), 2.0452296421))
    assert found.high - mean > 2 * (mean - found.low)


def test_a_difference_never_has_width_zero():
    keys = [str(i) for i in range(40)]
    for old, new in ((0.0, 0.0), (0.0, 1.0), (0.25, 0.5), (1.0, 1.0)):
        found = paired_share_interval(dict.fromkeys(keys, old), dict.fromkeys(keys, new))
        assert found.high - found.low > 0.05
        assert -1 <= found.low <= found.mean <= found.high <= 1
