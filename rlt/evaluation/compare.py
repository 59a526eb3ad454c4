"""Is one model better than another, or is it noise? `python -m rlt.evaluation.compare RUN_A RUN_B`.

Both are run directories of the stage evaluate on the same problems. They are compared problem by problem, so
that what makes a problem easy or hard for both does not count.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rlt.errors import DataError, RLTError
from rlt.evaluation.intervals import Interval, paired_interval

Shares = dict[str, float]
"""By problem_id, the share of right answers."""
_PROTOCOL = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_completion_length")
_PROTOCOL += ("student_prompt_sha256", "layout.tags", "grading")
"""What two runs should have in common, in manifest.json; the models themselves differ."""


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

    @property
    def p_value(self) -> float:
        """The sign test over problems that differ, two-sided; with one sample each, McNemar's exact test."""
        num = self.num_better + self.num_worse
        tail = sum(math.comb(num, i) for i in range(min(self.num_better, self.num_worse) + 1))
        return min(1.0, 2 * tail / 2**num)

    @property
    def sentence(self) -> str:
        """Whether the difference is more than noise."""
        low, high = self.difference.low, self.difference.high
        points = (
            f"{100 * self.difference.mean:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
        )
        if low > 0 or high < 0:
            which = "better" if low > 0 else "worse"
            return f"{self.task}: the second model is {which} by more than noise ({points})."
        return f"{self.task}: the difference may be noise ({points})."


def compare(first: Mapping[str, Shares], second: Mapping[str, Shares]) -> list[Paired]:
    """Return the comparison of each task; DataError where the problems are not the same."""
    if first.keys() != second.keys():
        names = [", ".join(run) for run in (first, second)]
        raise DataError(
            f"the two runs hold different tasks, {names[0]} and {names[1]}: evaluate both on the same"
        )
    found = []
    for task, before in first.items():
        after = second[task]
        try:
            difference = paired_interval(before, after)
        except DataError as error:
            raise DataError(f"task {task} cannot be compared: {error}") from None
        changes = [after[problem] - before[problem] for problem in before]
        better, worse = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
        found.append(Paired(task, fmean(before.values()), fmean(after.values()), difference, better, worse))
    return found


def read_shares(run: Path) -> dict[str, Shares]:
    """Return an evaluation's share of right answers, by task and problem."""
    path = _written(run, "samples.jsonl")
    verdicts: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    with path.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            verdicts[row["task"]][row["problem_id"]].append(row["correct"])
    return {
        task: {problem: fmean(found) for problem, found in problems.items()}
        for task, problems in verdicts.items()
    }


def read_manifest(run: Path) -> dict[str, Any]:
    """Return what an evaluation's answers depend on."""
    return json.loads(_written(run, "manifest.json").read_text(encoding="utf-8"))


def _written(run: Path, name: str) -> Path:
    if not (run / name).is_file():
        raise DataError(f"{run / name} does not exist: give the run directory of a finished evaluation")
    return run / name


def differences_of_protocol(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return what two manifests do not have in common besides the model."""
    found = [
        f"{name} is {json.dumps(first.get(name))} and {json.dumps(second.get(name))}"
        for name in _PROTOCOL
        if first.get(name) != second.get(name)
    ]
    tasks, others = first.get("tasks", {}), second.get("tasks", {})
    asked_otherwise = [
        task
        for task in tasks
        if task in others and tasks[task]["prompts_sha256"] != others[task]["prompts_sha256"]
    ]
    return found + [f"{task} was asked in other words" for task in asked_otherwise]


def page(pairs: Sequence[Paired]) -> str:
    """Return the table and a sentence for each task, as Markdown."""
    lines = [
        "| task | first | second | difference [95 %] | better / worse | p (sign test) |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for pair in pairs:
        mean, low, high = (100 * v for v in (pair.difference.mean, pair.difference.low, pair.difference.high))
        cells = (
            pair.task,
            f"{100 * pair.before:.1f}",
            f"{100 * pair.after:.1f}",
            f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]",
            f"{pair.num_better} / {pair.num_worse}",
            f"{pair.p_value:.3g}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(pair.sentence for pair in pairs)]) + "\n"


def main(words: Sequence[str]) -> int:
    """Print the comparison; return the exit code."""
    parser = argparse.ArgumentParser(prog="compare", description="Compare two evaluations by problem.")
    parser.add_argument("first", type=Path, metavar="RUN_A")
    parser.add_argument("second", type=Path, metavar="RUN_B")
    typed = parser.parse_args(words)
    try:
        pairs = compare(read_shares(typed.first), read_shares(typed.second))
        manifests = [read_manifest(run) for run in (typed.first, typed.second)]
    except RLTError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(page(pairs))
    for difference in differences_of_protocol(*manifests):
        sys.stdout.write(f"Note: {difference}, so the models are not all that differs.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
