"""Length shaping by hand."""

import pytest
from helpers.component_cases import explained

from rlt.rewards.components.length import LengthPenalty


@pytest.mark.parametrize(
    ("num_tokens", "value"),
    [(0, -1), (50, -0.5), (99, -0.01), (100, 0), (150, 0), (200, 0), (250, -0.25), (400, -1), (1000, -4)],
)
def test_the_penalty_is_the_relative_distance_from_the_range(num_tokens, value):
    assert LengthPenalty(100, 200).values([explained(num_tokens=num_tokens)]) == [pytest.approx(value)]


def test_either_side_may_be_open():
    lengths = [explained(num_tokens=n) for n in (0, 10, 30)]
    assert LengthPenalty(0, 20).values(lengths) == [0, 0, -0.5]
    assert LengthPenalty(20, None).values(lengths) == [-1, -0.5, 0]
