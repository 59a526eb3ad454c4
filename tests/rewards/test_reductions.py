"""Reductions by numbers worked out by hand."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlt.config import schema
from rlt.rewards.reductions import REDUCTIONS, TRANSFORMS

NAN, INF = math.nan, math.inf


def reduce(name: str, *rows: list[float], hidden: float = 0.0) -> list[float]:
    """Return a reduction of rows of different lengths; `hidden` fills what is not counted."""
    width = max(map(len, rows)) + 1
    x_BT = torch.tensor([row + [hidden] * (width - len(row)) for row in rows], dtype=torch.float64)
    mask_BT = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return REDUCTIONS[name](x_BT, mask_BT).tolist()


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("mean", [-1, -3], -2),
        ("sum", [-1, -3], -4),
        ("min", [-1, -3, -2], -3),
        ("max", [-1, -3, -2], -1),
        ("median", [-1, -3, -2], -2),
        ("median", [1, 10, 2, 3], 2.5),  # upstream 12: torch's lower median gives 2
        ("median", [7], 7),
        ("first_quartile", [1, 2, 3, 4, 5], 2),
        ("first_quartile", [1, 2, 3, 4], 1.75),  # three quarters of the way from 1 to 2
        ("last_quartile", [1, 2, 3, 4, 5], 4),
        ("last_quartile", [4, 1, 3, 2], 3.25),
        ("first_quartile", [7], 7),
    ],
)
@pytest.mark.parametrize("hidden", [0.0, -99.0, 99.0, NAN, INF, -INF])
def test_by_hand_whatever_stands_in_the_padding(name, row, expected, hidden):
    longer = [0.5] * (len(row) + 3)
    assert reduce(name, row, longer, hidden=hidden)[0] == pytest.approx(expected)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_nan_stays(name):
    """Upstream 7: NaN of the model became a normal-looking number."""
    result = reduce(name, [1, NAN, 3], [1, 2, 3])
    assert math.isnan(result[0])
    assert math.isfinite(result[1])


@pytest.mark.parametrize("name", REDUCTIONS)
def test_an_empty_row_is_nan(name):
    """Upstream 6: min and max of nothing were the largest floats."""
    result = reduce(name, [], [1, 2, 3])
    assert math.isnan(result[0])
    assert math.isfinite(result[1])


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("infinity", [INF, -INF])
def test_infinity_never_becomes_an_ordinary_number(name, infinity):
    """Upstream 7: infinities became 3.4e38."""
    (result,) = reduce(name, [infinity] * 3)
    assert not math.isfinite(result)


ROWS = st.lists(st.lists(st.floats(-50, 50), min_size=1, max_size=9), min_size=1, max_size=5)


@given(rows=ROWS)
def test_against_the_standard_library(rows):
    def quartile(row: list[float], q: int) -> float:
        return statistics.quantiles(row, n=4, method="inclusive")[q] if len(row) > 1 else row[0]

    for name, function in {
        "mean": statistics.fmean,
        "sum": math.fsum,
        "min": min,
        "max": max,
        "median": statistics.median,
        "first_quartile": lambda row: quartile(row, 0),
        "last_quartile": lambda row: quartile(row, 2),
    }.items():
        assert reduce(name, *rows) == pytest.approx([function(row) for row in rows], abs=1e-9)


def test_transforms_by_hand():
    x = torch.tensor([0.0, math.log(2), -math.log(4)], dtype=torch.float64)
    assert TRANSFORMS["none"](x).tolist() == x.tolist()
    assert TRANSFORMS["exp"](x).tolist() == pytest.approx([1, 2, 0.25])
    assert TRANSFORMS["one_minus_exp"](x).tolist() == pytest.approx([0, 0.5, -3])


def test_the_settings_name_what_exists():
    assert set(schema.REDUCTIONS) == set(REDUCTIONS)
    assert set(schema.TRANSFORMS) == set(TRANSFORMS)
