"""Monitors of RL: what goes wrong while the reward still looks well, with advice.

They read the rows of samples, those of all processes, and change nothing in training. What is measured is
what the rows have; what is warned of is in `monitor_limits.py`. Engine drift has its own place,
`drift_log.py`, and shares the alarms.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from rlt.config.schema import MonitorSettings
from rlt.errors import CheckpointError
from rlt.rundir.samples import SampleRow
from rlt.trainers.alarms import Alarms
from rlt.trainers.monitor_limits import Limit, LimitsOf, teacher_limits

logger = logging.getLogger(__name__)

FILE = "monitors.json"
"""In a checkpoint: the baseline of the lengths, and the alarms that were raised."""
_ROUNDING = 1e-6
"""Rewards that differ by less are equal."""
Rows = Sequence[SampleRow]


class Monitors:
    """Numbers of each step, and a line of advice when one passes its limit."""

    def __init__(
        self, settings: MonitorSettings, alarms: Alarms, *, group: int, limits: LimitsOf = teacher_limits
    ) -> None:
        """`group` consecutive rows are the completions of one problem."""
        self._limits = [limit for limit in limits(settings) if limit.value is not None]
        self._alarms = alarms
        self._group = group
        self._baseline_steps = settings.baseline_steps
        self._baseline: list[float] = []

    def observe(self, rows: Rows, step: int) -> dict[str, float]:
        """Return `monitor/NAME` of a step for what the step has; warns where a limit is passed."""
        values = {
            "solution_copied": _mean(row.get("solution_copied") for row in rows),
            "solution_first": _mean(row.get("solution_first") for row in rows),
            "length_ratio": self._length_ratio(rows),
            "missing_tag": _mean(row.get("missing_tag") for row in rows),
            "malformed": _mean(not row["well_formed"] if "well_formed" in row else None for row in rows),
            "truncated": _mean(row["finish_reason"] == "length" for row in rows),
            "zero_variance": zero_variance(self._groups(rows)),
            "kl_share": kl_share(self._groups(rows)),
        }
        found = {name: value for name, value in values.items() if value is not None}
        for limit in self._limits:
            if limit.monitor in found:
                self._check(limit, found[limit.monitor], step)
        return {f"monitor/{name}": value for name, value in found.items()}

    def save(self, checkpoint: Path) -> None:
        """Write the state into a checkpoint's folder."""
        state = {"baseline": self._baseline, "raised": sorted(self._alarms.raised)}
        try:
            checkpoint.mkdir(parents=True, exist_ok=True)
            (checkpoint / FILE).write_text(json.dumps(state) + "\n", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"{checkpoint / FILE} cannot be written ({error}); make room there and resume from the "
                "checkpoint before"
            ) from error

    def load(self, checkpoint: Path) -> None:
        """Take the state from a checkpoint; one without it starts a new baseline."""
        path = checkpoint / FILE
        if not path.is_file():
            self._alarms.say(
                f"checkpoint {checkpoint} holds no {FILE}: from here on monitor/length_ratio is measured "
                "against the first steps after it"
            )
            return
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            baseline, raised = [float(x) for x in state["baseline"]], {str(x) for x in state["raised"]}
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} does not hold the state of the monitors ({error!r}); remove it, and they start again"
            ) from error
        self._baseline = baseline
        self._alarms.raised |= raised

    def _length_ratio(self, rows: Rows) -> float | None:
        """Return the mean length against that of the first steps, of those so far while they last."""
        length = fmean(row["explanation_tokens"] for row in rows)
        if len(self._baseline) < self._baseline_steps:
            self._baseline.append(length)
        start = fmean(self._baseline)
        return length / start if start else None

    def _groups(self, rows: Rows) -> list[Rows]:
        return [rows[i : i + self._group] for i in range(0, len(rows), self._group)]

    def _check(self, limit: Limit, value: float, step: int) -> None:
        assert limit.value is not None
        watch, where = (self._alarms.over, "above") if limit.side == "max" else (self._alarms.under, "below")
        warning = (
            f"step {step}: monitor/{limit.monitor} is {value:.3g}, {where} "
            f"monitors.{limit.setting}={limit.value:g}: {limit.advice}"
        )
        watch(limit.setting, value, limit.value, warning)


def zero_variance(groups: Sequence[Rows]) -> float:
    """Return the share of groups whose rewards are all equal (or no numbers), so that they teach nothing."""
    return fmean(_spread([row["reward"] for row in _scorable(group)]) < _ROUNDING for group in groups)


def kl_share(groups: Sequence[Rows]) -> float | None:
    """Return the share of r_KL in the reward's variance within groups: V(r_KL) / (V(r_SS) + V(r_KL)).

    0.5 is balance; near 1 the student's understanding hardly counts, near 0 its surprise. None where
    neither varies, or where r_KL is off or no part of the reward.
    """
    if not all("r_kl" in row for group in groups for row in group):
        return None
    squares_ss = sum(_squares([row["r_ss"] for row in _scorable(group)]) for group in groups)
    squares_kl = sum(_squares([row["r_kl"] for row in _scorable(group)]) for group in groups)
    is_off = not any(row["r_kl"] for group in groups for row in group)
    both = squares_ss + squares_kl
    return None if is_off or both < _ROUNDING**2 else squares_kl / both


def _mean(values: Iterable[float | None]) -> float | None:
    known = [float(value) for value in values if value is not None]
    return fmean(known) if known else None


def _scorable(rows: Rows) -> list[SampleRow]:
    return [row for row in rows if math.isfinite(row["reward"])]


def _spread(values: list[float]) -> float:
    return max(values) - min(values) if values else 0.0


def _squares(values: list[float]) -> float:
    """Return the summed squares of the deviations from the mean."""
    mean = fmean(values) if values else 0.0
    return sum((value - mean) ** 2 for value in values)
