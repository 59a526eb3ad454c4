"""Two models on the same problems: the difference, how sure it is, and whether it is more than noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rlt.errors import DataError
from rlt.evaluation.intervals import Interval, paired_share_interval

Shares = dict[str, float]
"""By problem_id, the share of right answers."""
LEVEL = 0.05
"""Above this p-value of the sign test a difference may be noise, whatever its interval."""


def sign_test(better: int, worse: int) -> float:
    """Return the p-value of the two-sided sign test; with one sample each it is McNemar's exact test."""
    num = better + worse
    tail = sum(math.comb(num, i) for i in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**num)


def is_more_than_noise(is_above: bool, is_below: bool, better: int, worse: int, num: int = 1) -> bool:
    """Whether the interval excludes 0 and the sign test agrees; of `num` comparisons p counts `num` times."""
    return (is_above or is_below) and num * sign_test(better, worse) <= LEVEL


@dataclass(frozen=True)
class Paired:
    """Two models on the problems of one task."""

    task: str
    before: float
    after: float
    difference: Interval
    """Of the accuracies, paired by problem."""
    num_better: int
    """Problems that the second model solves more often."""
    num_worse: int
    first: str = "the first model"
    second: str = "the second model"

    @property
    def p_value(self) -> float:
        """The sign test over problems that differ, two-sided."""
        return sign_test(self.num_better, self.num_worse)

    def sentence(self, num: int = 1) -> str:
        """Whether the difference is more than noise; of `num` comparisons p counts `num` times."""
        low, high = self.difference.low, self.difference.high
        points = (
            f"{100 * self.difference.mean:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
        )
        excludes = low > 0 or high < 0
        if is_more_than_noise(low > 0, high < 0, self.num_better, self.num_worse, num):
            which = "better" if low > 0 else "worse"
            return f"{self.task}: {self.second} is {which} than {self.first} by more than noise ({points})."
        noise = f"{self.task}: the difference of {self.second} from {self.first} may be noise ({points})"
        if excludes:
            p_value = min(1.0, num * self.p_value)
            noise += (
                f": the interval excludes 0, but the sign test does not find it unlikely (p {p_value:.2g})"
            )
        return f"{noise}."


def compare(
    first: Mapping[str, Shares],
    second: Mapping[str, Shares],
    names: Sequence[str] = ("the first model", "the second model"),
) -> list[Paired]:
    """Return the comparison of each task; DataError where the problems are not the same."""
    if first.keys() != second.keys():
        tasks = [", ".join(run) for run in (first, second)]
        raise DataError(
            f"the two runs hold different tasks, {tasks[0]} and {tasks[1]}: evaluate both on the same"
        )
    found = []
    for task, before in first.items():
        after = second[task]
        try:
            difference = paired_share_interval(before, after)
        except DataError as error:
            raise DataError(f"task {task} cannot be compared: {error}") from None
        changes = [after[problem] - before[problem] for problem in before]
        better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        found.append(
            Paired(task, fmean(before.values()), fmean(after.values()), difference, better, worse, *names[:2])
        )
    return found
