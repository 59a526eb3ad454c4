"""Paired intervals against numbers worked out by hand and against tables."""

import pytest

from rlt.errors import DataError
from rlt.evaluation.intervals import mean_interval, paired_interval, t_quantile


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
