import math

import pytest
import torch

from rlt.generation.drift import Drift, engine_drift


def test_drift_by_hand():
    # Counted: |-1.0 + 1.5| = 0.5 and |-2.0 + 2.1| = 0.1; the token with difference 9 is masked.
    policy = torch.tensor([[-1.0, -9.0], [-2.0, -3.0]])
    sampled = torch.tensor([[-1.5, 0.0], [-2.1, -3.0]])
    drift = engine_drift(policy, sampled, torch.tensor([[1, 0], [1, 0]]))
    assert drift.max == pytest.approx(0.5)
    assert drift.mean == pytest.approx(0.3)
    assert drift.num_tokens == 2


def test_nan_stays_visible():
    policy = torch.tensor([[-1.0, math.nan, -2.0]])
    drift = engine_drift(policy, torch.full((1, 3), -1.0), torch.ones(1, 3))
    assert math.isnan(drift.max)
    assert math.isnan(drift.mean)
    assert drift.num_tokens == 3
    masked = engine_drift(policy, torch.full((1, 3), -1.0), torch.tensor([[1, 0, 1]]))
    assert masked.max == 1.0


def test_no_tokens():
    assert engine_drift(torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1, 2)) == Drift(0.0, 0.0, 0)
