"""What some models do to the output of their LM head before it becomes logits.

Gemma caps it, Granite and MiniCPM3 divide it, Cohere, Falcon-H1 and HyperCLOVA X multiply it (their
modeling files in transformers 5.17). All of it is `cap · tanh(scale · x / cap)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_MULTIPLIERS = ("logit_scale", "lm_head_multiplier")
"""Config fields by which the output is multiplied (Cohere, Falcon-H1)."""
_MULTIPLIES_BY_SCALING = ("hyperclovax",)
"""Model types that multiply by `logits_scaling`; all others divide by it."""


@dataclass(frozen=True)
class LogitMap:
    """From the LM head's output x to a logit: `cap · tanh(scale · x / cap)`; without a cap `scale · x`."""

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, config: Any) -> LogitMap:
        """Return the map of a model by its text configuration."""
        scale = 1.0
        for name in _MULTIPLIERS:
            scale *= _number(config, name) or 1.0
        scaling = _number(config, "logits_scaling") or 1.0
        scale = scale * scaling if config.model_type in _MULTIPLIES_BY_SCALING else scale / scaling
        return cls(scale, _number(config, "final_logit_softcapping"))

    def into_logits_(self, output: Tensor, temperature: float) -> Tensor:
        """Turn outputs of the LM head into logits over the temperature, in place."""
        if self.cap is None:
            return output.mul_(self.scale / temperature)
        return torch.tanh_(output.mul_(self.scale / self.cap)).mul_(self.cap / temperature)


def _number(config: Any, name: str) -> float | None:
    value = getattr(config, name, None)
    return None if value is None else float(value)
