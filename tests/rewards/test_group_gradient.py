"""JEPO's reward by its purpose: its policy gradient is the gradient of the group's expected bound."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

from rlt.rewards.groups import log_mean_exp


@pytest.mark.parametrize("size", [2, 3])
def test_the_policy_gradient_is_that_of_the_expected_bound(size: int):
    """Over every group that a policy of three explanations can write, in float64.

    The bound's log-mean of all is the reward's first term; the second, of the others alone, has no share in
    the mean of a row's gradient: it is a baseline.
    """
    values = torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64).log()
    logits = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    log_policy = logits.log_softmax(0)
    bound, surrogate = torch.zeros(2, dtype=torch.float64)
    for group in map(list, product(range(3), repeat=size)):
        probability = log_policy[group].sum().exp()
        bound = bound + probability * (values[group].logsumexp(0) - math.log(size))
        surrogate = surrogate + probability.detach() * (log_policy[group] * log_mean_exp(values[group])).sum()
    (expected,) = torch.autograd.grad(bound, logits, retain_graph=True)
    (found,) = torch.autograd.grad(surrogate, logits)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    assert expected.abs().max() > 0.05
