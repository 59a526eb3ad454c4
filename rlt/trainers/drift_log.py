"""Engine drift of a training run: collected per forward pass, logged per step, with an alarm."""

from __future__ import annotations

from accelerate.utils import gather_object
from torch import Tensor

from rlt.errors import GenerationError
from rlt.generation.drift import Drift, engine_drift
from rlt.trainers.alarms import Alarms


class DriftLog:
    """Keeps |policy - sampled| log-probabilities since the last log line, over all processes."""

    def __init__(self, alarms: Alarms, limit: float, error_limit: float | None) -> None:
        """`limit` bounds the mean: a single token of a long bfloat16 run is always far off.

        `error_limit`, where there is one, bounds the maximum: the reward reads the sampled values.
        """
        self._alarms = alarms
        self._limit = limit
        self._error_limit = error_limit
        self._since_last: list[Drift] = []

    def add(self, policy_BT: Tensor, sampled_BT: Tensor, mask_BT: Tensor) -> None:
        """Measure one forward pass."""
        self._since_last.append(engine_drift(policy_BT, sampled_BT, mask_BT))

    def metrics(self) -> dict[str, float]:
        """Return `drift/max` and `drift/mean` since the last call; collective.

        Warns when the mean rises over the limit. Raises GenerationError on every process when the maximum
        passes the error limit.
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
        self._alarms.over(
            "drift",
            mean,
            self._limit,
            f"engine drift: log-probabilities of policy and engine differ by {mean:.3g} on average and "
            f"{largest:.3g} at most (limit of the average {self._limit:.3g}); the engine may hold stale or "
            "incomplete weights",
        )
        return {"drift/max": largest, "drift/mean": mean}
