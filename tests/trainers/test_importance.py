"""The correction by hand, and against TRL's own formula in a run with and without a pass of its own."""

from __future__ import annotations

import math

import pytest
import torch

from rlt.trainers.importance import Correction, RatioLog

POLICY = torch.log(torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.4, 0.7]], dtype=torch.float64))
SAMPLED = torch.log(torch.tensor([[0.25, 0.4, 0.1], [0.1, 0.2, 0.7]], dtype=torch.float64))
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("mode", "low", "high", "expected"),
    [
        ("token_truncate", None, 3.0, [[2.0, 0.5, 1.0], [1.0, 2.0, 1.0]]),
        ("token_truncate", 0.8, 1.5, [[1.5, 0.8, 1.0], [1.0, 1.5, 1.0]]),
        ("token_mask", None, 1.5, [[0.0, 0.5, 1.0], [1.0, 0.0, 1.0]]),
        ("token_mask", 0.8, None, [[2.0, 0.0, 1.0], [1.0, 2.0, 1.0]]),
        ("sequence_truncate", None, 1.5, [[1.0], [1.5]]),  # 2 * 0.5, and 1 * 2 * 1
        ("sequence_mask", None, 1.5, [[1.0], [0.0]]),
    ],
)
def test_ratios_by_hand(mode, low, high, expected):
    ratio = Correction(mode, low, high).ratio(POLICY, SAMPLED, MASK)
    assert ratio.tolist() == [pytest.approx(row) for row in expected]


def test_the_log_counts_tokens_alone():
    log = RatioLog()
    log.add(torch.tensor([[2.0, 0.5, 99.0]]), torch.tensor([[1, 1, 0]]))
    log.add(torch.tensor([[3.0]]), torch.tensor([[1, 1, 1]]))  # one ratio for the row
    log.add(torch.zeros(1, 2), torch.zeros(1, 2))
    name = "sampling/importance_sampling_ratio"
    assert log.metrics() == {f"{name}/min": 0.5, f"{name}/mean": pytest.approx(5.5 / 3), f"{name}/max": 3.0}
    assert log.metrics() == {}


def test_a_ratio_that_is_no_number_stays_none():
    log = RatioLog()
    log.add(torch.tensor([[1.0, math.nan]]), torch.ones(1, 2))
    assert all(math.isnan(value) for value in log.metrics().values())
