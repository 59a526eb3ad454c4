"""Packing and padding, against hand-worked numbers and bounds."""

import random

import pytest

from rlt.traces.packing import STEP, num_packed, padding_share


@pytest.mark.parametrize(
    ("lengths", "capacity", "expected"),
    [
        ([], 10, 0),
        ([10, 10], 10, 2),
        ([6, 5, 4, 5], 10, 2),  # 6 + 4, 5 + 5
        ([7, 6, 3, 2, 2], 10, 2),  # 7 + 3, 6 + 2 + 2: first fit would do as well
        ([8, 7, 3, 2], 10, 2),  # 3 goes beside 7, the fullest that takes it, and 2 beside 8
        ([25, 1], 10, 2),  # cut to the capacity
    ],
)
def test_sequences_by_hand(lengths, capacity, expected):
    assert num_packed(lengths, capacity) == expected


def test_sequences_hold_all_tokens_and_are_near_the_least():
    draw = random.Random(0)
    for _ in range(50):
        lengths = [draw.randint(1, 100) for _ in range(200)]
        found = num_packed(lengths, 100)
        assert -(-sum(lengths) // 100) <= found <= 11 / 9 * sum(lengths) / 100 + 10


def test_padding_by_hand():
    assert padding_share([3, 9, 4], 1) == 0
    assert padding_share([2, 4], 2) == pytest.approx(2 / 8)
    assert padding_share([5, 5, 5], 2) == 0
    assert padding_share([1, 2, 3, 10], 4) == pytest.approx(24 / 40)


def test_rows_of_one_step_share_passes_by_length():
    assert padding_share([1, 10, 1, 10, 1, 10], 3) == 0
    # 9 and 8, 2 and 1
    assert padding_share([1, 9, 2, 8], 2) == pytest.approx(2 / 22)
    # In random order both steps have an odd number of tens: one pass of each holds a ten and a one.
    assert padding_share([1] * STEP + [10] * STEP, 2) == pytest.approx(2 * 9 / (12 * 11 + 2 * 9))
