"""Engine drift of a training run: collected per forward pass, logged per step, with an alarm."""

from __future__ import annotations

import logging

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from rlt.errors import GenerationError
from rlt.generation.drift import Drift, engine_drift

logger = logging.getLogger(__name__)


class DriftLog:
    """Keeps |policy - sampled| log-probabilities since the last log line, over all processes."""

    def __init__(self, accelerator: Accelerator, limit: float, error_limit: float | None) -> None:
        """`limit` bounds the mean: a single token of a long bfloat16 run is always far off.

        `error_limit`, where there is one, bounds the maximum: the reward reads the sampled values.
        """
        self._accelerator = accelerator
        self._limit = limit
        self._error_limit = error_limit
        self._since_last: list[Drift] = []
        self._is_over = False

    def add(self, policy_BT: Tensor, sampled_BT: Tensor, mask_BT: Tensor) -> None:
        """Measure one forward pass."""
        self._since_last.append(engine_drift(policy_BT, sampled_BT, mask_BT))

    def metrics(self) -> dict[str, float]:
        """Return `drift/max` and `drift/mean` since the last call; collective.

        Warns when the mean rises over the limit, once until it has been below again. Raises GenerationError
        on every process when the maximum passes the error limit.
        """
        drifts: list[Drift] = gather_object(self._since_last)
        self._since_last = []
        if not drifts:
            return {}
        largest = max((d.max for d in drifts), key=lambda value: (value != value, value))  # NaN is largest
        mean = sum(d.mean * d.num_tokens for d in drifts) / max(1, sum(d.num_tokens for d in drifts))
        if self._error_limit is not None and not largest <= self._error_limit:
            raise GenerationError(
                f"engine drift: log-probabilities of policy and engine differ by {largest:.3g}, and "
                f"reward.teacher_logprobs=engine is exact only up to {self._error_limit:g}: set it to policy"
            )
        is_over = not mean <= self._limit  # a NaN is over, too
        if is_over and not self._is_over and self._accelerator.is_main_process:
            logger.warning(
                "engine drift: log-probabilities of policy and engine differ by %.3g on average and %.3g at "
                "most (limit of the average %.3g); the engine may hold stale or incomplete weights",
                mean,
                largest,
                self._limit,
            )
        self._is_over = is_over
        return {"drift/max": largest, "drift/mean": mean}
