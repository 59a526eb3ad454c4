"""Which weights are no numbers, in a whole model and in this process's part of a sharded one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rlt.trainers.finite import not_finite


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_number_among_many_is_found(value: float, dtype: torch.dtype):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).to(dtype)
    assert not_finite(model) == []
    with torch.no_grad():
        model[1].weight[3, 5] = value
    assert not_finite(model) == ["1.weight"]


def test_the_largest_finite_numbers_are_numbers():
    model = nn.Linear(4, 4)
    nn.init.constant_(model.weight, torch.finfo(torch.float32).max)  # their sum would not be
    assert not_finite(model) == []


def test_padding_of_a_shard_is_not_looked_at():
    """ZeRO-3 pads the last shard with whatever is in memory: five numbers over two processes are 3 and 2."""
    weight = nn.Parameter(torch.empty(0))
    weight.ds_numel, weight.ds_zero_partition_rank = 5, 1
    weight.ds_tensor = torch.tensor([1.0, 2.0, math.nan])
    weight.ds_tensor.ds_numel = 3
    module = nn.Module()
    module.weight = weight
    assert not_finite(module) == []
    weight.ds_tensor[1] = math.nan
    assert not_finite(module) == ["weight"]
    weight.ds_numel = 3  # all of it lies on the first process
    assert not_finite(module) == []
