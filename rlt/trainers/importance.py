"""The correction for the distance between engine and policy, made in the update's own pass.

TRL reads the policy's log-probabilities of the sampled tokens in a pass without gradients beforehand. Where a
step is one update of the policy that has generated, the pass with gradients gives the same values: there
p_policy / p_engine costs nothing.

B rows, C tokens of completions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from accelerate.utils import gather_object
from torch import Tensor


@dataclass(frozen=True)
class Correction:
    """How ratios are bounded: TRL's vllm_importance_sampling_mode, _clip_min and _clip_max."""

    mode: str
    """`token_` or `sequence_` (one ratio a row), then `truncate` (to the bounds) or `mask` (0 outside)."""
    low: float | None
    high: float | None

    def ratio(self, policy_BC: Tensor, sampled_BC: Tensor, mask_BC: Tensor) -> Tensor:
        """Return p_policy / p_engine of each token (B, C), or of each row (B, 1), bounded."""
        difference_BC = (policy_BC - sampled_BC) * mask_BC
        level, _, how = self.mode.partition("_")
        ratio = (difference_BC.sum(1, keepdim=True) if level == "sequence" else difference_BC).exp()
        if how == "truncate":
            return ratio.clamp(self.low, self.high)
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)


class RatioLog:
    """Keeps the ratios since the last log line, over all processes."""

    def __init__(self) -> None:
        self._since_last: list[tuple[float, float, float, int]] = []

    def add(self, ratio: Tensor, mask_BC: Tensor) -> None:
        """Take the ratios of one pass."""
        values = ratio.detach().double()
        values = values[mask_BC.bool()] if ratio.size(1) == mask_BC.size(1) else values.flatten()
        if values.numel():
            low, high = torch.aminmax(values)
            self._since_last.append((low.item(), values.sum().item(), high.item(), values.numel()))

    def metrics(self) -> dict[str, float]:
        """Return smallest, mean and largest ratio since the last call; collective."""
        found: list[tuple[float, float, float, int]] = gather_object(self._since_last)
        self._since_last = []
        if not found:
            return {}
        lows, sums, highs, counts = zip(*found, strict=True)
        name = "sampling/importance_sampling_ratio"
        return {f"{name}/min": min(lows), f"{name}/mean": sum(sums) / sum(counts), f"{name}/max": max(highs)}
