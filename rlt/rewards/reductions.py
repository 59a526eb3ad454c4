"""Reductions and elementwise maps of per-token values.

B examples, T tokens. Pure tensors. A reduction of an empty row is NaN: callers with rows without tokens
declares their value first (see `formula.py`). A NaN among the counted values stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Reduction = Callable[[Tensor, Tensor], Tensor]


def masked_mean(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the mean of the counted values of each row, shape (B,)."""
    return masked_sum(x_BT, mask_BT) / mask_BT.sum(1)


def masked_sum(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the sum of the counted values of each row; NaN for a row without any."""
    total_B = x_BT.masked_fill(~mask_BT, 0).sum(1)
    return total_B.masked_fill(~mask_BT.any(1), torch.nan)


def masked_min(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the smallest counted value of each row."""
    return x_BT.masked_fill(~mask_BT, torch.inf).amin(1).masked_fill(~mask_BT.any(1), torch.nan)


def masked_max(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the largest counted value of each row."""
    return x_BT.masked_fill(~mask_BT, -torch.inf).amax(1).masked_fill(~mask_BT.any(1), torch.nan)


def _quantile(q: float) -> Reduction:
    def masked_quantile(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
        value_B = x_BT.masked_fill(~mask_BT, torch.nan).nanquantile(q, dim=1)
        has_nan_B = (x_BT.isnan() & mask_BT).any(1)  # nanquantile would skip it
        return value_B.masked_fill(has_nan_B, torch.nan)

    return masked_quantile


REDUCTIONS: dict[str, Reduction] = {
    "mean": masked_mean,
    "sum": masked_sum,
    "min": masked_min,
    "max": masked_max,
    "median": _quantile(0.5),  # the mean of the two middle values when the count is even
    "first_quartile": _quantile(0.25),
    "last_quartile": _quantile(0.75),
}

TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "exp": torch.exp,
    "one_minus_exp": lambda x: 1 - torch.exp(-x),
}
