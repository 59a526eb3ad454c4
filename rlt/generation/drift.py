"""Engine drift: how far the trainer's policy is from the distribution that was sampled.

With correct weights on the servers it is rounding (below 1e-3 in float32); a tensor missing from a
weight sync, or an older version on one server, shows at once. B sequences, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Drift:
    """Size of |policy - sampled| log-probabilities over the counted tokens.

    `max` and `mean` are NaN as soon as one token is; without tokens they are 0.
    """

    max: float
    mean: float
    num_tokens: int


def engine_drift(policy_BT: Tensor, sampled_BT: Tensor, mask_BT: Tensor) -> Drift:
    """Return the drift over the tokens where the mask is not 0."""
    values = (policy_BT.detach().double() - sampled_BT.double()).abs()[mask_BT.bool()]
    if values.numel() == 0:
        return Drift(0.0, 0.0, 0)
    return Drift(values.max().item(), values.mean().item(), values.numel())


def rounding_limit(*dtypes: str) -> float:
    """Return the mean |difference| that rounding explains, between two programs in these dtypes."""
    return 0.001 if set(dtypes) == {"float32"} else 0.05
